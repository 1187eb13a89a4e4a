"""Quota's log becomes accounts, grants, usage and wholesale: the projection `usage`, one for each shard.

A page is folded in memory and written once per row. What the sums mean is in `domain/metering.py`. Of a large page
PostgreSQL writes one part while we fold the next: all events of an account are in one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from time import sleep
from typing import Any

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.metering import (
    SUMMED,
    Kind,
    Metering,
    UsageRow,
    fold_log,
    microseconds,
    on_time,
    wholesale,
)
from services.billing.tables import add_up, add_up_columns
from shared.clock import period_of
from shared.contracts import quota as q
from shared.eventstore.beside import Beside
from shared.eventstore.projection import Page
from shared.eventstore.rows import insert
from shared.sharding import shard_named

FOLDED = 1000  # events, before others get their turn
PARTS, PARTED = 12, 4000  # a page of so many events is taken in parts
SUMS = (*SUMMED, "charged", "trace")
_sums = attrgetter(*SUMS)


def projection_name(log: str) -> str:
    """Under which name the followed position of a log of quota is kept."""
    return "usage" if log == "quota" else f"usage:{log}"


class UsageProjection:
    """Folds a log of quota into accounts, grants, usage and wholesale.

    Those of several shards are folded side by side: no row is written by two of them.
    """

    def __init__(self, log: str = "quota") -> None:
        self.name = projection_name(log)
        self._shard = shard_named(log)

    def apply(self, connection: sa.Connection, page: Page) -> None:
        # Commands do not wait for us. But in SQLite we hold the lock that they need.
        others_may_work = connection.dialect.name == "postgresql"
        usage: list[UsageRow] = []
        with Beside(threaded=others_may_work) as beside:
            closed = cache(lambda period: beside.ask(_closed, connection, self._shard, period))
            for part in page.by_stream(PARTS) if others_may_work and len(page) >= PARTED else (page,):
                folded = fold_log(_in_turns(part) if others_may_work else part.tuples(), closed)
                rows = folded.usage()
                beside.do(_write, connection, self._shard, folded, rows)
                usage += rows
            beside.do(_write_totals, connection, self._shard, usage)


def _in_turns(page: Page) -> Iterator[tuple[Any, ...]]:
    """A page, letting others have their turn now and then."""

    def parts() -> Iterator[Iterator[tuple[Any, ...]]]:
        for start in range(0, len(page), FOLDED):
            yield page[start : start + FOLDED].tuples()
            sleep(0)

    return chain.from_iterable(parts())


def _write(connection: sa.Connection, shard: int, folded: Metering, usage: Sequence[UsageRow]) -> None:
    _write_accounts(connection, shard, folded)
    _write_grants(connection, folded)
    _write_endings(connection, folded)
    _write_usage(connection, usage)


def _closed(connection: sa.Connection, shard: int, period: str) -> set[str]:
    """The operators that have bills for a period of accounts of this shard."""
    c = t.periods.c
    found = connection.execute(sa.select(c.operator).where(c.closed, c.shard == shard, c.period == period))
    return {operator for (operator,) in found}


def _write_accounts(connection: sa.Connection, shard: int, folded: Metering) -> None:
    rows = [
        {
            "operator": heard.operator,
            "account": heard.account,
            "position": heard.position,
            "shard": shard,
            "opened_at": event.at.isoformat(),
            "opened_us": microseconds(event.at),
            "plan": event.plan,
            "subscriber": event.subscriber,
            "credit_limit": event.credit_limit,
            "closed": 0,
            "closed_us": 0,
        }
        for heard, event in folded.opened
    ]
    insert(connection, t.accounts, rows)
    c = t.accounts.c
    # What else the values name is what is set.
    of_account = sa.update(t.accounts).where(c.operator == sa.bindparam("o"), c.account == sa.bindparam("a"))
    limits = [{"o": o, "a": a, "credit_limit": limit} for (o, a), limit in folded.limits.items()]
    closed = [{"o": o, "a": a, "closed": at, "closed_us": us} for (o, a), (at, us) in folded.closed.items()]
    for values in filter(None, (limits, closed)):
        connection.execute(of_account, values)


def _write_grants(connection: sa.Connection, folded: Metering) -> None:
    rows = [
        {
            "operator": heard.operator,
            "account": heard.account,
            "position": heard.position,
            "period": period_of(event.at),
            "at_us": microseconds(event.at),
            "source": event.source,
            "name": event.request_id,
            "amount": event.amount,
            "price_fen": event.price_fen,
            "plan": event.plan,
            "plan_version": event.plan_version,
            "subscription": event.subscription,
        }
        for heard, event in folded.granted
    ]
    insert(connection, t.grants, rows)


def _write_endings(connection: sa.Connection, folded: Metering) -> None:
    rows = [
        {
            "operator": heard.operator,
            "account": heard.account,
            "position": heard.position,
            "grant": event.grant,
            "kind": "voided" if isinstance(event, q.GrantVoided) else "expired",
            "at_us": microseconds(event.at),
            "amount": event.amount,
        }
        for heard, event in folded.ended
    ]
    insert(connection, t.endings, rows)


def _write_usage(connection: sa.Connection, usage: Sequence[UsageRow]) -> None:
    if not usage:
        return
    streams, kinds, segments, sums = zip(*usage, strict=True)
    operators, accounts = zip(*(stream.split("/", 1) for stream in streams), strict=True)
    columns = {"operator": operators, "account": accounts, "segment": segments}
    columns |= zip(Kind._fields, zip(*kinds, strict=True), strict=True)
    columns |= zip(SUMS, zip(*map(_sums, sums), strict=True), strict=True)
    add_up_columns(connection, t.usage, columns, (*SUMMED, "charged"))


def _write_totals(connection: sa.Connection, shard: int, usage: Sequence[UsageRow]) -> None:
    """What is summed over accounts."""
    between = (
        key._asdict() | {"shard": shard} | {name: getattr(sums, name) for name in SUMMED}
        for key, sums in wholesale(usage).items()
    )
    add_up(connection, t.wholesale, between, SUMMED)
    # In the order of their keys, too: whoever closes a period meanwhile cannot wait for us while we wait.
    reached = (
        {"operator": o, "period": p, "shard": shard, "on_time": at, "closed": False}
        for (o, p), at in sorted(on_time(usage).items())
    )
    add_up(connection, t.periods, reached, take=("on_time",))
