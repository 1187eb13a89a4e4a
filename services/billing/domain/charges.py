"""What billing's own log has to charge: periods of plans, what is given back for them, in the form that rating takes.

It must not know how periods come about.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, NamedTuple

from shared.units import round_half_away

ChargeKind = Literal["plan", "bundle", "trial", "credited", "cancelled"]


class Charge(NamedTuple):
    """A period of a plan, or what undoes one: `credited` in part, `cancelled` whole. `position`: in billing's log.

    `at_us`: microseconds since 1970; decides the bill's period. `from_day`, `to_day`: first and last day that is paid
    for or given back. `fee_fen` is for `whole_days`, before the discount; `price_fen` is what is due for `part_days`,
    and `amount` the millipoints granted for it. Of what is `credited`: `left_days` of the part, `unused` of the amount.
    """

    at_us: int
    position: int
    kind: ChargeKind
    subscription: str
    number: int
    plan: str
    plan_version: int
    phase: int
    from_day: str
    to_day: str
    fee_fen: int
    discount_percent: int
    part_days: int
    whole_days: int
    price_fen: int
    amount: int
    left_days: int = 0
    unused: int = 0


class Running(NamedTuple):
    """A plan's version whose period runs when the bill's period starts, in the order in which they were taken."""

    plan: str
    plan_version: int


def period_price(fee_fen: int, part_days: int, whole_days: int, discount_percent: int) -> int:
    """What is due for a period, in fen: the fee for its days and the discount on it, each rounded once as on a bill."""
    fee = Fraction(fee_fen * part_days, whole_days)
    return round_half_away(fee) + round_half_away(-fee * discount_percent / 100)


def part_of(amount: int, part_days: int, whole_days: int) -> int:
    """Of the points of a whole period those for its days, in millipoints."""
    return round_half_away(Fraction(amount * part_days, whole_days))


def credit_for(price_fen: int, left_days: int, part_days: int, unused: int, amount: int) -> int:
    """What is given back for a period that was cut, in fen: the price's share of days left or of points left, the
    lesser one. Without points it goes by days alone."""
    share = Fraction(left_days, part_days)
    if amount:
        share = min(share, Fraction(unused, amount))
    return round_half_away(price_fen * share)
