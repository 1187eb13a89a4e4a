"""Folding quota's events into usage: a page of events becomes sums, one per row of the read model.

Usage is summed per operator, account, period, model, rate card, serving operator and day. What was
recorded while its period ran goes into one row (`segment` 0). What was recorded later, or so near the
period's end that a cut-off may fall before it, keeps a row of its own whose `segment` is its position
in quota's log. So the usage as of any cut-off Q after the period is the sum of the rows with
segment <= Q, however far the log has been followed since. It must not know of prices or tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.clock import day_of, period_bounds, period_of
from shared.contracts import quota as q
from shared.contracts.base import Event

# Events carry the clock of whichever quota process recorded them; clocks of one installation differ by
# less than this, and a commit takes less.
ON_TIME_MARGIN_S = 60

# What subscriptions order is named so; only of these grants is it kept how they ended.
PLAN_GRANTS = "plan/"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Heard(NamedTuple):
    """An event of an account, where it stands in quota's log, and the trace it belongs to."""

    position: int
    operator: str
    account: str
    event: Event
    trace: str | None = None


class UsageKey(NamedTuple):
    operator: str
    account: str
    period: str
    model: str
    rate_card: str
    serving_operator: str
    day: str
    segment: int


class WholesaleKey(NamedTuple):
    home: str
    serving: str
    period: str
    model: str
    day: str
    segment: int


class Sums:
    """What a row adds up. `amount` and `charged` are millipoints, net of reversals; `charged` is what no grant
    had paid for."""

    __slots__ = ("amount", "cache_write", "cached_input", "calls", "charged", "input", "output", "trace")

    def __init__(self) -> None:
        self.calls = self.input = self.cached_input = self.cache_write = self.output = 0
        self.amount = self.charged = 0
        self.trace: str | None = None

    def add(self, debit: q.TokensDebited) -> None:
        usage = debit.usage
        self.calls += debit.final
        self.input += usage.input
        self.cached_input += usage.cached_input
        self.cache_write += usage.cache_write
        self.output += usage.output
        self.amount += debit.amount


class Metering:
    """What a page changes."""

    def __init__(self) -> None:
        self.opened: list[tuple[Heard, q.AccountOpened]] = []
        self.limits: dict[tuple[str, str], int] = {}
        self.closed: dict[tuple[str, str], int] = {}  # account -> where it was closed
        self.granted: list[tuple[Heard, q.PointsGranted]] = []
        self.ended: list[tuple[Heard, q.GrantVoided | q.GrantExpired]] = []
        self.usage: dict[UsageKey, Sums] = {}
        self.wholesale: dict[WholesaleKey, Sums] = {}
        self.on_time: dict[tuple[str, str], int] = {}  # (operator, period) -> last position in a segment 0


def microseconds(at: datetime) -> int:
    """An instant as whole microseconds since 1970, UTC: sorts alike in every database."""
    return (at - EPOCH) // timedelta(microseconds=1)


def fold(events: Iterable[Heard], closed: Set[tuple[str, str]] = frozenset()) -> Metering:
    """Sums of a page. `closed`: the (operator, period) for which bills were issued already; whatever comes for
    them now keeps its own row."""
    page = Metering()
    for heard in events:
        event = heard.event
        match event:
            case q.TokensDebited():
                row = _row(page, heard, event.model, event.rate_card, event.serving_operator, closed)
                row.add(event)
                row.charged += unpaid(event)
            case q.DebitReversed():
                row = _row(page, heard, event.model, event.rate_card, "", closed)
                row.amount -= event.amount
                row.charged -= unpaid(event)
            case q.PointsGranted():
                page.granted.append((heard, event))
            case q.AccountOpened():
                page.opened.append((heard, event))
            case q.CreditLimitSet():
                page.limits[heard.operator, heard.account] = event.credit_limit
            case q.GrantVoided() | q.GrantExpired():
                if event.grant.startswith(PLAN_GRANTS):
                    page.ended.append((heard, event))
            case q.AccountClosed():
                page.closed[heard.operator, heard.account] = heard.position
    return page


def periods(events: Iterable[Heard]) -> set[tuple[str, str]]:
    """The (operator, period) in which a page's usage lies."""
    return {
        (heard.operator, _calendar(heard.event.at)[0])
        for heard in events
        if isinstance(heard.event, q.TokensDebited | q.DebitReversed)
    }


def _row(page: Metering, heard: Heard, model: str, rate_card: str, serving: str, closed: Set[tuple[str, str]]) -> Sums:
    event, operator = heard.event, heard.operator
    period, day, on_time_before = _calendar(event.at)
    late = event.recorded_at >= on_time_before or (operator, period) in closed
    segment = heard.position if late else 0
    if not late:
        page.on_time[operator, period] = heard.position
    key = UsageKey(operator, heard.account, period, model, rate_card, serving, day, segment)
    row = page.usage.get(key)
    if row is None:
        row = page.usage[key] = Sums()
    row.trace = heard.trace or row.trace
    if serving and serving != operator and isinstance(event, q.TokensDebited):
        pair = WholesaleKey(operator, serving, period, model, day, segment)
        page.wholesale.setdefault(pair, Sums()).add(event)
    return row


def unpaid(event: q.TokensDebited | q.DebitReversed) -> int:
    """Millipoints that no grant pays for, or had paid for: they stand against the credit limit, or are overdrawn."""
    return sum(draw.amount for draw in event.draws if draw.grant == q.CREDIT) + event.overdrawn


def _calendar(at: datetime) -> tuple[str, str, datetime]:
    """Period and day in Shanghai, and the instant before which a record counts as on time."""
    utc = at.astimezone(UTC)
    return _calendar_hour(utc.replace(minute=0, second=0, microsecond=0))


@functools.lru_cache(maxsize=4096)
def _calendar_hour(hour: datetime) -> tuple[str, str, datetime]:
    # Shanghai's offset is whole hours: an hour in UTC lies in one day there. Strings are made once an hour.
    period = period_of(hour)
    return period, day_of(hour), period_bounds(period)[1] - timedelta(seconds=ON_TIME_MARGIN_S)
