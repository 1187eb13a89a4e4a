"""Quota's read model: accounts, grants and live reservations as tables, folded from its own log.

Truth is the log; these rows serve the sweep (what is due), lists and the auditor. Events say what
moved, so a page becomes sums per row: no event needs another row to be understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from time import sleep
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from services.quota import sections
from shared.contracts import quota as q
from shared.eventstore.log import LoggedEvent
from shared.eventstore.rows import delete, upsert

meta = sa.MetaData()


def _key() -> list[sa.Column[str]]:
    return [sa.Column("operator", sa.Text, primary_key=True), sa.Column("account", sa.Text, primary_key=True)]


accounts = sa.Table(
    "accounts",
    meta,
    *_key(),
    sa.Column("status", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("credit_limit", sa.BigInteger),
    sa.Column("overdrawn", sa.BigInteger),
)
AMOUNTS = ("granted", "reserved", "debited", "reversed", "expired", "voided")
grants = sa.Table(
    "grants",
    meta,
    *_key(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("ended", sa.Boolean),
    sa.Column("due_at", sa.DateTime(timezone=True)),
    *(sa.Column(name, sa.BigInteger) for name in AMOUNTS),
)
reservations = sa.Table(
    "reservations",
    meta,
    *_key(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
)

available = (
    grants.c.granted - grants.c.reserved - grants.c.debited + grants.c.reversed - grants.c.expired - grants.c.voided
)

Key = tuple[str, str]
FOLDED = 500  # events, before others get their turn
AS_IT_WAS: dict[str, Any] = {"status": "", "credit_limit": -1}  # no account's: the columns take no NULL
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)  # a voided grant is due at once


def _left(amounts: Mapping[str, Any]) -> Any:
    """What is not gone, held or not."""
    return amounts["granted"] - amounts["debited"] + amounts["reversed"] - amounts["expired"] - amounts["voided"]


class _Sums:
    """What one page changes, added up per row."""

    def __init__(self) -> None:
        self.grants: dict[Key, dict[str, Any]] = {}  # stream and name of the grant
        self.accounts: dict[str, dict[str, Any]] = {}
        self.live: dict[Key, datetime | None] = {}  # stream and reservation -> expiry, None once it has ended

    def account(self, stream: str) -> dict[str, Any]:
        found = self.accounts.get(stream)
        if found is None:
            found = self.accounts[stream] = {"overdrawn": 0}
        return found

    def move(self, stream: str, column: str, draws: Iterable[q.Draw], sign: int = 1) -> None:
        for draw in draws:
            self.add(stream, draw.grant, column, sign * draw.amount)

    def add(self, stream: str, grant: str, column: str, amount: int) -> None:
        row = self.grants.get((stream, grant))
        if row is None:
            row = self.grants[(stream, grant)] = dict.fromkeys(AMOUNTS, 0)
        row[column] += amount


class _Debited(msgspec.Struct, gc=False):
    """Of `TokensDebited` what moves something: nearly all events are such, and the rest of them is most of them."""

    draws: tuple[q.Draw, ...]
    overdrawn: int = 0
    freed: tuple[q.Draw, ...] = ()
    reservation: str = ""
    final: bool = True


_debited = msgspec.json.Decoder(_Debited).decode


class BalanceProjection:
    """Folds quota's own log into the tables above."""

    name = "balances"

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        sums = _Sums()
        # Commands do not wait for us. But in SQLite we hold the lock that they need.
        turns = connection.dialect.name == "postgresql"
        for number, logged in enumerate(page, start=1):
            if logged.topic == q.TokensDebited.TOPIC:
                _fold_debit(sums, logged)
            else:
                _fold(sums, logged.stream, logged)
            if turns and number % FOLDED == 0:
                sleep(0)
        _write_accounts(connection, sums)
        _write_grants(connection, sums)
        _write_reservations(connection, sums)
        sections.complete(connection, page)


def _fold_debit(sums: _Sums, logged: LoggedEvent) -> None:
    stream, event = logged.stream, _debited(logged.state)
    account = sums.account(stream)
    account["version"] = logged.version
    account["overdrawn"] += event.overdrawn
    sums.move(stream, "debited", event.draws)
    if event.reservation:
        sums.move(stream, "reserved", event.freed, -1)
        if event.final:
            sums.live[(stream, event.reservation)] = None


def _fold(sums: _Sums, stream: str, logged: LoggedEvent) -> None:
    event = logged.event
    account = sums.account(stream)
    account["version"] = logged.version
    match event:
        case q.PointsReserved():
            sums.move(stream, "reserved", event.draws)
            sums.live[(stream, event.request_id)] = event.expires_at
        case q.ReservationExtended():
            sums.move(stream, "reserved", event.draws)
            sums.live[(stream, event.reservation)] = event.expires_at
        case q.ReservationReleased() | q.ReservationExpired():
            sums.move(stream, "reserved", event.draws, -1)
            sums.live[(stream, event.reservation)] = None
        case q.PointsGranted():
            sums.add(stream, event.request_id, "granted", event.amount)
            sums.grants[(stream, event.request_id)]["expires_at"] = event.expires_at
        case q.DebitReversed():
            back = [d for d in event.draws if d.grant not in event.regranted]
            sums.move(stream, "reversed", back)
            account["overdrawn"] -= event.overdrawn
        case q.GrantExpired():
            sums.add(stream, event.grant, "expired", event.amount)
        case q.GrantVoided():
            sums.add(stream, event.grant, "voided", event.amount)
            sums.grants[(stream, event.grant)]["ended"] = True
        case q.AccountOpened():
            account.update(status="open", credit_limit=event.credit_limit)
        case q.CreditLimitSet():
            account["credit_limit"] = event.credit_limit
        case q.AccountSuspended():
            account["status"] = "suspended"
        case q.AccountResumed():
            account["status"] = "open"
        case q.AccountClosed():
            account["status"] = "closed"
        case _:
            raise TypeError(f"not an event of an account: {logged.topic}")


def _write_accounts(connection: sa.Connection, sums: _Sums) -> None:
    """One statement for the new and the old: in a row that is there already, `AS_IT_WAS` leaves a column as it was."""

    def changes(excluded: Any) -> dict[str, Any]:
        kept = {
            name: sa.case((excluded[name] == as_it_was, accounts.c[name]), else_=excluded[name])
            for name, as_it_was in AS_IT_WAS.items()
        }
        return {**kept, "overdrawn": accounts.c.overdrawn + excluded.overdrawn, "version": excluded.version}

    rows = [
        {**_names(stream), **AS_IT_WAS, **change} for stream, change in sorted(sums.accounts.items(), key=itemgetter(0))
    ]
    upsert(connection, accounts, rows, changes)


def _write_grants(connection: sa.Connection, sums: _Sums) -> None:
    def changes(excluded: Any) -> dict[str, Any]:
        added = {name: grants.c[name] + excluded[name] for name in AMOUNTS}
        ended = grants.c.ended | excluded.ended
        expires_at = sa.func.coalesce(grants.c.expires_at, excluded.expires_at)
        # Empty once it is used up: the index holds only grants that matter, however many there ever were.
        due_at = sa.case((_left(added) <= 0, sa.null()), (ended, LONG_AGO), else_=expires_at)
        return {**added, "ended": ended, "expires_at": expires_at, "due_at": due_at}

    rows = []
    for (stream, name), change in sorted(sums.grants.items(), key=itemgetter(0)):
        ends_at = LONG_AGO if change.get("ended") else change.get("expires_at")
        due_at = ends_at if _left(change) > 0 else None
        rows.append({**_names(stream), "name": name, "expires_at": None, "ended": False, "due_at": due_at, **change})
    upsert(connection, grants, rows, changes)


def _write_reservations(connection: sa.Connection, sums: _Sums) -> None:
    ended, live = [], []
    for (stream, name), expires_at in sums.live.items():
        row = {**_names(stream), "name": name}
        if expires_at is None:
            ended.append(row)
        else:
            live.append({**row, "expires_at": expires_at})
    delete(connection, reservations, ended)
    upsert(connection, reservations, live, lambda excluded: {"expires_at": excluded.expires_at})


def _names(stream: str) -> dict[str, str]:
    operator, _, account = stream.partition("/")
    return {"operator": operator, "account": account}


# --- questions -----------------------------------------------------------------------------------
class Due(NamedTuple):
    """Something whose time is over."""

    operator: str
    account: str
    name: str
    expires_at: datetime


def due_reservations(connection: sa.Connection, until: datetime, operator: str | None, limit: int) -> list[Due]:
    """Live reservations whose time to live is over at `until`, by expiry."""
    return _due(connection, reservations.c.expires_at, sa.true(), until, operator, limit)


def due_grants(connection: sa.Connection, until: datetime, operator: str | None, limit: int) -> list[Due]:
    """Grants that have ended with something left that is not held, by expiry. What came back to a voided one
    is due at `until`."""
    return [
        due._replace(expires_at=until) if due.expires_at == LONG_AGO else due
        for due in _due(connection, grants.c.due_at, available > 0, until, operator, limit)
    ]


def _due(
    connection: sa.Connection,
    due: sa.Column[Any],
    condition: Any,
    until: datetime,
    operator: str | None,
    limit: int,
) -> list[Due]:
    table = due.table
    statement = (
        sa.select(table.c.operator, table.c.account, table.c.name, due)
        .where(due <= until.astimezone(UTC), condition)
        .order_by(due, table.c.operator, table.c.account, table.c.name)
        .limit(limit)
    )
    if operator is not None:
        statement = statement.where(table.c.operator == operator)
    # SQLite forgets the zone it was given; everything stored is UTC.
    return [Due(o, a, n, at if at.tzinfo else at.replace(tzinfo=UTC)) for o, a, n, at in connection.execute(statement)]


def balances(connection: sa.Connection, after: str, limit: int) -> list[dict[str, Any]]:
    """Accounts in order of `operator/account`, each with its grants' books (the credit limit's under `credit`)."""
    key = sa.tuple_(accounts.c.operator, accounts.c.account)
    found = connection.execute(
        sa.select(accounts).where(key > _tuple(after)).order_by(accounts.c.operator, accounts.c.account).limit(limit)
    ).all()
    books: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    if found:
        grant_key = sa.tuple_(grants.c.operator, grants.c.account)
        first, last = found[0], found[-1]
        rows = connection.execute(
            sa.select(grants)
            .where(
                grant_key >= sa.tuple_(sa.literal(first.operator), sa.literal(first.account)),
                grant_key <= sa.tuple_(sa.literal(last.operator), sa.literal(last.account)),
            )
            .order_by(grants.c.name)
        )
        for row in rows:
            book = {column: int(getattr(row, column)) for column in AMOUNTS}
            books.setdefault((row.operator, row.account), {})[row.name] = book
    return [
        {
            "operator": row.operator,
            "account": row.account,
            "status": row.status,
            "version": row.version,
            "credit_limit": row.credit_limit,
            "overdrawn": row.overdrawn,
            "grants": books.get((row.operator, row.account), {}),
        }
        for row in found
    ]


def _tuple(stream: str) -> Any:
    operator, _, account = stream.partition("/")
    return sa.tuple_(sa.literal(operator), sa.literal(account))
