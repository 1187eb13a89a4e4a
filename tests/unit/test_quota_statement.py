"""Statements: an account's events page by page, either way, by event time and by recorded time, at bounded cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from services.quota import history as history_module
from services.quota import sections as sections_module
from services.quota.schemas import Statement
from services.quota.sections import sections
from shared.contracts.schema import parse
from shared.errors import MalformedCommand, UnknownAccount
from shared.eventstore.log import EventLog
from tests.unit.quota_histories import MUCH, begin, follow, live
from tests.unit.quota_world import OPERATOR, START, World

STREAM = f"{OPERATOR}/a1"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    small_sections(monkeypatch, 8)
    made = World(tmp_path)
    yield made
    made.app.close()


def small_sections(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(sections_module, "SECTION", count)
    monkeypatch.setattr(history_module, "SECTION", count)
    monkeypatch.setattr(history_module, "LOOKED_THROUGH", count)


def minutes(count: float) -> datetime:
    return START + timedelta(minutes=count)


def page(world: World, account: str = "a1", **query: Any) -> dict[str, Any]:
    return world.app.statement(Statement(operator=OPERATOR, account=account, **query))


def versions(world: World, account: str = "a1", **query: Any) -> list[int]:
    """Of all pages, one after the other; a page is never more than was asked for, and a cursor goes on."""
    found: list[int] = []
    cursor = "before" if query.get("newest_first") else "after"
    while True:
        one = page(world, account, **query)
        assert len(one["events"]) <= query.get("limit", 100)
        assert one["more"] == (one["next"] is not None)
        found += [event["version"] for event in one["events"]]
        if not one["more"]:
            return found
        assert query.get(cursor) != one["next"], "the cursor goes on"
        query[cursor] = one["next"]


def a_debit_a_minute(world: World, count: int) -> None:
    """Version n + 2 happened in minute n."""
    world.open(points=10**9)
    for n in range(1, count + 1):
        world.clock.now = minutes(n)
        world.do("debit", model="kimi-k2.5", usage={"input": 1})


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many events each question to the log gave from now on."""
    seen: list[int] = []
    stream = EventLog.stream

    def counted(log: EventLog, *args: Any) -> Any:
        found = stream(log, *args)
        seen.append(len(found))
        return found

    monkeypatch.setattr(EventLog, "stream", counted)
    return seen


# --- pages ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [1, 3, 11, 12, 13, 100])
def test_pages_hold_everything_once_from_either_end(world: World, limit: int) -> None:
    a_debit_a_minute(world, 10)
    everything = list(range(1, 13))
    assert versions(world, limit=limit) == everything
    assert versions(world, limit=limit, newest_first=True) == everything[::-1]


def test_cursors_bound_a_page_on_both_sides(world: World) -> None:
    a_debit_a_minute(world, 10)
    assert versions(world, after=3, before=6) == [4, 5]
    assert versions(world, after=3, before=6, newest_first=True) == [5, 4]
    assert versions(world, after=5, before=6) == []


def test_the_newest_page_does_not_read_what_is_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a_debit_a_minute(world, 30)
    seen = reads(monkeypatch)
    assert [e["version"] for e in page(world, newest_first=True, limit=2)["events"]] == [32, 31]
    assert seen == [3]


def test_beyond_the_end_there_is_nothing_and_no_cursor(world: World) -> None:
    world.open()
    nothing = {"events": [], "more": False, "next": None}
    assert page(world, after=9 * 10**15) == nothing
    assert page(world, after=1) == nothing
    assert page(world, before=1, newest_first=True) == nothing
    assert [e["version"] for e in page(world, before=2**63 - 1, newest_first=True)["events"]] == [1]


@pytest.mark.parametrize(
    "fields",
    [
        {"after": -1},
        {"after": 2**63},
        {"after": "1"},
        {"after": True},
        {"before": 0},
        {"before": -5},
        {"before": 2**63},
        {"before": 1.5},
        {"after": 7, "before": 7},
        {"after": 8, "before": 7},
        {"since": "2026-06-01"},
        {"since": "2026-06-01T00:00:00"},
        {"since": "2026-06-01T00:00:00Z", "until": "2026-06-01T08:00:00+08:00"},
        {"until": "0001-01-01T00:00:00+14:00"},
        {"known_at": 5},
        {"newest_first": 1},
        {"limit": -1},
        {"cursor": 5},
    ],
    ids=str,
)
def test_a_hostile_cursor_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedCommand):
        parse(Statement, {"operator": OPERATOR, "account": "a1", **fields})


def test_an_unknown_account_is_refused_with_any_cursor(world: World) -> None:
    for query in ({}, {"after": 5}, {"newest_first": True}, {"since": START}, {"known_at": START}):
        with pytest.raises(UnknownAccount):
            page(world, "nobody", **query)


# --- by time -------------------------------------------------------------------------------------------
def test_since_counts_and_until_does_not(world: World) -> None:
    a_debit_a_minute(world, 10)
    assert versions(world, since=minutes(3), until=minutes(5)) == [5, 6]
    assert versions(world, since=minutes(3), until=minutes(5), newest_first=True) == [6, 5]
    assert versions(world, since=minutes(10)) == [12]
    assert versions(world, until=START) == []


def test_it_is_the_event_time_that_counts(world: World) -> None:
    a_debit_a_minute(world, 10)
    world.do("debit", model="kimi-k2.5", usage={"input": 1}, occurred_at=minutes(3.5).isoformat())
    assert versions(world, since=minutes(3), until=minutes(5)) == [5, 6, 13]
    assert versions(world, since=minutes(3), until=minutes(5), known_at=minutes(9)) == [5, 6]


def test_what_had_been_recorded_is_a_beginning_whatever_the_clock_did(world: World) -> None:
    a_debit_a_minute(world, 10)
    world.clock.now = minutes(4)  # set right
    world.do("debit", model="kimi-k2.5", usage={"input": 1})
    follow(world)
    assert versions(world, known_at=minutes(4)) == [1, 2, 3, 4, 5, 6]
    assert versions(world, known_at=minutes(10), newest_first=True) == list(range(13, 0, -1))
    assert page(world, known_at=minutes(4), after=7) == {"events": [], "more": False, "next": None}
    assert versions(world, known_at=START - timedelta(days=1)) == []


@pytest.mark.parametrize("number", range(4))
def test_any_bounds_of_any_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, number: int) -> None:
    """As if every event had been looked at, whether the sections of the stream are known, in part, or not."""
    dice = Random(seed + number)
    small_sections(monkeypatch, dice.choice([2, 5, 16]))
    world = World(tmp_path)
    world.settings.page_max = dice.choice([3, 10, 5000])
    begin(world)
    live(world, dice, 60, MUCH)
    if dice.random() < 0.7:
        follow(world)
    if dice.random() < 0.5:
        with world.app.engine.begin() as connection:
            connection.execute(sa.delete(sections).where(sections.c.section % 2 == dice.randrange(2)))
    live(world, dice, 40, MUCH)
    everything = list(world.app.log.whole_stream(f"{OPERATOR}/a"))
    times = [e.event.at for e in everything] + [e.event.recorded_at for e in everything]
    for _ in range(40):
        since, until = sorted(dice.sample(times, 2))
        bounds: dict[str, Any] = {"since": since, "until": until, "known_at": dice.choice(times)}
        bounds = {name: bound for name, bound in bounds.items() if dice.random() < 0.6}
        if "since" in bounds and "until" in bounds and since == until:
            continue
        first_later = next(
            (e.version for e in everything if "known_at" in bounds and e.event.recorded_at > bounds["known_at"]),
            len(everything) + 1,
        )
        expected = [
            e.version
            for e in everything[: first_later - 1]
            if bounds.get("since", e.event.at) <= e.event.at and not e.event.at >= bounds.get("until", e.event.at + DAY)
        ]
        limit = dice.choice([1, 2, 7])
        assert versions(world, "a", limit=limit, **bounds) == expected
        assert versions(world, "a", limit=limit, newest_first=True, **bounds) == expected[::-1]
    world.app.close()


DAY = timedelta(days=1)


# --- what it costs ---------------------------------------------------------------------------------------
def test_what_lies_long_after_is_found_without_reading_what_came_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_debit_a_minute(world, 100)
    follow(world)
    seen = reads(monkeypatch)
    assert [e["version"] for e in page(world, since=minutes(60), limit=3)["events"]] == [62, 63, 64]
    assert [e["version"] for e in page(world, until=minutes(60), limit=3, newest_first=True)["events"]] == [61, 60, 59]
    assert [e["version"] for e in page(world, known_at=minutes(60), limit=3, newest_first=True)["events"]] == [
        62,
        61,
        60,
    ]
    assert sum(seen) <= 3 * 2 * 8, "two sections each time"


def test_a_page_looks_at_a_bounded_number_of_events_and_says_where_to_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_debit_a_minute(world, 100)  # and nobody has followed: nothing is known of any section
    world.settings.page_max = 16
    seen = reads(monkeypatch)
    assert page(world, since=minutes(60), limit=3) == {"events": [], "more": True, "next": 16}
    assert sum(seen) == 16
    assert page(world, until=minutes(60), limit=3, newest_first=True) == {"events": [], "more": True, "next": 87}


def test_only_whole_sections_are_noted_and_short_accounts_have_none(world: World) -> None:
    a_debit_a_minute(world, 20)
    world.open("short", points=5)
    follow(world)
    with world.app.engine.connect() as connection:
        noted = connection.execute(sa.select(sections.c.stream, sections.c.section)).all()
    assert [tuple(row) for row in noted] == [(STREAM, 0), (STREAM, 1)]
