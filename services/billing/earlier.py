"""What an account's bills so far leave for its next one: what they carry of earlier periods, and of its credits.

Bills that are void leave nothing; they only count, so that each bill of a period has a request key of its own. Every
question takes an open connection, as in `reading`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.late import Earlier, carried
from shared.eventstore.rows import of_each


class Left(NamedTuple):
    """For a bill of one period. `marks`: each earlier billed period, and the position of quota's log up to which it is
    carried; `own_marks`: the same in billing's own log; `void`: bills for the very period that are void; `credit_fen`:
    what is left of the credits; `own`: the `billing_position` of the bill that the account has for the period already.
    """

    marks: dict[str, int]
    own_marks: dict[str, int]
    void: int
    credit_fen: int
    own: int | None


class _Bill(NamedTuple):
    period: str
    quota_position: int
    position: int
    billing_position: int
    credit_fen: int


def left_by_bills(connection: sa.Connection, operator: str, period: str, accounts: Sequence[str]) -> dict[str, Left]:
    """By account. If an account has its bill for `period` already, the answer is as it was when that was made."""
    bills = _bills(connection, operator, accounts)
    credits = _credits(connection, operator, accounts)
    void = _void(connection, operator, period, accounts)
    return {account: _left(bills[account], credits[account], void.get(account, 0), period) for account in accounts}


def credit_left(connection: sa.Connection, operator: str, account: str) -> int:
    """What is left of an account's credits now, in fen."""
    used = sum(bill.credit_fen for bill in _bills(connection, operator, [account])[account])
    return sum(fen for _, fen in _credits(connection, operator, [account])[account]) - used


def void_count(connection: sa.Connection, operator: str, period: str) -> int:
    """How many of the operator's bills for a period are void."""
    c = t.bills.c
    asked = sa.select(sa.func.count()).where(c.operator == operator, c.period == period, t.IS_VOID)
    return int(connection.execute(asked.select_from(t.bills)).scalar_one())


def _left(bills: Sequence[_Bill], credits: Sequence[tuple[int, int]], void: int, period: str) -> Left:
    own = next((bill for bill in bills if bill.period == period), None)
    granted = sum(fen for position, fen in credits if own is None or position <= own.billing_position)
    used = sum(bill.credit_fen for bill in bills if own is None or bill.position < own.position)
    marks = carried([Earlier(bill.period, bill.quota_position, bill.position) for bill in bills], period)
    own_marks = carried([Earlier(bill.period, bill.billing_position, bill.position) for bill in bills], period)
    return Left(marks, own_marks, void, granted - used, own.billing_position if own else None)


def _bills(connection: sa.Connection, operator: str, accounts: Sequence[str]) -> dict[str, list[_Bill]]:
    c = t.bills.c
    columns = (c.period, c.quota_position, c.position, c.billing_position, c.credit_fen)
    found: dict[str, list[_Bill]] = defaultdict(list)
    asked = sa.select(c.account, *columns).where(c.operator == operator, t.STANDS)
    for account, *bill in connection.execute(of_each(connection, c.account, accounts, asked)):
        found[account].append(_Bill(*bill))
    return found


def _credits(connection: sa.Connection, operator: str, accounts: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    c = t.credits.c
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    asked = sa.select(c.account, c.position, c.fen).where(c.operator == operator)
    for account, position, fen in connection.execute(of_each(connection, c.account, accounts, asked)):
        found[account].append((position, fen))
    return found


def _void(connection: sa.Connection, operator: str, period: str, accounts: Sequence[str]) -> dict[str, int]:
    c = t.bills.c
    asked = (
        sa.select(c.account, sa.func.count())
        .where(c.operator == operator, c.period == period, t.IS_VOID)
        .group_by(c.account)
    )
    return {row.account: row[1] for row in connection.execute(of_each(connection, c.account, accounts, asked))}
