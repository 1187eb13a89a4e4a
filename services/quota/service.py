"""The quota service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

import msgspec

from services.quota.schemas import Balance, Balances, Find, Statement, Sweep
from services.quota.shards import QuotaShards
from shared.contracts.base import COMMANDS
from shared.contracts.schema import parse
from shared.eventstore.requests import Request
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.lane import lane
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.timing import every
from shared.messaging.tracing import Tracing
from shared.sharding import shard_of


class _Place(msgspec.Struct):
    """What a command says of where it belongs."""

    operator: str
    account: str


_place = msgspec.json.Decoder(_Place)


def shard_of_command(fields: msgspec.Raw, shards: int) -> int | None:
    """The shard of the account in a command; None for a command without one, which any shard refuses."""
    try:
        place = _place.decode(fields)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return shard_of(place.operator, place.account, shards)


OWN_PAGE = 20_000  # events: the more of them at once, the fewer rows are written twice


class QuotaService(LogService):
    """Who may spend what: accounts, grants, reservations, debits."""

    name = "quota"
    app = Hosted(QuotaShards)
    tracing = Tracing()

    # -- commands: each answers only after its event is durable -------------------------------------
    @lane(*COMMANDS["quota"], "execute", place=shard_of_command)
    def work(self, shard: int, requests: list[Request]) -> list[bytes | Exception]:
        return self.app.serve(shard, requests)

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

    @follow("quota", page_size=OWN_PAGE)
    def on_quota(self, page: list[dict[str, Any]], shard: int = 0) -> int:
        return self.app.follow_quota(page, shard)

    # -- what it does by itself -----------------------------------------------------------------------
    @every("sweep_interval_s")
    def on_time(self) -> None:
        self.app.sweep(Sweep())

    @every("snapshot_interval_s")
    def on_growth(self) -> None:
        for shard in self.app.shards:
            shard.take_snapshots()
