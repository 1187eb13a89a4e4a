"""What billing asks its read model: the inputs of bills and statements as of a cut-off, and lists.

Every question takes an open connection; those of one bill run must share one snapshot. It must not
know of commands.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.charged import charges, running
from services.billing.domain.charges import Charge, Running
from services.billing.domain.metering import microseconds
from services.billing.domain.rating import Account, Granted, Used
from services.billing.domain.settlement import Served
from services.billing.earlier import Left, left_by_bills
from services.billing.readmodel import BOOKS
from shared.clock import period_bounds
from shared.contracts.billing import TokenSums
from shared.eventstore.rows import of_each
from shared.eventstore.schema import POSITIONS

# As texts: PostgreSQL sums bigints as decimals, which the driver reads in ten times as long.
_SUMS = tuple(
    sa.cast(sa.func.sum(t.usage.c[name]), sa.Text).label(name) for name in ("calls", *t.TOKENS, "amount", "charged")
)


class Inputs:
    """All that a bill is made of.

    `billing_position`: of our own log, as of which it is; if the account has its bill already, as of that one's.
    `credit_fen`: what is left of the account's credits; `void`: its bills for the period that are void; `traces`: one
    traceparent per (line kind, model, rate card) that has any.
    """

    def __init__(self, account: Account, billing_position: int, left: Left) -> None:
        self.account = account
        self.billing_position = billing_position if left.own is None else left.own
        self.credit_fen = left.credit_fen
        self.void = left.void
        self.grants: list[Granted] = []
        self.usage: list[Used] = []
        self.late: list[Used] = []
        self.charges: list[Charge] = []
        self.running: list[Running] = []
        self.traces: dict[tuple[str, str, str], str] = {}


@contextlib.contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction whose questions all see the same state, while followers go on writing."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def followed(connection: sa.Connection, projection: str) -> int:
    """How far a projection has come, as of this snapshot."""
    positions = sa.table(POSITIONS, sa.column("projection", sa.Text), sa.column("position", sa.BigInteger))
    asked = sa.select(positions.c.position).where(positions.c.projection == projection)
    return int(connection.execute(asked).scalar() or 0)


def on_time_until(connection: sa.Connection, period: str, shard: int, operator: str | None = None) -> int:
    """The position of a shard's log from which on a cut-off is possible: before it, sums cannot be taken apart any
    more."""
    asked = sa.select(sa.func.max(t.periods.c.on_time)).where(t.periods.c.period == period, t.periods.c.shard == shard)
    if operator is not None:
        asked = asked.where(t.periods.c.operator == operator)
    return int(connection.execute(asked).scalar() or 0)


# --- bills -----------------------------------------------------------------------------------
def _unbilled(operator: str, period: str, shard: int, quota_position: int) -> tuple[sa.ColumnElement[bool], ...]:
    b = t.bills.c
    of_account = (b.operator == t.accounts.c.operator, b.account == t.accounts.c.account, b.period == period)
    # A look-up per account, by index. As an anti-join it would be planned by statistics, which a month's close
    # outdates as it goes.
    billed = sa.select(b.number).where(*of_account, t.STANDS).limit(1).scalar_subquery()
    return (
        t.accounts.c.operator == operator,
        t.accounts.c.shard == shard,
        t.accounts.c.position <= quota_position,
        concerned(period, quota_position),
        billed.is_(None),
    )


def concerned(period: str, quota_position: int | None = None) -> sa.ColumnElement[bool]:
    """Whether a period concerns an account: opened by its end, or with something of it by the cut-off all the same, as
    what was dated back before the opening."""
    a, g, u = t.accounts.c, t.grants.c, t.usage.c
    granted = sa.select(g.position).where(g.operator == a.operator, g.account == a.account, g.period == period)
    used = sa.select(u.segment).where(u.operator == a.operator, u.account == a.account, u.period == period)
    if quota_position is not None:
        granted, used = granted.where(g.position <= quota_position), used.where(u.segment <= quota_position)
    # Look-ups by index, as above, and only of accounts that are younger than the period.
    dated_back = (of.limit(1).scalar_subquery().is_not(None) for of in (granted, used))
    return sa.or_(a.opened_us < microseconds(period_bounds(period)[1]), *dated_back)


def unbilled_count(connection: sa.Connection, operator: str, period: str, shard: int, quota_position: int) -> int:
    """How many accounts of a shard still have no bill for the period."""
    asked = sa.select(sa.func.count()).select_from(t.accounts)
    asked = asked.where(*_unbilled(operator, period, shard, quota_position))
    return int(connection.execute(asked).scalar_one())


def unbilled(
    connection: sa.Connection, operator: str, period: str, shard: int, quota_position: int, after: str, limit: int
) -> list[Account]:
    """The first accounts of a shard behind `after`, in order of their names, that have no bill for the period."""
    rows = connection.execute(
        _account_columns()
        .where(t.accounts.c.account > after, *_unbilled(operator, period, shard, quota_position))
        .order_by(t.accounts.c.account)
        .limit(limit)
    )
    return [_account(row) for row in rows]


def account(connection: sa.Connection, operator: str, name: str) -> Account | None:
    row = connection.execute(
        _account_columns().where(t.accounts.c.operator == operator, t.accounts.c.account == name)
    ).one_or_none()
    return _account(row) if row else None


def accounts(connection: sa.Connection, operator: str, names: Sequence[str]) -> list[Account]:
    """Those of these accounts that are known, in the order of their names."""
    c = t.accounts.c
    asked = of_each(connection, c.account, names, _account_columns().where(c.operator == operator))
    return sorted(map(_account, connection.execute(asked)), key=lambda found: found.account)


def has_accounts(connection: sa.Connection, operator: str) -> bool:
    found = connection.execute(sa.select(t.accounts.c.account).where(t.accounts.c.operator == operator).limit(1))
    return found.first() is not None


def _account_columns() -> sa.Select[tuple[str, str, str, str, int, int]]:
    c = t.accounts.c
    return sa.select(c.operator, c.account, c.opened_at, c.plan, c.closed, c.closed_us)


def _account(row: Any) -> Account:
    operator, account, opened_at, *rest = row
    return Account(operator, account, datetime.fromisoformat(opened_at), *rest)


def inputs(
    connection: sa.Connection, operator: str, period: str, quota_position: int, accounts: Sequence[Account]
) -> list[Inputs]:
    """What the bills of these accounts are made of, as of the cut-off; in the order of `accounts`."""
    if not accounts:
        return []
    names = [account.account for account in accounts]
    left = left_by_bills(connection, operator, period, names)
    billing_position = followed(connection, BOOKS)
    found = {name: Inputs(account, billing_position, left[name]) for name, account in zip(names, accounts, strict=True)}
    marks = {name: its.marks for name, its in left.items() if its.marks}
    _read_charges(connection, operator, period, found, {name: its.own_marks for name, its in left.items()})
    _read_grants(connection, operator, period, quota_position, found, marks)
    _read_usage(connection, operator, period, quota_position, found)
    if marks:
        _read_late(connection, operator, quota_position, found, marks)
    return list(found.values())


Marks = dict[str, dict[str, int]]  # account -> earlier period -> position up to which it was carried


def _read_charges(
    connection: sa.Connection, operator: str, period: str, found: dict[str, Inputs], marks: Marks
) -> None:
    """As of the position that each bill knows of our own log: of those that are made now, the same."""
    for position in {into.billing_position for into in found.values()}:
        names = [name for name, into in found.items() if into.billing_position == position]
        charged = charges(connection, operator, period, position, names, marks)
        plans = running(connection, operator, period, position, names)
        for name in names:
            found[name].charges = charged.get(name, [])
            found[name].running = plans.get(name, [])


def _read_grants(
    connection: sa.Connection, operator: str, period: str, quota_position: int, found: dict[str, Inputs], marks: Marks
) -> None:
    c = t.grants.c
    columns = (c.at_us, c.position, c.source, c.amount, c.price_fen, c.plan, c.plan_version)
    asked = sa.select(c.account, c.period, *columns).where(
        c.operator == operator,
        c.period <= period,
        c.position <= quota_position,
        c.subscription == "",  # what subscriptions order is charged by their periods
    )
    for name, of, *grant in connection.execute(of_each(connection, c.account, list(found), asked)):
        granted = Granted(*grant)
        mark = marks.get(name, {}).get(of)
        if of == period or (mark is not None and granted.position > mark):
            found[name].grants.append(granted)


def _read_usage(
    connection: sa.Connection, operator: str, period: str, quota_position: int, found: dict[str, Inputs]
) -> None:
    c = t.usage.c
    key = (c.account, c.model, c.rate_card)
    asked = (
        sa.select(*key, sa.func.max(c.trace), *_SUMS)
        .where(c.operator == operator, c.period == period, c.segment <= quota_position)
        .group_by(*key)
    )
    rows = connection.execute(of_each(connection, c.account, list(found), asked))
    for name, model, rate_card, trace, *sums in rows.all():
        calls, fresh, cached_input, cache_write, output, amount, charged = map(int, sums)
        tokens = TokenSums(input=fresh, cached_input=cached_input, cache_write=cache_write, output=output)
        into = found[name]
        into.usage.append(Used(model, rate_card, calls, tokens, amount, charged))
        if trace:
            into.traces["usage", model, rate_card] = trace


def _read_late(
    connection: sa.Connection, operator: str, quota_position: int, found: dict[str, Inputs], marks: Marks
) -> None:
    c = t.usage.c
    least = min(position for mark in marks.values() for position in mark.values())
    sums: dict[tuple[str, str, str], dict[str, int]] = {}
    asked = sa.select(t.usage).where(
        # Written so that the index of late rows is what both databases search by; the primary key would lead SQLite
        # through all of an account's past. The periods are chosen below for the same reason.
        c.operator.concat("") == operator,
        sa.literal_column("usage.segment > 0"),
        c.segment > least,
        c.segment <= quota_position,
    )
    for row in connection.execute(of_each(connection, c.account, list(marks), asked)):
        mark = marks[row.account].get(row.period)
        if mark is None or row.segment <= mark:
            continue
        into = sums.setdefault((row.account, row.model, row.rate_card), defaultdict(int))
        for name in ("calls", *t.TOKENS, "amount", "charged"):
            into[name] += row._mapping[name]
        if row.trace:
            found[row.account].traces["late_usage", row.model, row.rate_card] = row.trace
    for (name, model, rate_card), summed in sums.items():
        used = Used(model, rate_card, summed["calls"], _tokens(summed), summed["amount"], summed["charged"])
        found[name].late.append(used)


def _tokens(row: Any) -> TokenSums:
    return TokenSums(**{name: int(row[name]) for name in t.TOKENS})


def daily_usage(
    connection: sa.Connection, operator: str, account: str, period: str, quota_position: int
) -> list[dict[str, Any]]:
    """Usage by day and model, as of the cut-off: `day`, `model`, `calls`, `usage`, `amount`, `charged`."""
    c = t.usage.c
    rows = connection.execute(
        sa.select(c.day, c.model, *_SUMS)
        .where(c.operator == operator, c.account == account, c.period == period, c.segment <= quota_position)
        .group_by(c.day, c.model)
        .order_by(c.day, c.model)
    )
    return [
        {
            "day": row.day,
            "model": row.model,
            "calls": int(row.calls),
            "usage": {name: int(row._mapping[name]) for name in t.TOKENS},
            "amount": int(row.amount),
            "charged": int(row.charged),
        }
        for row in rows
    ]


def last_serial(connection: sa.Connection, table: sa.Table, operator: str) -> int:
    """The last number given out to a bill or credit note of an operator."""
    asked = sa.select(sa.func.max(table.c.serial)).where(table.c.operator == operator)
    return int(connection.execute(asked).scalar() or 0)


# --- settlement ------------------------------------------------------------------------------
def _cut_off(cut_offs: Sequence[int]) -> sa.ColumnElement[bool]:
    """What lies within the cut-offs of the shards' logs, one for each shard."""
    c = t.wholesale.c
    return sa.or_(*(sa.and_(c.shard == shard, c.segment <= cut_off) for shard, cut_off in enumerate(cut_offs)))


def unsettled_pairs(connection: sa.Connection, period: str, cut_offs: Sequence[int]) -> list[tuple[str, str]]:
    """(home, serving) with calls in the period and no statement yet, in order."""
    c, s = t.wholesale.c, t.statements.c
    stated = sa.exists().where(s.period == c.period, s.home == c.home, s.serving == c.serving)
    rows = connection.execute(
        sa.select(c.home, c.serving)
        .distinct()
        .where(c.period == period, _cut_off(cut_offs), ~stated)
        .order_by(c.home, c.serving)
    )
    return [(home, serving) for home, serving in rows]


def served(connection: sa.Connection, home: str, serving: str, period: str, cut_offs: Sequence[int]) -> list[Served]:
    """What one operator served for another, by model and day."""
    c = t.wholesale.c
    sums = tuple(sa.func.sum(c[name]).label(name) for name in ("calls", *t.TOKENS, "amount"))
    rows = connection.execute(
        sa.select(c.model, c.day, *sums)
        .where(c.period == period, c.home == home, c.serving == serving, _cut_off(cut_offs))
        .group_by(c.model, c.day)
    )
    return [Served(row.model, row.day, int(row.calls), _tokens(row._mapping), int(row.amount)) for row in rows]
