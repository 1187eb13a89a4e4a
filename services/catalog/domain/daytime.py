"""Parts of the day, in minutes since midnight in Shanghai: turned from UTC, and into standard and off-peak."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Generic, NamedTuple, TypeVar

from shared.clock import SHANGHAI

MINUTES_A_DAY = 1440
P = TypeVar("P", bound="tuple[object, ...]")


class Window(NamedTuple, Generic[P]):
    """`value` holds from `from_minute` until `to_minute`, over midnight where the first is the later one."""

    from_minute: int
    to_minute: int
    value: P

    def overlaps(self, from_minute: int, to_minute: int) -> bool:
        return bool(covered(self.from_minute, self.to_minute) & covered(from_minute, to_minute))


def covered(from_minute: int, to_minute: int) -> set[int]:
    """The minutes of the day in a window."""
    if from_minute <= to_minute:
        return set(range(from_minute, to_minute))
    return set(range(from_minute, MINUTES_A_DAY)) | set(range(to_minute))


def shanghai_minutes(at: time) -> int:
    """Minutes since midnight in Shanghai of a time of day; without a zone it is UTC."""
    # Any day will do: neither zone has daylight saving.
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    local = datetime.combine(datetime(2026, 1, 1, tzinfo=UTC).date(), aware).astimezone(SHANGHAI)
    return local.hour * 60 + local.minute


def standard_and_off_peak(base: P, windows: Sequence[Window[P]]) -> tuple[P, tuple[Window[P], ...]]:
    """Which prices are the standard and which hold off-peak, so that off-peak is the cheaper part.

    Sources give peak hours as often as off-peak ones. Dearer windows with one price for all become the
    standard, and the rest of the day is off-peak at the base price; anything else stays as it is.
    """
    if not windows:
        return base, ()
    peak = windows[0].value
    dearer = all(p >= b for p, b in zip(peak, base, strict=True))  # type: ignore[operator]
    if not dearer or any(w.value != peak for w in windows):
        return base, tuple(windows)
    busy = set().union(*(covered(w.from_minute, w.to_minute) for w in windows))
    return peak, tuple(Window(start, end, base) for start, end in _gaps(busy))


def _gaps(busy: set[int]) -> list[tuple[int, int]]:
    """The parts of the day outside `busy`, by their start; one that runs over midnight is one part."""
    starts = [m for m in range(MINUTES_A_DAY) if m not in busy and (m - 1) % MINUTES_A_DAY in busy]
    gaps = []
    for start in starts:
        length = next(n for n in range(1, MINUTES_A_DAY + 1) if (start + n) % MINUTES_A_DAY in busy)
        end = (start + length) % MINUTES_A_DAY
        gaps.append((start, end or MINUTES_A_DAY))
    return gaps
