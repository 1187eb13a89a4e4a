"""Snapshots, past instants and statements on a real PostgreSQL, and two processes on one database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import eventlet
import pytest
import sqlalchemy as sa

from services.quota.history import account_as_of
from services.quota.schemas import Statement
from services.quota.sections import SECTION, sections
from services.quota.snapshots import snapshots
from tests.unit.quota_histories import LITTLE, NAMES, begin, check_snapshots, folded, follow, live, whole_state
from tests.unit.quota_world import OPERATOR, START, World

pytestmark = pytest.mark.servers

STREAM = f"{OPERATOR}/a1"


@pytest.fixture
def world(tmp_path: Path, postgres_database: str) -> Iterator[World]:
    made = World(tmp_path, postgres_database)
    made.settings.snapshot_every = 10
    made.restart()
    yield made
    made.app.close()


def debits(world: World, count: int, minute: int = 0) -> None:
    world.clock.now = START + timedelta(minutes=minute)
    one = {"command": "debit", "operator": OPERATOR, "account": "a1", "model": "kimi-k2.5", "usage": {"input": 1}}
    made = [{**one, "request_id": world.next_request()} for _ in range(count)]
    assert all("ok" in answer for answer in world.app.execute(made))


def test_after_any_commands_events_and_snapshot_and_memory_are_one(world: World, seed: int) -> None:
    dice = Random(seed)
    world.settings.accounts_cached_max = 1
    begin(world)
    for _ in range(6):
        live(world, dice, 25, LITTLE)
        world.app.take_snapshots()
    for name in NAMES:
        stream = f"{OPERATOR}/{name}"
        check_snapshots(world.app, stream)
        instant = max((logged.event.at for logged in world.app.log.whole_stream(stream)), default=START)
        assert whole_state(account_as_of(world.app.log, stream, instant, None)) == whole_state(folded(world, stream))
    with world.app.engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(snapshots)).scalar_one() > 0


def test_a_damaged_row_is_not_believed(world: World) -> None:
    world.open(points=10**9)
    debits(world, 20)
    assert world.app.take_snapshots() == 1
    with world.app.engine.begin() as connection:
        connection.execute(sa.update(snapshots).values(state=b"\x00garbage"))
    world.restart()
    assert world.balance()["version"] == 22
    assert world.app.take_snapshots() == 1
    assert world.app.snapshots.load(STREAM).kept == 22


def test_two_processes_keep_snapshots_of_one_account(world: World) -> None:
    world.open(points=10**9)
    debits(world, 20)
    other = world.start()
    other.writer.ask(lambda: other.accounts.account(STREAM))
    assert world.app.take_snapshots() == other.take_snapshots() == 1
    debits(world, 20)
    other.writer.refresh()
    assert world.app.take_snapshots() == other.take_snapshots() == 1
    assert whole_state(other.snapshots.load(STREAM).account) == whole_state(folded(world, STREAM))
    other.close()


def test_snapshots_are_taken_while_commands_run(world: World) -> None:
    """And both come to their end: neither waits for the other for ever, no snapshot is of what is not stored."""
    world.open(points=10**12)
    ended: list[Any] = []

    def spend() -> None:
        for _ in range(60):
            world.do("debit", model="kimi-k2.5", usage={"input": 1})
            eventlet.sleep(0)

    with eventlet.Timeout(60):
        threads = [eventlet.spawn(spend) for _ in range(4)]
        while not all(ended) or not ended:
            world.app.take_snapshots()
            assert world.app.snapshots.load(STREAM).account.version <= world.app.log.head()
            eventlet.sleep(0.01)
            ended = [thread.dead for thread in threads]
        for thread in threads:
            thread.wait()
    world.app.take_snapshots()
    with contextlib.closing(world.start()) as fresh:
        assert fresh.snapshots.load(STREAM).kept > 200
        assert whole_state(fresh.accounts.account(STREAM)) == whole_state(folded(world, STREAM))


def test_a_page_of_a_long_history_is_found_by_its_times(world: World) -> None:
    world.open(points=10**12)
    for minute in range(1, 6):
        debits(world, SECTION, minute)
    follow(world)
    with world.app.engine.connect() as connection:
        assert connection.execute(sa.select(sections.c.section).order_by(sections.c.section)).scalars().all() == [
            *range(5)
        ]
    minute_3 = START + timedelta(minutes=3)
    first = world.app.statement(Statement(operator=OPERATOR, account="a1", since=minute_3, limit=2))
    assert [event["version"] for event in first["events"]] == [2 * SECTION + 3, 2 * SECTION + 4]
    known = Statement(operator=OPERATOR, account="a1", known_at=minute_3, newest_first=True, limit=1)
    assert [event["version"] for event in world.app.statement(known)["events"]] == [3 * SECTION + 2]
