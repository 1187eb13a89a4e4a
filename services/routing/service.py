"""The routing service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.routing.application import RoutingApplication
from services.routing.schemas import Call, Deployments
from shared.contracts.schema import parse
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.timing import every
from shared.messaging.tracing import Tracing


class RoutingService(LogService):
    """Where a call runs: choice of deployment, health, capacity."""

    name = "routing"
    app = Hosted(RoutingApplication)
    tracing = Tracing()

    # -- commands: each answers only after its event is durable -------------------------------------
    @rpc
    def route(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("route", command)

    @rpc
    def report(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("report", command)

    @rpc
    def execute(self, commands: Any = None) -> list[dict[str, Any]]:
        return self.app.execute(commands)

    # -- questions ------------------------------------------------------------------------------------
    @rpc
    def call(self, **query: Any) -> dict[str, Any]:
        return self.app.call(parse(Call, query))

    @rpc
    def deployments(self, **query: Any) -> dict[str, Any]:
        return self.app.deployments(parse(Deployments, query))

    @rpc
    def status(self) -> dict[str, Any]:
        return self.app.status()

    # -- what it follows ------------------------------------------------------------------------------
    @follow("catalog")
    def on_catalog(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow_catalog(page)

    @every("refresh_interval_s")
    def on_time(self) -> None:
        self.app.refresh()
