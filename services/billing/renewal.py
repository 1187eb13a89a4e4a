"""What billing does by itself: periods that are due, what quota is asked for them, and what follows from its answers.

Everything here may be done twice, or by several processes at once: decisions are fenced by the log, orders by their
names. It must not know how quota is reached: `send` is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.inward import Advance, CloseOff, DropPeriod, SettlePeriod
from services.billing.domain.metering import microseconds
from shared.clock import Clock
from shared.config import Settings
from shared.contracts.base import Command
from shared.errors import Conflict, TokengridError
from shared.eventstore.writer import Writer

log = logging.getLogger(__name__)

ACCOUNTS_AT_ONCE = 200  # of one transaction: it must not hold up commands for long
ORDERS_AT_ONCE = 500  # commands of one call to quota
# Quota will not do it, however often it is asked.
FINAL = {"AccountClosed", "IdempotencyConflict", "LimitExceeded", "MalformedCommand", "UnknownGrant"}

Send = Callable[[list[dict[str, Any]]], Sequence[dict[str, Any]]]  # commands of quota; one outcome each


class Done(NamedTuple):
    """How much was done: accounts looked at, periods settled, orders carried out."""

    advanced: int = 0
    settled: int = 0
    ordered: int = 0

    @property
    def anything(self) -> bool:
        return any(self)


class Renewal:
    """Finds what is due in the read model and has it done. `catch_up` folds billing's own log into it."""

    def __init__(
        self,
        engine: sa.Engine,
        writer: Writer[Command],
        settings: Settings,
        clock: Clock,
        catch_up: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._catch_up = catch_up
        self._passed = 0  # the position up to which orders have had their turn

    def work(self, send: Send) -> Done:
        """One round: a bounded number of each. Repeat while anything is done."""
        self._catch_up()
        advanced = self._advance()
        settled = self._settle()
        self._catch_up()
        return Done(advanced, settled, self._order(send))

    # --- periods that are due ----------------------------------------------------------------------
    def _advance(self) -> int:
        until = self._clock() + timedelta(seconds=self._settings.subscribe_ahead_s)
        c, a = t.subscriptions.c, t.accounts.c
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(c.operator, c.account, c.subscription, c.version, a.closed)
                .join_from(
                    t.subscriptions, t.accounts, (c.operator == a.operator) & (c.account == a.account), isouter=True
                )
                .where(c.due_us <= microseconds(until))
                .order_by(c.due_us, c.operator, c.account)
                .limit(ACCOUNTS_AT_ONCE)
            ).all()
        if not rows:
            return 0
        closed = {(r.operator, r.account): bool(r.closed) for r in rows}
        commands: list[Command] = [
            CloseOff(operator=o, account=n) if ended else Advance(operator=o, account=n, until=until)
            for (o, n), ended in closed.items()
        ]
        answers = dict(zip(closed, self._writer.execute(commands), strict=True))
        self._rest([(row, answers[row.operator, row.account]) for row in rows])
        for who, answer in answers.items():
            if isinstance(answer, TokengridError):
                log.warning("subscriptions of %s/%s do not advance: %s", *who, answer)
        return len(rows)

    def _rest(self, looked_at: Sequence[tuple[Any, Any]]) -> None:
        """Where nothing came of it, it is due when its next period begins, unless something has happened since."""
        c = t.subscriptions.c
        with self._engine.begin() as connection:
            for row, answer in looked_at:
                if isinstance(answer, TokengridError) or "next_us" not in answer:
                    continue
                connection.execute(
                    sa.update(t.subscriptions)
                    .where(
                        c.operator == row.operator,
                        c.account == row.account,
                        c.subscription == row.subscription,
                        c.version == row.version,
                    )
                    .values(due_us=answer["next_us"][row.subscription])
                )

    # --- what quota said of points that ended ----------------------------------------------------------
    def _settle(self) -> int:
        u, e = t.unsettled.c, t.endings.c
        same = (u.operator == e.operator) & (u.account == e.account) & (u.grant == e.grant)
        awaited = sa.case((u.kind == "cut", "voided"), else_="expired")
        by = (u.operator, u.account, u.subscription, u.number)
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(*by, sa.func.sum(e.amount).label("unused"))
                .join_from(t.unsettled, t.endings, same)
                .group_by(*by, u.kind)
                .having(sa.func.max(sa.case((e.kind == awaited, 1), else_=0)) == 1)
                .order_by(*by)
                .limit(ACCOUNTS_AT_ONCE)
            ).all()
        commands: list[Command] = [
            SettlePeriod(
                operator=r.operator,
                account=r.account,
                subscription=r.subscription,
                number=r.number,
                unused=int(r.unused),
            )
            for r in rows
        ]
        answers = self._writer.execute(commands) if commands else []
        for row, answer in zip(rows, answers, strict=True):
            if not isinstance(answer, TokengridError) and "next_us" in answer:
                self._forget(t.unsettled, row)  # of a period too old to be remembered
        return len(rows)

    # --- orders ----------------------------------------------------------------------------------------
    def _order(self, send: Send) -> int:
        o = t.orders.c
        with self._engine.connect() as connection:
            rows = _orders(connection, self._passed) or _orders(connection, 0)
            if not rows:
                return 0
            awaited = _grants_before(connection, rows)
        # Whether or not quota answers for these: a part of it that is down does not keep the others' orders waiting.
        self._passed = rows[-1].position if len(rows) == ORDERS_AT_ONCE else 0
        outcomes = send([msgspec.json.decode(row.command) for row in rows])
        done, refused = [], []
        for row, outcome in zip(rows, outcomes, strict=True):
            code = outcome.get("error", {}).get("code")
            # What is still to be granted is not known to quota, and is to be withdrawn all the same.
            final = code in FINAL and _grant_of(row) not in awaited
            if final:
                refused.append((row, code))
            if code is None or final:
                done.append(row)
            else:
                awaited.add(_grant_of(row))
                log.warning("quota does not carry out %s of %s/%s yet: %s", row.name, row.operator, row.account, code)
        self._drop([(row, code) for row, code in refused if not row.name.endswith("/rollover")])
        with self._engine.begin() as connection:
            for row in done:
                connection.execute(
                    sa.delete(t.orders).where(
                        o.operator == row.operator, o.account == row.account, o.name == row.name, o.kind == row.kind
                    )
                )
        return len(done)

    def _drop(self, refused: Sequence[tuple[Any, str]]) -> None:
        not_granted = {_grant_of(row) for row, _ in refused if row.kind == "grant"}
        commands: list[Command] = [
            DropPeriod(
                operator=row.operator,
                account=row.account,
                subscription=row.subscription,
                number=row.number,
                granted=row.kind == "void",
                reason=f"quota refuses: {code}",
            )
            for row, code in refused
            if row.kind == "grant" or _grant_of(row) not in not_granted
        ]
        for answer in self._writer.execute(commands) if commands else []:
            if isinstance(answer, Conflict):
                raise answer  # the orders are still there: the next round makes it good

    def _forget(self, table: sa.Table, row: Any) -> None:
        c = table.c
        with self._engine.begin() as connection:
            connection.execute(
                sa.delete(table).where(
                    c.operator == row.operator,
                    c.account == row.account,
                    c.subscription == row.subscription,
                    c.number == row.number,
                )
            )


def _orders(connection: sa.Connection, after: int) -> Sequence[Any]:
    """The next ones behind a position of billing's log; what is to be withdrawn always behind what is granted."""
    o = t.orders.c
    asked = sa.select(t.orders).where(o.position > after).order_by(o.position, o.kind).limit(ORDERS_AT_ONCE)
    return connection.execute(asked).all()


def _grants_before(connection: sa.Connection, rows: Sequence[Any]) -> set[tuple[str, str, str]]:
    """Grants still to be made that some of these orders are to withdraw, and that are not among them."""
    o, names = t.orders.c, [row.name for row in rows if row.kind == "void"]
    if not names:
        return set()
    asked = sa.select(t.orders).where(o.kind == "grant", o.position < rows[0].position, o.name.in_(names))
    return {_grant_of(row) for row in connection.execute(asked)}


def _grant_of(order: Any) -> tuple[str, str, str]:
    return order.operator, order.account, order.name
