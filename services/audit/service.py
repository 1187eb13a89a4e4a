"""The audit service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.audit.application import AuditApplication
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.timing import every
from shared.messaging.tracing import Tracing

PAGE = 5000  # events of a page: one transaction of some fifty milliseconds


class AuditService(LogService):
    """What can be proved: trees of the logs, checkpoints, proofs."""

    name = "audit"
    app = Hosted(AuditApplication)
    tracing = Tracing()

    @rpc
    def seal(self, **command: Any) -> dict[str, Any]:
        return self.app.seal(command)

    @rpc
    def cosign(self, **command: Any) -> dict[str, Any]:
        return self.app.cosign(command)

    @rpc
    def refuse(self, **command: Any) -> dict[str, Any]:
        return self.app.refuse(command)

    # -- questions ------------------------------------------------------------------------------------
    @rpc
    def checkpoint(self, **query: Any) -> dict[str, Any]:
        return self.app.checkpoint(query)

    @rpc
    def checkpoints(self, **query: Any) -> dict[str, Any]:
        return self.app.checkpoints(query)

    @rpc
    def inclusion(self, **query: Any) -> dict[str, Any]:
        return self.app.inclusion(query)

    @rpc
    def consistency(self, **query: Any) -> dict[str, Any]:
        return self.app.consistency(query)

    @rpc
    def multiproof(self, **query: Any) -> dict[str, Any]:
        return self.app.multiproof(query)

    @rpc
    def tile(self, **query: Any) -> dict[str, Any]:
        return self.app.tile(query)

    @rpc
    def status(self) -> dict[str, Any]:
        return self.app.status()

    # -- what it follows ------------------------------------------------------------------------------
    @follow("catalog", page_size=PAGE)
    def on_catalog(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow("catalog", page)

    @follow("quota", page_size=PAGE)
    def on_quota(self, page: list[dict[str, Any]], shard: int = 0) -> int:
        return self.app.follow(self.app.settings.logs("quota")[shard], page)

    @follow("routing", page_size=PAGE)
    def on_routing(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow("routing", page)

    @follow("billing", page_size=PAGE)
    def on_billing(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow("billing", page)

    # -- what it does by itself -----------------------------------------------------------------------
    @every("seal_interval_s")
    def on_time(self) -> None:
        self.app.seal_grown()
