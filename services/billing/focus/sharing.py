"""EffectiveCost: who bears the cost of points that were bought, and the benefit of what was taken off usage.

A bill is closed in itself: what all its rows cost together is its total. Pure; it must not know columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.billing.focus.lines import Part, Shown
from shared.contracts.billing import BillLine
from shared.units import largest_remainder


class Costs(NamedTuple):
    """Effective cost in fen, by a line's place on the bill; all together it is the bill's total.

    `own`: of the row of a line that is not usage. `with_points`, `to_pay`: of the two parts of a usage line.
    `unused`: millipoints that the bill sold and its usage did not take; `unused_fen`: what they cost.
    """

    own: dict[int, int]
    with_points: dict[int, int]
    to_pay: dict[int, int]
    unused: int
    unused_fen: int


def costs(lines: Sequence[BillLine], kinds: Sequence[Shown]) -> Costs:
    """The effective cost of each part of a bill.

    Points bought are shared out by points used; points used beyond them were paid for by an earlier bill, which showed
    them as not used: here they cost nothing more. Reductions are shared out by what there was to pay.
    """
    places: dict[Part, list[int]] = {part: [] for part in Part}
    for place, kind in enumerate(kinds):
        places[kind.part].append(place)
    usage = places[Part.USAGE]

    bought = places[Part.PREPAID]
    granted = sum(lines[place].amount for place in (*bought, *places[Part.RETURNED]))
    used = [max(0, with_points(lines[place])) for place in usage]
    unused = max(0, granted - sum(used))
    *borne, unused_fen = _shared(sum(lines[place].fen for place in bought), [*used, unused])

    to_pay = [lines[place].fen for place in usage]
    reduction = sum(lines[place].fen for place in places[Part.REDUCTION])
    reducible = [max(0, fen) for fen in to_pay]
    own = {place: lines[place].fen for place in places[Part.OWN]} | dict.fromkeys((*bought, *places[Part.RETURNED]), 0)
    if any(reducible):
        to_pay = [fen + share for fen, share in zip(to_pay, largest_remainder(reduction, reducible), strict=True)]
        own |= dict.fromkeys(places[Part.REDUCTION], 0)
    else:
        own |= {place: lines[place].fen for place in places[Part.REDUCTION]}
    return Costs(
        own,
        dict(zip(usage, borne, strict=True)),
        dict(zip(usage, to_pay, strict=True)),
        unused,
        unused_fen + sum(lines[place].fen for place in places[Part.RETURNED]),
    )


def with_points(line: BillLine) -> int:
    """The part of a usage line that was paid with points, in millipoints; negative where more came back."""
    return line.amount - line.charged


def _shared(fen: int, weights: Sequence[int]) -> list[int]:
    """`fen` by weight; where nothing has any, all of it goes to the last."""
    if not any(weights):
        return [*(0 for _ in weights[:-1]), fen]
    return largest_remainder(fen, weights)
