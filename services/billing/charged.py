"""What billing asks its read model of subscriptions: what they charge an account in a period, and which terms they set.

It must not know of commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.charges import Charge, Running
from services.billing.domain.metering import microseconds
from services.billing.subscribed import PERIOD_KINDS
from shared.clock import period_bounds
from shared.eventstore.rows import of_each

_COLUMNS = tuple(t.charges.c[name] for name in Charge._fields)


def charges(
    connection: sa.Connection,
    operator: str,
    period: str,
    billing_position: int,
    accounts: Sequence[str],
    marks: Mapping[str, Mapping[str, int]],
) -> dict[str, list[Charge]]:
    """By account, what is charged in the period, and what came for an earlier one after its bill.

    `marks`: of an account, each earlier billed period and the position of billing's log up to which a bill has it.
    """
    c = t.charges.c
    found: dict[str, list[Charge]] = {}
    asked = sa.select(c.account, c.period, *_COLUMNS).where(
        c.operator == operator, c.period <= period, c.position <= billing_position
    )
    for account, of, *values in connection.execute(of_each(connection, c.account, accounts, asked)):
        charge = Charge(*values)
        mark = marks.get(account, {}).get(of)
        if of == period or (mark is not None and charge.position > mark):
            found.setdefault(account, []).append(charge)
    return found


def running(
    connection: sa.Connection, operator: str, period: str, billing_position: int, accounts: Sequence[str]
) -> dict[str, list[Running]]:
    """By account, the plans whose periods run when the bill's period starts, in the order in which they were taken."""
    c, s = t.charges.c, t.subscriptions.c
    start = microseconds(period_bounds(period)[0])
    cut = (c.cut_position > 0) & (c.cut_position <= billing_position) & (c.cut_us <= start)
    taken = (s.operator == c.operator) & (s.account == c.account) & (s.subscription == c.subscription)
    found: dict[str, list[Running]] = {}
    asked = (
        sa.select(c.account, c.plan, c.plan_version, s.taken)
        .join_from(t.charges, t.subscriptions, taken)
        .where(
            c.operator == operator,
            c.kind.in_(PERIOD_KINDS),
            c.starts_us <= start,
            c.ends_us > start,
            c.position <= billing_position,
            ~cut,
        )
    )
    rows = connection.execute(of_each(connection, c.account, accounts, asked))
    for account, plan, version, _taken in sorted(rows, key=attrgetter("taken")):
        found.setdefault(account, []).append(Running(plan, version))
    return found
