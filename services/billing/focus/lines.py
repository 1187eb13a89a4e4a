"""How each kind of bill line is shown in FOCUS: the mapping, kind by kind.

A kind that is not here has no row until somebody decides what it is. It must not know columns of amounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from shared.contracts.billing import BillLine


class Part(Enum):
    """What a line's money does to the effective cost of the others."""

    PREPAID = "buys points: its cost is borne by what is used of them, the rest by what is not"
    RETURNED = "gives back what was not used of points bought: less for what is not used"
    USAGE = "usage: paid with points, or to pay"
    REDUCTION = "takes something off usage to pay: borne by that"
    OWN = "concerns no other line: stays where it is"


class Shown(NamedTuple):
    """A kind's ChargeCategory, ChargeFrequency and part; whether at list price it would be there too; and whether it
    corrects a period that was invoiced before."""

    category: str
    frequency: str
    part: Part
    listed: bool = True
    correction: bool = False


KINDS: dict[str, Shown] = {
    "plan_fee": Shown("Purchase", "Recurring", Part.PREPAID),
    "discount": Shown("Purchase", "Recurring", Part.PREPAID, listed=False),
    "plan_credit": Shown("Purchase", "One-Time", Part.RETURNED),
    "bundle": Shown("Purchase", "Recurring", Part.PREPAID),
    "purchase": Shown("Purchase", "One-Time", Part.PREPAID),
    "trial": Shown("Purchase", "One-Time", Part.PREPAID),
    "usage": Shown("Usage", "Usage-Based", Part.USAGE),
    "late_usage": Shown("Usage", "Usage-Based", Part.USAGE, correction=True),
    "cap": Shown("Credit", "Usage-Based", Part.REDUCTION, listed=False),
    "commitment": Shown("Adjustment", "Recurring", Part.OWN),
    "credit": Shown("Credit", "One-Time", Part.OWN),
}
USAGE_DISCOUNT = Shown("Credit", "Usage-Based", Part.REDUCTION, listed=False)


def shown(lines: Sequence[BillLine]) -> list[Shown]:
    """How each line of a bill is shown. A discount directly behind its plan's fee is off the fee, any other off usage.

    Raises ValueError for a kind that has no mapping.
    """
    found = []
    for place, line in enumerate(lines):
        kind = KINDS.get(line.kind)
        if kind is None:
            raise ValueError(f"no FOCUS row is defined for a bill line of kind {line.kind!r}")
        if line.kind == "discount" and not (place and _fee_of(lines[place - 1], line)):
            kind = USAGE_DISCOUNT
        found.append(kind)
    return found


def _fee_of(before: BillLine, discount: BillLine) -> bool:
    return before.kind == "plan_fee" and (before.plan, before.plan_version) == (discount.plan, discount.plan_version)
