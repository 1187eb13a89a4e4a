"""Two projections: quota's log becomes usage, billing's own log becomes the list of bills and statements.

A page is folded in memory and written once per row. What the sums mean is in `domain/metering.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.canonical import canonical_json
from services.billing.domain.metering import Heard, Metering, Sums, fold, microseconds, periods
from shared.clock import period_of
from shared.contracts import billing as b
from shared.contracts import quota as q
from shared.eventstore.log import LoggedEvent
from shared.eventstore.rows import upsert
from shared.sharding import shard_named

# By name, not by version: a version that nobody here can decode must stop the follower, not be skipped.
HEARD = {
    cls.TOPIC.rpartition(":")[0]
    for cls in (q.AccountOpened, q.CreditLimitSet, q.PointsGranted, q.TokensDebited, q.DebitReversed)
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
        add = (*SUMMED, "charged")
        _upsert(connection, t.usage, (_row(key, row, (*add, "trace")) for key, row in folded.usage.items()), add)
        wholesale = (_row(key, row, SUMMED) | {"shard": shard} for key, row in folded.wholesale.items())
        _upsert(connection, t.wholesale, wholesale, SUMMED)
        # In the order of their keys, as below: whoever closes a period meanwhile cannot wait for us while we wait.
        on_time = (
            {"operator": o, "period": p, "shard": shard, "on_time": at, "closed": False}
            for (o, p), at in sorted(folded.on_time.items())
        )
        _upsert(connection, t.periods, on_time, take=("on_time",))


class BooksProjection:
    """Folds billing's own log into bills, credit notes and statements."""

    name = "books"

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        issued: list[dict[str, Any]] = []
        closed: set[tuple[str, str, int]] = set()
        changes: list[tuple[str, int, dict[str, int]]] = []
        for logged in page:
            event = logged.event
            if isinstance(event, b.BillIssued):
                issued.append(_bill(logged, event))
                closed.add((event.bill.operator, event.bill.period, shard_named(event.bill.quota_log)))
            elif isinstance(event, b.BillPaid):
                changes.append((event.number, logged.version, {"paid_fen": event.fen}))
            elif isinstance(event, b.CreditNoteIssued):
                changes.append((event.bill_number, logged.version, {"credited_fen": event.fen}))
                connection.execute(sa.insert(t.credit_notes).values(_note(event)))
            elif isinstance(event, b.StatementIssued):
                connection.execute(sa.insert(t.statements).values(_statement(logged, event)))
        if issued:
            connection.execute(sa.insert(t.bills), issued)
            rows = (
                {"operator": o, "period": p, "shard": shard, "on_time": 0, "closed": True}
                for o, p, shard in sorted(closed)
            )
            _upsert(connection, t.periods, rows, take=("closed",))
        for number, version, added in changes:
            _change_bill(connection, number, version, added)


# --- quota's side ----------------------------------------------------------------------------
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
            "credit_limit": event.credit_limit,
        }
        for heard, event in folded.opened
    ]
    if rows:
        connection.execute(sa.insert(t.accounts), rows)
    if folded.limits:
        connection.execute(
            sa.update(t.accounts)
            .where(t.accounts.c.operator == sa.bindparam("o"), t.accounts.c.account == sa.bindparam("a"))
            .values(credit_limit=sa.bindparam("limit")),
            [{"o": o, "a": a, "limit": limit} for (o, a), limit in folded.limits.items()],
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
            "amount": event.amount,
            "price_fen": event.price_fen,
            "plan": event.plan,
            "plan_version": event.plan_version,
        }
        for heard, event in folded.granted
    ]
    if rows:
        connection.execute(sa.insert(t.grants), rows)


def _row(key: Any, row: Sums, columns: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = key._asdict()
    for column in columns:
        values[column] = getattr(row, column)
    return values


def _upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Iterable[Mapping[str, Any]],
    add: Sequence[str] = (),
    take: Sequence[str] = (),
) -> None:
    """Insert rows, or add and take over columns where the key is there. A trace stays if no newer one came."""

    def changes(excluded: Any) -> dict[str, Any]:
        changed = {name: table.c[name] + excluded[name] for name in add}
        changed |= {name: excluded[name] for name in take}
        if "trace" in table.c:
            changed["trace"] = sa.func.coalesce(excluded.trace, table.c.trace)
        return changed

    upsert(connection, table, list(rows), changes)


# --- billing's own side ----------------------------------------------------------------------
def _bill(logged: LoggedEvent, event: b.BillIssued) -> dict[str, Any]:
    bill = event.bill
    return {
        "number": bill.number,
        "operator": bill.operator,
        "account": bill.account,
        "period": bill.period,
        "serial": int(bill.number.rpartition("-")[2]),
        "position": logged.position,
        "version": logged.version,
        "issued_at": event.at.isoformat(),
        "total_fen": bill.total_fen,
        "vat_fen": bill.vat_fen,
        "paid_fen": 0,
        "credited_fen": 0,
        "quota_position": bill.quota_position,
        "sha256": event.bill_sha256,
    }


def _change_bill(connection: sa.Connection, number: str, version: int, added: dict[str, int]) -> None:
    connection.execute(
        sa.update(t.bills)
        .where(t.bills.c.number == number)
        .values(version=version, **{name: t.bills.c[name] + value for name, value in added.items()})
    )


def _note(event: b.CreditNoteIssued) -> dict[str, Any]:
    return {
        "number": event.number,
        "operator": operator_of(event.bill_number),
        "serial": int(event.number.rpartition("-C")[2]),
        "bill_number": event.bill_number,
        "fen": event.fen,
    }


def operator_of(number: str) -> str:
    """The operator in a bill's number, `operator-YYYY-MM-NNNNNN`; operators' names may hold dashes themselves."""
    return number.rsplit("-", 3)[0]


def _statement(logged: LoggedEvent, event: b.StatementIssued) -> dict[str, Any]:
    made = event.statement
    return {
        "period": made.period,
        "home": made.home,
        "serving": made.serving,
        "position": logged.position,
        "net_fen": made.net_fen,
        "sha256": event.statement_sha256,
        "state": canonical_json(made).decode(),
    }
