"""Instants, billing periods and days as the published contract means them, read from JSON text. Pure.

Shanghai's calendar: UTC+8 without daylight saving.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from functools import lru_cache

_SHANGHAI = timezone(timedelta(hours=8))


def instant(text: str) -> datetime:
    """An aware instant from RFC 3339 text. Raises ValueError, or TypeError, for what is none."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r:.60} is of no time zone")
    return at


def period_and_day(text: str) -> tuple[str, str]:
    """`YYYY-MM` and `YYYY-MM-DD` of an instant in Shanghai."""
    if text.endswith("Z"):
        return _of_hour(text[:13])
    return _of(instant(text))


def period_start(period: str) -> datetime:
    """The first instant of a period."""
    return datetime(int(period[:4]), int(period[5:7]), 1, tzinfo=_SHANGHAI)


def period_end(period: str) -> datetime:
    """The first instant after a period."""
    year, month = int(period[:4]), int(period[5:7])
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=_SHANGHAI)


def day_of(at: datetime) -> date:
    """The day in Shanghai that an instant falls on."""
    return at.astimezone(_SHANGHAI).date()


def period_of(at: datetime) -> str:
    """`YYYY-MM` of an instant in Shanghai."""
    return day_of(at).isoformat()[:7]


def day_start(day: date) -> datetime:
    """Midnight in Shanghai at which a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=_SHANGHAI)


def minute_of_day(at: datetime) -> int:
    """Minutes since midnight in Shanghai."""
    local = at.astimezone(_SHANGHAI)
    return local.hour * 60 + local.minute


@lru_cache(maxsize=4096)
def _of_hour(hour: str) -> tuple[str, str]:
    # Shanghai's offset is whole hours: an hour in UTC lies in one day there.
    return _of(datetime.fromisoformat(hour + ":00:00+00:00"))


def _of(at: datetime) -> tuple[str, str]:
    day = at.astimezone(_SHANGHAI).date().isoformat()
    return day[:7], day
