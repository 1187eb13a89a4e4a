"""Late usage: which of it an account's next bill has to carry. Pure.

What happened in a billed period but reached quota's log after that bill's cut-off is carried by the
next bill that is issued, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Earlier(NamedTuple):
    """A bill that an account has: its period, its cut-off in a log, and where it stands in billing's log."""

    period: str
    cut_off: int
    position: int


def carried(bills: Sequence[Earlier], period: str) -> dict[str, int]:
    """For a bill of `period`: each earlier billed period, and the position up to which some bill carries it.

    Carriers of a period are its own bill, and every bill issued after that one for a later period. If the
    account has its bill for `period` already, the answer is as it was when that was issued.
    """
    own = next((bill for bill in bills if bill.period == period), None)
    before = [bill for bill in bills if own is None or bill.position < own.position]
    return {
        bill.period: max(
            [bill.cut_off] + [b.cut_off for b in before if b.period > bill.period and b.position > bill.position]
        )
        for bill in before
        if bill.period < period
    }
