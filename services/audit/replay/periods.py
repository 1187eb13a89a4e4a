"""What a period of a plan must be: its bounds and days, its phase, price and points, and what is given back. Pure.

Days and months are Shanghai's. It must not know subscriptions: only a plan as it was published, and a day.
"""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from services.audit.replay.calendar import day_of, day_start
from services.audit.replay.prices import Raw

SOURCES = {"bundle": "bundle", "trial": "trial"}  # of a period's points, by the plan's kind; all others: plan


class Bounds(NamedTuple):
    """Where a period ends, and how many days of the plan's whole ones it has."""

    ends_at: datetime
    part_days: int
    whole_days: int


class Terms(NamedTuple):
    """Of a whole period: phase (0: the plan's own terms), fee in fen before the discount, millipoints."""

    phase: int
    fee_fen: int
    allowance: int


def rounded(value: Fraction) -> int:
    """To the nearest integer, a half away from zero."""
    above, below = value.numerator, value.denominator
    whole = (2 * abs(above) + below) // (2 * below)
    return whole if above >= 0 else -whole


def bounds(plan: Raw, anchor: date, start: datetime) -> Bounds:
    """Of the period that begins at `start`; anniversaries are counted from `anchor`, which is not later."""
    first = day_of(start)
    if plan["kind"] == "trial":
        days = plan.get("trial_days", 0)
        return Bounds(day_start(first + timedelta(days=days)), days, days)
    if plan.get("cycle", "calendar") == "calendar":
        begin = first.replace(day=1)
        end = months_after(begin, 1)
    else:
        months = 0
        while months_after(anchor, months + 1) <= first:
            months += 1
        begin, end = months_after(anchor, months), months_after(anchor, months + 1)
    return Bounds(day_start(end), (end - first).days, (end - begin).days)


def months_after(day: date, months: int) -> date:
    """The same day of a later month, or that month's last day where it is shorter."""
    month = day.month - 1 + months
    year, month = day.year + month // 12, month % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def terms(plan: Raw, before: int) -> Terms:
    """What holds in a period that comes behind `before` others of the same plan."""
    for number, phase in enumerate(plan.get("phases", ()), start=1):
        if before < phase["months"]:
            return Terms(number, phase.get("fee_fen", 0), phase.get("allowance", 0))
        before -= phase["months"]
    return Terms(0, plan.get("fee_fen", 0), plan.get("allowance", 0))


def share(whole: int, part_days: int, whole_days: int) -> Fraction:
    """The part of a fee or an allowance that falls to so many days."""
    return Fraction(whole * part_days, whole_days)


def price(fee_fen: int, part_days: int, whole_days: int, discount_percent: int) -> int:
    """Fen due: the fee's share, less the discount on it; both are lines of a bill, and rounded as such."""
    exact = share(fee_fen, part_days, whole_days)
    return rounded(exact) - rounded(exact * Fraction(discount_percent, 100))


def given_back(price_fen: int, part_days: int, allowance: int, left_days: int, unused: int) -> Fraction:
    """Fen for a period that was cut: by days left or by points left, the lesser; by days where none were granted."""
    left = Fraction(left_days, part_days) if part_days else Fraction(0)
    if allowance:
        left = min(left, Fraction(unused, allowance))
    return price_fen * left


def days_left(at: datetime, ends_at: datetime) -> int:
    """Days from that of `at`, which counts, to the one before a period's end."""
    return (day_of(ends_at) - day_of(at)).days
