"""A page of a log, as it came from the broker or from the database: the same events, however it is asked for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.eventstore.log import LoggedEvent
from shared.eventstore.projection import Page

EVENTS = st.lists(
    st.builds(
        LoggedEvent,
        position=st.integers(1, 9),
        stream=st.sampled_from(["a/1", "a/2", "b/1", ""]),
        version=st.integers(1, 3),
        topic=st.just("x.Y:1"),
        state=st.text(max_size=3),
        trace=st.none() | st.text(max_size=3),
    ),
    max_size=20,
)


def travelled(event: LoggedEvent) -> dict[str, Any]:
    """As it came; JSON keeps no order of its fields, and a newer upstream may tell more."""
    return {"told_later": 1, **dict(reversed(event._asdict().items()))}


@given(events=EVENTS, came=st.booleans(), start=st.integers(0, 20), count=st.integers(1, 5))
def test_it_has_the_events(events: list[LoggedEvent], came: bool, start: int, count: int) -> None:
    page = Page([travelled(event) for event in events] if came else events)
    assert len(page) == len(events)
    assert list(page) == events
    assert list(page.tuples()) == events
    assert list(page[start : start + 3]) == events[start : start + 3]
    if start < len(events):
        assert page[start] == events[start]
    parts = page.by_stream(count)
    assert len(parts) == count
    found = [list(part) for part in parts]
    assert sum(map(len, found)) == len(events)
    for stream in {event.stream for event in events}:
        whole = [[event for event in part if event.stream == stream] for part in found]
        assert [part for part in whole if part] == [[event for event in events if event.stream == stream]]


def test_an_event_without_a_field_is_no_event() -> None:
    with pytest.raises(KeyError, match="state"):
        list(Page([{"position": 1, "stream": "a", "version": 1, "topic": "x.Y:1", "trace": None}]))
