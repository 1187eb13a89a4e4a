"""A market on PostgreSQL whose quota is archived and dropped, and all that may be asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from services.audit.archive.run import write_archive
from services.quota.schemas import Balance, Balances, Find, Statement
from services.quota.shards import QuotaShards
from shared.contracts.schema import parse
from shared.eventstore.log import EventLog
from tests.unit.archive_world import Client, a_few_days
from tokengrid.dropping import drop_archived

EACH = 24  # events in a partition


class Dropping:
    """A market on PostgreSQL whose quota is archived, and dropped up to there."""

    def __init__(self, folder: Path, database: str) -> None:
        self.archive = folder / "archive"
        self.market = a_few_days(folder / "market", 40, database=database, partition_events=EACH)
        self.requests: list[dict[str, Any]] = []
        self.remember()

    def remember(self) -> None:
        """Requests whose answers stand in the first partitions."""
        owner = self.market.accounts[1]
        events = self.quota.statement(parse(Statement, named(owner, limit=40)))["events"]
        self.requests = [named(owner, name=event["request_id"]) for event in events]

    @property
    def quota(self) -> QuotaShards:
        return self.market.quota

    @property
    def log(self) -> EventLog:
        return self.quota.shards[0].log

    def grow(self, head: int) -> None:
        """Debits until the log is this long."""
        owner = self.market.accounts[2]
        while self.log.head() < head:
            self.market.do("debit", owner, model="alpha", usage={"input": 1}, on_insufficient="overdraw")

    def write(self) -> int:
        self.market.follow()
        return write_archive(Client(self.market), self.market.settings, self.archive)[0].size

    def drop(self, **chosen: Any) -> list[tuple[int, int]]:
        return [(p.first, p.last) for p in drop_archived(self.market.settings, self.archive, "quota", **chosen)]

    def restart(self, archive: Path | None) -> None:
        """Quota as a process that has just started, with this archive."""
        self.market.quota.close()
        settings = self.market.settings.model_copy(update={"archive": archive})
        self.market.quota = QuotaShards(settings, self.market.clock)
        self.market.client = type(self.market.client)(self.market)

    def answers(self) -> dict[str, Any]:
        """All that anybody may ask of quota."""
        given: dict[str, Any] = {"log": self.log.read(0, 10_000), "head": self.log.head()}
        given["late"] = self.log.read(EACH + 7, 10)
        given["balances"] = self.quota.balances(parse(Balances, {}))
        half = self.log.read(self.log.head() // 3, 1)[0].event.recorded_at
        for owner in self.market.accounts:
            stream = "/".join(owner)
            given[stream] = [
                self.quota.balance(parse(Balance, named(owner))),
                self.quota.balance(parse(Balance, named(owner, at=half.isoformat()))),
                self.quota.balance(parse(Balance, named(owner, known_at=half.isoformat()))),
                self.quota.statement(parse(Statement, named(owner, limit=7))),
                self.quota.statement(parse(Statement, named(owner, limit=7, newest_first=True))),
                self.quota.statement(parse(Statement, named(owner, limit=500, until=half.isoformat()))),
                self.log.stream(stream),
                self.log.stream(stream, 1, 3),
                self.log.streams({stream: 0}, 4),
            ]
        given["found"] = [self.quota.find(parse(Find, fields)) for fields in self.requests]
        return given


def named(owner: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"operator": owner[0], "account": owner[1], **fields}
