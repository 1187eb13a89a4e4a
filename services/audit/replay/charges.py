"""What subscriptions charge an account, as the auditor folds it from billing's log, and the lines it makes. Pure.

The rules are the published ones: a fee by its days, a discount on it, what is given back for a period that was cut. All
exact until a line's end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from services.audit.replay.calendar import instant, period_and_day
from services.audit.replay.prices import Prices, Raw

LINE_OF = {"plan": "plan_fee", "bundle": "bundle", "trial": "trial"}


class Charge(NamedTuple):
    """An event that charges or gives back. `started`: the event of the period it is about; `kind`: the period's source,
    `credited` or `cancelled`."""

    position: int
    at: datetime
    period: str
    kind: str
    event: Raw
    started: Raw


class Line(NamedTuple):
    """A line before it is rounded."""

    kind: str
    exact: Fraction
    about: Raw


class Period:
    """A period that was begun: its event, where it stands, and what befell it."""

    def __init__(self, position: int, event: Raw) -> None:
        self.position = position
        self.event = event
        self.starts_at, self.ends_at = instant(event["starts_at"]), instant(event["ends_at"])
        self.cut: tuple[int, datetime] | None = None  # at which position it was cut or cancelled, and from when on
        self.cancelled = False

    def runs(self, at: datetime, known: int) -> bool:
        """Whether it runs at an instant, as known at a position of billing's log."""
        cut = self.cut is not None and self.cut[0] <= known and self.cut[1] <= at
        return self.position <= known and self.starts_at <= at < self.ends_at and not cut


class Charged:
    """All that one account's subscriptions charge."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}  # subscription -> where it was taken
        self.periods: dict[tuple[str, int], Period] = {}
        self.charges: list[Charge] = []

    def apply(self, position: int, kind: str, event: Raw) -> None:
        """Fold one event of the account's subscriptions; `kind` is its name."""
        key = (event["subscription"], event.get("number", 0))
        if kind == "SubscriptionStarted":
            self.taken[event["subscription"]] = position
        elif kind == "PlanPeriodStarted":
            self.periods[key] = Period(position, event)
            self._charge(position, event.get("source", "plan"), event["starts_at"], event, event)
        elif kind == "PlanPeriodCut" and key in self.periods:
            self.periods[key].cut = (position, instant(event["at"]))
        elif kind == "PlanPeriodCancelled" and key in self.periods:
            period = self.periods[key]
            period.cancelled, period.cut = True, (position, period.starts_at)
            self._charge(position, "cancelled", event["at"], event, period.event)
        elif kind == "PlanPeriodCredited" and key in self.periods:
            self._charge(position, "credited", event["at"], event, self.periods[key].event)

    def _charge(self, position: int, kind: str, at: str, event: Raw, started: Raw) -> None:
        self.charges.append(Charge(position, instant(at), period_and_day(at)[0], kind, event, started))

    def running(self, at: datetime, known: int) -> list[Raw]:
        """The periods that run at an instant, by when their subscriptions were taken."""
        found = [(self.taken.get(key[0], 0), p.event) for key, p in self.periods.items() if p.runs(at, known)]
        return [event for _, event in sorted(found, key=lambda each: each[0])]


# --- lines ---------------------------------------------------------------------------------------
def charge_lines(charges: Iterable[Charge]) -> list[Line]:
    """Lines by kind, in order of time and position; what is cancelled on the same bill is left out on both sides."""
    charges = sorted(charges, key=lambda c: (c.at, c.position))
    begun = {_key(c) for c in charges if c.kind in LINE_OF}
    gone = {_key(c) for c in charges if c.kind == "cancelled"} & begun
    return [line for c in charges if c.kind == "credited" or _key(c) not in gone for line in _lines(c)]


def _key(charge: Charge) -> tuple[str, int]:
    return charge.started["subscription"], charge.started["number"]


def _lines(charge: Charge) -> list[Line]:
    started = charge.started
    first = charge.event["at"] if charge.kind == "credited" else started["starts_at"]
    about: Raw = {
        "plan": started["plan"],
        "plan_version": started["plan_version"],
        "subscription": started["subscription"],
        "from_day": period_and_day(first)[1],
        "to_day": _day_before(started["ends_at"]),
    }
    if charge.kind in LINE_OF:
        return _fee_lines(charge, started, about)
    price = started.get("price_fen", 0)
    if not price:
        return []
    back = Fraction(price) if charge.kind == "cancelled" else exact_credit(started, charge.event)
    return [Line("plan_credit", -back, about)]


def _fee_lines(charge: Charge, started: Raw, about: Raw) -> list[Line]:
    granted = {**about, "amount": started.get("allowance", 0)}
    if charge.kind == "trial":
        return [Line("trial", Fraction(0), granted)]
    fee = exact_fee(started)
    lines = [Line(LINE_OF[charge.kind], fee, granted)]
    if percent := started.get("discount_percent", 0):
        lines.append(Line("discount", -fee * percent / 100, about))
    return lines


def exact_fee(started: Raw) -> Fraction:
    """Fen for a period's days, before the discount."""
    return Fraction(started.get("fee_fen", 0) * started["part_days"], started["whole_days"])


def exact_credit(started: Raw, credited: Raw) -> Fraction:
    """Fen to give back: the price's share of days left or of points left, the lesser one."""
    share = Fraction(credited["left_days"], started["part_days"])
    if granted := started.get("allowance", 0):
        share = min(share, Fraction(credited["unused"], granted))
    return Fraction(started.get("price_fen", 0)) * share


def _day_before(text: str) -> str:
    return period_and_day((instant(text) - timedelta(microseconds=1)).isoformat())[1]


# --- terms as you go -------------------------------------------------------------------------------
class Terms(NamedTuple):
    """What usage beyond all grants costs."""

    points_per_yuan: int = 250_000
    discount_percent: int = 0
    cap_fen: int = 0
    commitment_fen: int = 0


def terms_of(item: Raw | None) -> Terms:
    """Of a plan; list price without one."""
    if item is None:
        return Terms()
    return Terms(
        item.get("points_per_yuan", 250_000) or 250_000,
        item.get("usage_discount_percent", 0),
        item.get("cap_fen", 0),
        item.get("commitment_fen", 0),
    )


def terms_running(operator: str, running: Iterable[Raw], prices: Prices, known: int) -> Terms | None:
    """Those of the first plan that runs and is paid as you go beyond its points; None if none is."""
    for event in running:
        item = prices.plan_version(operator, event["plan"], event["plan_version"], known)
        if item is not None and item.get("overage", "refuse") == "payg":
            return terms_of(item)
    return None


def adjustments(fen: list[int], exact: Fraction, terms: Terms, rounded: Any) -> list[Line]:
    """Discount, cap and commitment on usage lines of so many fen, whose exact sum is `exact`."""
    lines: list[Line] = []
    total = sum(fen)
    if terms.discount_percent and exact > 0:
        off = -exact * terms.discount_percent / 100
        lines.append(Line("discount", off, {}))
        total += rounded(off)
    if terms.cap_fen and total > terms.cap_fen:
        lines.append(Line("cap", Fraction(terms.cap_fen - total), {}))
        total = terms.cap_fen
    if terms.commitment_fen and total < terms.commitment_fen:
        lines.append(Line("commitment", Fraction(terms.commitment_fen - total), {}))
    return lines
