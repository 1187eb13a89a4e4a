"""The quota service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.quota.application import QuotaApplication
from services.quota.schemas import Balance, Balances, Find, Statement, Sweep
from shared.contracts.schema import parse
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.timing import every
from shared.messaging.tracing import Tracing


class QuotaService(LogService):
    """Who may spend what: accounts, grants, reservations, debits."""

    name = "quota"
    app = Hosted(QuotaApplication)
    tracing = Tracing()

    # -- commands: each answers only after its event is durable -------------------------------------
    @rpc
    def open_account(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("open_account", command)

    @rpc
    def grant(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("grant", command)

    @rpc
    def void_grant(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("void_grant", command)

    @rpc
    def reserve(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("reserve", command)

    @rpc
    def extend(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("extend", command)

    @rpc
    def settle(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("settle", command)

    @rpc
    def release(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("release", command)

    @rpc
    def debit(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("debit", command)

    @rpc
    def reverse(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("reverse", command)

    @rpc
    def set_credit_limit(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("set_credit_limit", command)

    @rpc
    def suspend(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("suspend", command)

    @rpc
    def resume(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("resume", command)

    @rpc
    def close_account(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("close_account", command)

    @rpc
    def execute(self, commands: Any = None) -> list[dict[str, Any]]:
        return self.app.execute(commands)

    @rpc
    def sweep(self, **query: Any) -> dict[str, Any]:
        return self.app.sweep(parse(Sweep, query))

    # -- questions ------------------------------------------------------------------------------------
    @rpc
    def balance(self, **query: Any) -> dict[str, Any]:
        return self.app.balance(parse(Balance, query))

    @rpc
    def statement(self, **query: Any) -> dict[str, Any]:
        return self.app.statement(parse(Statement, query))

    @rpc
    def find(self, **query: Any) -> dict[str, Any]:
        return self.app.find(parse(Find, query))

    @rpc
    def balances(self, **query: Any) -> dict[str, Any]:
        return self.app.balances(parse(Balances, query))

    @rpc
    def status(self) -> dict[str, Any]:
        return self.app.status()

    # -- what it follows --------------------------------------------------------------------------------
    @follow("catalog")
    def on_catalog(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow_catalog(page)

    @follow("quota")
    def on_quota(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow_quota(page)

    # -- what it does by itself -----------------------------------------------------------------------
    @every("sweep_interval_s")
    def on_time(self) -> None:
        self.app.sweep(Sweep())
