"""How far a month's close has come: who has a bill, who is to get one, and as of which cut-offs to go on.

It must not know how bills are issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from services.billing import reading
from services.billing import tables as t
from services.billing.earlier import void_count
from services.billing.usage import projection_name
from shared.contracts.billing import Statement


def close_status(
    connection: sa.Connection, period: str, logs: Sequence[str], operator: str | None = None
) -> dict[str, Any]:
    """By operator and shard. `logs`: quota's, by shard; `operator`: this one only."""
    followed = [reading.followed(connection, projection_name(log)) for log in logs]
    operators = [operator] if operator is not None else _operators(connection, period)
    statements = sa.select(sa.func.count(), sa.func.max(t.statements.c.position))
    count, last = connection.execute(statements.where(t.statements.c.period == period)).one()
    return {
        "period": period,
        "operators": [_close(connection, name, period, logs, followed) for name in operators],
        "statements": count,
        "statement_cut_offs": _statement_cut_offs(connection, last) if count else [],
    }


def _operators(connection: sa.Connection, period: str) -> list[str]:
    """Those with accounts that the period concerns, by name."""
    c = t.accounts.c
    asked = sa.select(c.operator).distinct().where(reading.concerned(period))
    return list(connection.execute(asked.order_by(c.operator)).scalars())


def _close(
    connection: sa.Connection, operator: str, period: str, logs: Sequence[str], followed: Sequence[int]
) -> dict[str, Any]:
    billed = _billed(connection, operator, period)
    return {
        "operator": operator,
        "bills": sum(row.bills for row in billed.values()),
        "void": void_count(connection, operator, period),
        "total_fen": int(sum(row.total_fen for row in billed.values())),
        "vat_fen": int(sum(row.vat_fen for row in billed.values())),
        "shards": [
            _shard(connection, operator, period, shard, log, followed[shard], billed.get(shard))
            for shard, log in enumerate(logs)
        ],
    }


def _shard(
    connection: sa.Connection, operator: str, period: str, shard: int, log: str, followed: int, billed: Any
) -> dict[str, Any]:
    cut_off = _cut_off(connection, operator, billed.serial) if billed else 0
    count = billed.bills if billed else 0
    remaining = reading.unbilled_count(connection, operator, period, shard, cut_off or followed)
    late = 0
    if 0 < cut_off < followed:
        late = reading.unbilled_count(connection, operator, period, shard, followed) - remaining
    return {
        "quota_log": log,
        "followed": followed,
        "cut_off": cut_off,
        "accounts": count + remaining,
        "billed": count,
        "remaining": remaining,
        "late": late,
    }


def _billed(connection: sa.Connection, operator: str, period: str) -> dict[int, Any]:
    """By shard, of the bills that stand: how many, their sums, and the last one's serial number."""
    c, a = t.bills.c, t.accounts.c
    rows = connection.execute(
        sa.select(
            a.shard,
            sa.func.count().label("bills"),
            sa.func.sum(c.total_fen).label("total_fen"),
            sa.func.sum(c.vat_fen).label("vat_fen"),
            sa.func.max(c.serial).label("serial"),
        )
        .join_from(t.bills, t.accounts, (a.operator == c.operator) & (a.account == c.account))
        .where(c.operator == operator, c.period == period, t.STANDS)
        .group_by(a.shard)
    )
    return {row.shard: row for row in rows}


def _cut_off(connection: sa.Connection, operator: str, serial: int) -> int:
    c = t.bills.c
    asked = sa.select(c.quota_position).where(c.operator == operator, c.serial == serial)
    return int(connection.execute(asked).scalar_one())


def _statement_cut_offs(connection: sa.Connection, position: int) -> list[int]:
    state = connection.execute(sa.select(t.statements.c.state).where(t.statements.c.position == position)).scalar_one()
    statement = msgspec.json.decode(state, type=Statement)
    return list(statement.quota_positions or (statement.quota_position,))
