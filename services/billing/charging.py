"""The next charge file of a period: which bills are to be charged, and which that may have been are void now.

The form of the file is not its business.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.chargefile import Charge, charge_file
from services.billing.cutoff import malformed
from services.billing.questions import ChargeFile


def next_charge_file(connection: sa.Connection, query: ChargeFile, limit: int) -> dict[str, Any]:
    """The answer to a query, all of one state of the books. Raises MalformedCommand where `after` is no bill's number.

    Bills follow each other by their serial numbers: as texts, the millionth would come before its forerunner.
    """
    c = t.bills.c
    after = _serial(query.after)
    of_period = (c.operator == query.operator, c.period == query.period)
    charges = _bills(connection, limit, *of_period, t.STANDS, c.serial > after, by=c.serial)
    told = (c.serial <= after, c.void_position > query.voids_after)
    voids = _bills(connection, limit, *of_period, t.IS_VOID, *told, by=c.void_position)
    charged, taken_back = [_charge(row) for row in charges[:limit]], [_charge(row) for row in voids[:limit]]
    return {
        "csv": charge_file(query.operator, query.period, charged, query.after, taken_back, query.voids_after),
        "count": len(charged),
        "sum_fen": sum(charge.fen for charge in charged),
        "last": charged[-1].number if charged else query.after,
        "more": len(charges) > limit,
        "voids": len(taken_back),
        "voids_sum_fen": sum(charge.fen for charge in taken_back),
        "voids_last": voids[: len(taken_back)][-1].void_position if taken_back else query.voids_after,
        "voids_more": len(voids) > limit,
    }


def _serial(number: str) -> int:
    if not number:
        return 0
    serial = number.rpartition("-")[2]
    if not (serial.isascii() and serial.isdigit()) or len(serial) > 15:
        raise malformed("after", "must be the number of a bill")
    return int(serial)


def _bills(
    connection: sa.Connection, limit: int, *wanted: sa.ColumnElement[bool], by: sa.ColumnElement[int]
) -> list[Any]:
    """One more than `limit`, if there are."""
    return list(connection.execute(sa.select(t.bills).where(*wanted).order_by(by).limit(limit + 1)))


def _charge(row: Any) -> Charge:
    return Charge(row.number, row.account, row.total_fen, row.vat_fen, row.issued_at, row.sha256)
