"""The clock, injected: nothing below a service class reads the time by itself.

All instants are timezone-aware and in UTC. A carrier's day and month are those of Shanghai.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

Clock = Callable[[], datetime]

# China has had one zone and no daylight saving since 1991; a fixed offset needs no tz database.
SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")

# What a command may name. The calendar's own ends cannot be converted to every zone, nor kept by every database.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)


def system_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


class FrozenClock:
    """A clock that tests set and move by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


def period_of(at: datetime) -> str:
    """The billing period (`2026-06`) an instant falls in, by Shanghai's calendar."""
    return at.astimezone(SHANGHAI).strftime("%Y-%m")


@functools.lru_cache(maxsize=1024)
def period_bounds(period: str) -> tuple[datetime, datetime]:
    """First instant of a period and first instant after it, in UTC.

    Raises ValueError unless `period` is `YYYY-MM`, and a month of the calendar that begins and ends in UTC's, too.
    """
    if not re.fullmatch("[0-9]{4}-[0-9]{2}", period):  # strptime would take `2026-6`, which no bill is of
        raise ValueError(f"{period!r} is not YYYY-MM")
    start = datetime.strptime(period, "%Y-%m").replace(tzinfo=SHANGHAI)
    after = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    try:
        return start.astimezone(UTC), after.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{period} does not begin in UTC's calendar") from None


def day_of(at: datetime) -> str:
    """The day (`2026-06-18`) an instant falls on in Shanghai."""
    return at.astimezone(SHANGHAI).strftime("%Y-%m-%d")
