"""An account's past, from the log: its books as of an instant, and its events page by page.

It reads; it decides nothing and changes nothing. What "had happened by then" means is `domain/past.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from time import sleep
from typing import NamedTuple

from services.quota.domain.account import Account
from services.quota.domain.past import History
from services.quota.schemas import Statement
from services.quota.sections import SECTION, Sections
from shared.eventstore.log import EventLog, LoggedEvent

TURN = 1000  # events folded before others get their turn
LOOKED_THROUGH = 256  # events read at once when only some of them may be wanted


def account_as_of(events: EventLog, stream: str, at: datetime | None, known_at: datetime | None) -> Account:
    """The account as what had happened by `at` (None: everything) of what had been recorded by `known_at` (None:
    everything) left it. What had been recorded by an instant is a beginning of the stream, whatever the clocks did.

    Reads the stream once up to there, and what was dated back a second time.
    """
    account = Account()
    history = History(at) if at is not None else None
    folded, in_order = 0, True
    for logged in _taking_turns(events.whole_stream(stream)):
        event = logged.event
        if known_at is not None and event.recorded_at > known_at:
            break
        if history is not None:
            history.add(event)
        in_order = in_order and (at is None or event.at <= at)
        if in_order:  # it counts, as does all before it
            account.evolve(logged.version, event)
            folded = logged.version
    counted = history.counted() if history is not None else bytearray()
    end = 1 + counted.rfind(1)  # the version of the last that counts
    if end > folded:
        for logged in _taking_turns(events.whole_stream(stream, folded)):
            if counted[logged.version - 1]:
                account.evolve(logged.version, logged.event)
            if logged.version >= end:
                break
    return account


def _taking_turns(events: Iterator[LoggedEvent]) -> Iterator[LoggedEvent]:
    for number, logged in enumerate(events):
        if number % TURN == TURN - 1:
            sleep(0)
        yield logged


class Page(NamedTuple):
    """A page of an account's events; `next`: the cursor of the page after it, None at the end."""

    events: list[LoggedEvent]
    next: int | None


def page_of(
    events: EventLog, sections: Sections, stream: str, last: int, query: Statement, limit: int, most: int
) -> Page:
    """The next of a stream's events up to its `last` that a statement asks for: at most `limit`, of at most `most`
    that are looked at, so that a page which finds little in a long history says where to go on."""
    low, high = query.after, min(query.before or last + 1, last + 1)  # all that is wanted lies between
    if query.known_at is not None:
        high = min(high, _first_later(events, sections, stream, query.known_at, last))
    wanted = _wanted(query)
    empty = set() if wanted is None else sections.without(stream, query.since, query.until)
    size = limit + 1 if wanted is None else max(limit + 1, LOOKED_THROUGH)
    found: list[LoggedEvent] = []
    while high - low > 1 and most > 0:
        if (low if not query.newest_first else high - 2) // SECTION in empty:
            low, high = _past_section(low, high, query.newest_first)
            continue
        count = min(size, high - low - 1)
        read = events.stream(stream, low if not query.newest_first else high - 1 - count, count)
        if query.newest_first:
            read.reverse()
            high -= count
        else:
            low += count
        most -= count
        found += read if wanted is None else [logged for logged in read if wanted(logged)]
        if len(found) > limit:
            return Page(found[:limit], found[limit - 1].version)
    at_end = high - low <= 1
    return Page(found, None if at_end else (high if query.newest_first else low))


def _past_section(low: int, high: int, newest_first: bool) -> tuple[int, int]:
    """The bounds without the section that would be read next."""
    if newest_first:
        return low, max(low + 1, (high - 2) // SECTION * SECTION + 1)
    return min(high - 1, (low // SECTION + 1) * SECTION), high


def _wanted(query: Statement) -> Callable[[LoggedEvent], bool] | None:
    """Whether an event's own time is in the bounds; None if there are none."""
    since, until = query.since, query.until
    if since is None and until is None:
        return None

    def wanted(logged: LoggedEvent) -> bool:
        at = logged.event.at
        return (since is None or since <= at) and (until is None or at < until)

    return wanted


def _first_later(events: EventLog, sections: Sections, stream: str, known_at: datetime, last: int) -> int:
    """The first version that was recorded after an instant; behind the last if there is none."""
    known = sections.known(stream, known_at)
    for section in range(last // SECTION + 1):
        if section in known:
            continue
        for logged in events.stream(stream, section * SECTION, SECTION):
            if logged.event.recorded_at > known_at:
                return logged.version
        sleep(0)
    return last + 1
