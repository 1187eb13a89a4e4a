"""Folding quota's events into usage: a page of events becomes sums, one per row of the read model.

Usage is summed per operator, account, period, model, rate card, serving operator and day. What was
recorded while its period ran goes into one row (`segment` 0). What was recorded later, or so near the
period's end that a cut-off may fall before it, keeps a row of its own whose `segment` is its position
in quota's log. So the usage as of any cut-off Q after the period is the sum of the rows with
segment <= Q, however far the log has been followed since. It must not know of prices or tables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from services.billing.domain.metered import Debit, Readers, Reversal
from shared.clock import day_of, period_bounds, period_of
from shared.contracts import quota as q
from shared.contracts.base import TOKEN_CLASSES, Event, encode_event

# Events carry the clock of whichever quota process recorded them; clocks of one installation differ by
# less than this, and a commit takes less.
ON_TIME_MARGIN_S = 60

# What subscriptions order is named so; only of these grants is it kept how they ended.
PLAN_GRANTS = "plan/"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = len("2026-06-18T00")
SUMMED = ("calls", *TOKEN_CLASSES, "amount")  # between two operators; of an account, what it is charged as well

Logged = tuple[int, str, int, str, str | bytes, str | None]  # position, stream, version, topic, state, trace
Closed = Callable[[str], Collection[str]]  # from a period to the operators that have bills for it


class Heard(NamedTuple):
    """An event of an account, where it stands in quota's log, and the trace it belongs to."""

    position: int
    operator: str
    account: str
    event: Event
    trace: str | None = None


class Kind(NamedTuple):
    """What debits of one row have in common beside their account."""

    period: str
    model: str
    rate_card: str
    serving_operator: str
    day: str


class WholesaleKey(NamedTuple):
    home: str
    serving: str
    period: str
    model: str
    day: str
    segment: int


class Sums:
    """What a row adds up. `amount` and `charged` are millipoints, net of reversals; `charged` is what no grant
    had paid for; `last` is the position of the last event in it."""

    __slots__ = (
        "amount",
        "cache_write",
        "cached_input",
        "calls",
        "charged",
        "input",
        "last",
        "output",
        "trace",
    )

    def __init__(self) -> None:
        self.calls = self.input = self.cached_input = self.cache_write = self.output = 0
        self.amount = self.charged = self.last = 0
        self.trace: str | None = None


class UsageRow(NamedTuple):
    """Usage of an account; its operator and name are its `stream`."""

    stream: str
    kind: Kind
    segment: int
    sums: Sums


class Hour:
    """Debits of one hour and kind. `rows`: by stream the row in which they are summed if they were recorded `before`
    that."""

    __slots__ = ("before", "kind", "rows")

    def __init__(self, kind: Kind, before: str, rows: dict[str, Sums]) -> None:
        self.kind, self.before, self.rows = kind, before, rows


class Metering:
    """What a page changes."""

    def __init__(self, closed: Closed) -> None:
        self._closed = closed
        self.opened: list[tuple[Heard, q.AccountOpened]] = []
        self.limits: dict[tuple[str, str], int] = {}
        self.closed: dict[tuple[str, str], tuple[int, int]] = {}  # account -> position of its closing, and when it was
        self.granted: list[tuple[Heard, q.PointsGranted]] = []
        self.ended: list[tuple[Heard, q.GrantVoided | q.GrantExpired]] = []
        self._on_time: dict[Kind, dict[str, Sums]] = {}  # rows of segment 0, by stream
        self._late: list[UsageRow] = []

    def usage(self) -> list[UsageRow]:
        """In the order of their accounts: neighbours stand on one page of an index."""
        rows = [*self._late]
        for kind, by_stream in sorted(self._on_time.items(), key=itemgetter(0)):
            rows += [UsageRow(stream, kind, 0, sums) for stream, sums in by_stream.items()]
        return sorted(rows, key=itemgetter(0))

    def hour(self, hour: str, model: str, rate_card: str, serving: str) -> Hour:
        period, day, before = calendar(hour)
        kind = Kind(period, model, rate_card, serving, day)
        return Hour(kind, before, self._on_time.setdefault(kind, {}))

    def row(self, hour: Hour, stream: str, position: int, recorded_at: str) -> Sums:
        """A row for a debit of this hour, remembered there if the next may be summed in it as well."""
        row = Sums()
        if recorded_at >= hour.before or home_of(stream) in self._closed(hour.kind.period):
            self._late.append(UsageRow(stream, hour.kind, position, row))
        else:
            hour.rows[stream] = row
        return row

    def hear(self, heard: Heard) -> None:
        """Something that is not summed."""
        event = heard.event
        match event:
            case q.PointsGranted():
                self.granted.append((heard, event))
            case q.AccountOpened():
                self.opened.append((heard, event))
            case q.CreditLimitSet():
                self.limits[heard.operator, heard.account] = event.credit_limit
            case q.GrantVoided() | q.GrantExpired():
                if event.grant.startswith(PLAN_GRANTS):
                    self.ended.append((heard, event))
            case q.AccountClosed():
                self.closed[heard.operator, heard.account] = heard.position, microseconds(event.at)


def _none_closed(period: str) -> Collection[str]:  # noqa: ARG001
    return ()


def fold(events: Iterable[Heard], closed: Closed = _none_closed) -> Metering:
    """As `fold_log`, of events that are at hand as such."""
    logged = (
        (h.position, f"{h.operator}/{h.account}", 0, h.event.TOPIC, encode_event(h.event), h.trace) for h in events
    )
    return fold_log(logged, closed)


def fold_log(page: Iterable[Logged], closed: Closed = _none_closed) -> Metering:
    """Sums of a page of quota's log. `closed`: for whom bills of a period were issued already, asked often; whatever
    comes for them now keeps its own row. Raises KeyError for a version of an event that nobody here knows.

    A debit costs some 3 us, most of it reading its JSON: the events are met one at a time, while the processor has
    them at hand.
    """
    folded = Metering(closed)
    readers = Readers()
    hours: dict[tuple[str, str, str, str], Hour] = {}
    for position, stream, _version, topic, state, trace in page:
        read = readers[topic]
        if read is None:
            continue
        event: Any = read(state)
        if type(event) is Debit:
            serving = event.serving_operator
        elif type(event) is Reversal:
            serving = ""
        else:
            operator, _, account = stream.partition("/")
            folded.hear(Heard(position, operator, account, event, trace))
            continue
        at, recorded_at = event.at, event.recorded_at
        if not at[-1] == "Z" == recorded_at[-1]:
            at, recorded_at = in_utc(at), in_utc(recorded_at)
        place = at[:HOUR], event.model, event.rate_card, serving
        hour = hours.get(place)
        if hour is None:
            hour = hours[place] = folded.hour(*place)
        row = hour.rows.get(stream)
        if row is None or recorded_at >= hour.before:
            row = folded.row(hour, stream, position, recorded_at)
        row.last = position
        if trace:
            row.trace = trace
        unpaid = event.overdrawn
        for draw in event.draws:
            if draw.grant == q.CREDIT:
                unpaid += draw.amount
        if type(event) is Debit:
            usage = event.usage
            row.charged += unpaid
            row.calls += event.final
            row.input += usage.input
            row.cached_input += usage.cached_input
            row.cache_write += usage.cache_write
            row.output += usage.output
            row.amount += event.amount
        else:
            row.amount -= event.amount
            row.charged -= unpaid
    return folded


def wholesale(usage: Iterable[UsageRow]) -> dict[WholesaleKey, Sums]:
    """Debits by another operator than the account's own are summed between the two as well."""
    found: dict[WholesaleKey, Sums] = {}
    for stream, kind, segment, sums in usage:
        serving = kind.serving_operator
        if serving and serving != (home := home_of(stream)):
            key = WholesaleKey(home, serving, kind.period, kind.model, kind.day, segment)
            pair = found.setdefault(key, Sums())
            for name in SUMMED:
                setattr(pair, name, getattr(pair, name) + getattr(sums, name))
    return found


def on_time(usage: Iterable[UsageRow]) -> dict[tuple[str, str], int]:
    """(operator, period) -> last position in a segment 0."""
    last: dict[tuple[str, str], int] = {}
    for stream, kind, segment, sums in usage:
        if not segment:
            of = home_of(stream), kind.period
            last[of] = max(last.get(of, 0), sums.last)
    return last


def home_of(stream: str) -> str:
    """The operator whose account a stream of quota's log is of."""
    return stream.partition("/")[0]


def microseconds(at: datetime) -> int:
    """An instant as whole microseconds since 1970, UTC: sorts alike in every database."""
    return (at - EPOCH) // timedelta(microseconds=1)


def in_utc(at: str) -> str:
    """An instant's text as it is in UTC: such texts sort by time as far as whole seconds go."""
    return datetime.fromisoformat(at).astimezone(UTC).isoformat().replace("+00:00", "Z")


@functools.lru_cache(maxsize=4096)
def calendar(hour: str) -> tuple[str, str, str]:
    """Of an hour of UTC's clock (`2026-06-18T00`): period and day in Shanghai, and the whole second before which a
    record counts as on time. Shanghai's offset is whole hours: an hour in UTC lies in one day there."""
    at = datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=UTC)
    period = period_of(at)
    before = period_bounds(period)[1] - timedelta(seconds=ON_TIME_MARGIN_S)
    return period, day_of(at), before.strftime("%Y-%m-%dT%H:%M:%S")
