"""What billing's own log has to charge: periods of plans, what is given back for them, in the form that rating takes.

And what they come to: whoever starts a period or gives some of it back, and the bill that shows it, compute it here. It
must not know how periods come about.
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


def exact_fee(fee_fen: int, part_days: int, whole_days: int) -> Fraction:
    """Fen for `part_days` of the `whole_days` (at least 1) that `fee_fen` is for, before the discount."""
    return Fraction(fee_fen * part_days, whole_days)


def exact_discount(fee_fen: int, part_days: int, whole_days: int, discount_percent: int) -> Fraction:
    """Fen that the discount takes off that fee."""
    return Fraction(fee_fen * part_days * discount_percent, whole_days * 100)


def period_price(fee_fen: int, part_days: int, whole_days: int, discount_percent: int) -> int:
    """What is due for a period, in fen: the sum of its two lines, each rounded once."""
    fee = round_half_away(exact_fee(fee_fen, part_days, whole_days))
    return fee - round_half_away(exact_discount(fee_fen, part_days, whole_days, discount_percent))


def period_allowance(allowance: int, part_days: int, whole_days: int) -> int:
    """The millipoints of a period, of the `allowance` for `whole_days`: rounded once."""
    return round_half_away(Fraction(allowance * part_days, whole_days))


def exact_credit(price_fen: int, left_days: int, part_days: int, unused: int, amount: int) -> Fraction:
    """Fen to give back of `price_fen`: its share of days left or of points left, the lesser one; without points, of
    days."""
    share = Fraction(left_days, part_days)
    if amount:
        share = min(share, Fraction(unused, amount))
    return price_fen * share


def credit_for(price_fen: int, left_days: int, part_days: int, unused: int, amount: int) -> int:
    """The same as it stands on a bill: rounded once."""
    return round_half_away(exact_credit(price_fen, left_days, part_days, unused, amount))
