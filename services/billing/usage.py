"""Quota's log becomes accounts, grants, usage and wholesale: the projection `usage`, one for each shard.

A page is folded in memory and written once per row. What the sums mean is in `domain/metering.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.metering import Heard, Metering, Sums, fold, microseconds, periods
from services.billing.tables import add_up
from shared.clock import period_of
from shared.contracts import quota as q
from shared.eventstore.log import LoggedEvent
from shared.sharding import shard_named

# By name, not by version: a version that nobody here can decode must stop the follower, not be skipped.
HEARD = {
    cls.TOPIC.rpartition(":")[0]
    for cls in (
        q.AccountOpened,
        q.CreditLimitSet,
        q.AccountClosed,
        q.PointsGranted,
        q.GrantVoided,
        q.GrantExpired,
        q.TokensDebited,
        q.DebitReversed,
    )
}
SUMMED = ("calls", *t.TOKENS, "amount")


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

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        shard = self._shard
        events = [_heard(logged) for logged in page if logged.topic.rpartition(":")[0] in HEARD]
        folded = fold(events, _closed(connection, shard, periods(events)))
        _write_accounts(connection, shard, folded)
        _write_grants(connection, folded)
        _write_endings(connection, folded)
        add = (*SUMMED, "charged")
        add_up(connection, t.usage, (_row(key, row, (*add, "trace")) for key, row in folded.usage.items()), add)
        wholesale = (_row(key, row, SUMMED) | {"shard": shard} for key, row in folded.wholesale.items())
        add_up(connection, t.wholesale, wholesale, SUMMED)
        # In the order of their keys, as below: whoever closes a period meanwhile cannot wait for us while we wait.
        on_time = (
            {"operator": o, "period": p, "shard": shard, "on_time": at, "closed": False}
            for (o, p), at in sorted(folded.on_time.items())
        )
        add_up(connection, t.periods, on_time, take=("on_time",))


def _heard(logged: LoggedEvent) -> Heard:
    operator, _, account = logged.stream.partition("/")
    return Heard(logged.position, operator, account, logged.event, logged.trace)


def _closed(connection: sa.Connection, shard: int, asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (operator, period) have bills of accounts of this shard."""
    found = connection.execute(
        sa.select(t.periods.c.operator, t.periods.c.period).where(
            t.periods.c.closed, t.periods.c.shard == shard, t.periods.c.period.in_({period for _, period in asked})
        )
    )
    return {(operator, period) for operator, period in found} & asked


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
        }
        for heard, event in folded.opened
    ]
    if rows:
        connection.execute(sa.insert(t.accounts), rows)
    for column, values in (("credit_limit", folded.limits), ("closed", folded.closed)):
        if values:
            connection.execute(
                sa.update(t.accounts)
                .where(t.accounts.c.operator == sa.bindparam("o"), t.accounts.c.account == sa.bindparam("a"))
                .values({column: sa.bindparam("value")}),
                [{"o": o, "a": a, "value": value} for (o, a), value in values.items()],
            )


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
    if rows:
        connection.execute(sa.insert(t.grants), rows)


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
    if rows:
        connection.execute(sa.insert(t.endings), rows)


def _row(key: Any, row: Sums, columns: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = key._asdict()
    for column in columns:
        values[column] = getattr(row, column)
    return values
