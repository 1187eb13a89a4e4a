"""The calendar of a subscription: which days a period of a plan has. Pure, by Shanghai's days.

It must not know what a plan costs or grants.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple

from shared.clock import SHANGHAI

Cycle = Literal["calendar", "anniversary"]


class Span(NamedTuple):
    """Where a period lies: it begins on `day`, and the next one on `next_day`. `part_days` of the cycle's `whole_days`
    are left on `day`, itself included."""

    day: date
    next_day: date
    part_days: int
    whole_days: int


def day_in_shanghai(at: datetime) -> date:
    """The day an instant falls on."""
    return at.astimezone(SHANGHAI).date()


def midnight(day: date) -> datetime:
    """The first instant of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)


def add_months(day: date, months: int) -> date:
    """The same day so many months later; in a month that does not have it, the month's last."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def span_from(cycle: Cycle, anchor: date, day: date) -> Span:
    """The period that begins on `day`, at a cycle's first day or inside it.

    `anchor`: the day from which months are counted, `anniversary` only; not after `day`.
    """
    if cycle == "calendar":
        first, after = day.replace(day=1), add_months(day.replace(day=1), 1)
    else:
        months = (day.year - anchor.year) * 12 + day.month - anchor.month
        if add_months(anchor, months) > day:
            months -= 1
        first, after = add_months(anchor, months), add_months(anchor, months + 1)
    return Span(day, after, (after - day).days, (after - first).days)


def days_left(at: datetime, ends_at: datetime) -> int:
    """Days until a period's end, that of `at` included; 0 where it is over."""
    return max(0, (_days_end(ends_at) - day_in_shanghai(at)).days)


def _days_end(ends_at: datetime) -> date:
    """The day on which nothing of a period that ends at this instant is left."""
    day = day_in_shanghai(ends_at)
    return day if ends_at == midnight(day) else day + timedelta(days=1)
