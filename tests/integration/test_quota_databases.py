"""Quota on a real PostgreSQL, and several processes on one database: killed callers, one snapshot, the same reader."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import eventlet
import pytest
import sqlalchemy as sa
from greenlet import GreenletExit

from services.quota.schemas import Balances, Sweep
from shared.catalogue.copy import CatalogueCopy
from shared.errors import Conflict
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import EventLog
from shared.eventstore.projection import Projector
from tests.auditing import audit
from tests.unit.quota_world import OPERATOR, World, catalogue_page

pytestmark = pytest.mark.servers

DEBIT: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 100}}


@pytest.fixture
def world(tmp_path: Path, postgres_database: str) -> Iterator[World]:
    world = World(tmp_path, postgres_database)
    yield world
    world.app.close()


def follow(world: World) -> None:
    world.app.follow_quota([e._asdict() for e in world.app.log.read(world.app.projector.position(), 5000)])


def test_callers_killed_at_any_instant_hurt_nobody_else(world: World, seed: int) -> None:
    """Whether they lead, wait, or are in the midst of a COMMIT: no follower dies or hangs, nothing is doubled."""
    dice = Random(seed)
    world.open(points=10**12)
    answers: dict[str, str] = {}

    def call(request_id: str) -> None:
        try:
            world.do("debit", request_id=request_id, **DEBIT)
            answers[request_id] = "done"
        except GreenletExit:
            answers[request_id] = "killed"

    threads = []
    victims: set[str] = set()
    for n in range(400):
        threads.append((f"d{n}", eventlet.spawn(call, f"d{n}")))
        if dice.random() < 0.5:
            eventlet.sleep(dice.random() * 0.004)
        if dice.random() < 0.4:
            victim, thread = dice.choice(threads[-8:])
            victims.add(victim)
            thread.kill()
    with eventlet.Timeout(60):
        for _, thread in threads:
            with contextlib.suppress(GreenletExit):
                thread.wait()
        world.do("debit", request_id="last", **DEBIT)
    events = world.app.log.read(0, 5000)
    audit(world.app, catalogue_page())
    debited = {e.event.request_id for e in events if "TokensDebited" in e.topic}  # type: ignore[attr-defined]
    assert {name for name, answer in answers.items() if answer == "done"} <= debited
    assert world.balance()["available"] == 10**12 - 100_000 * len(debited)
    assert "killed" in answers.values()
    assert {name for name, _ in threads} - victims <= {name for name, answer in answers.items() if answer == "done"}


def test_balances_and_their_position_are_of_one_instant(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)
    follow(world)
    position_in = Projector.position_in
    raced: list[bool] = []

    def race(projector: Projector, connection: sa.Connection) -> int:
        if not raced:
            raced.append(True)
            world.do("debit", **DEBIT)
            follow(world)
        return position_in(projector, connection)

    monkeypatch.setattr(Projector, "position_in", race)
    answer = world.app.balances(Balances())
    assert raced
    assert (answer["position"], answer["accounts"][0]["version"]) == (2, 2)


def test_the_sweep_on_postgresql(world: World) -> None:
    world.open(points=1_000_000)
    world.do("grant", request_id="soon", amount=5, source="purchase", expires_at="2026-06-01T09:00:00+08:00")
    world.do("grant", request_id="void", amount=5, source="purchase", priority=1)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=3, ttl_s=7200)
    world.do("void_grant", grant="void")
    world.do("release", reservation="h")
    world.clock.advance(3600)
    follow(world)
    assert world.app.sweep(Sweep())["expired_grants"] == 2
    follow(world)
    assert world.app.sweep(Sweep())["expired_grants"] == 0


def test_all_that_the_databases_url_says_holds_for_the_log_too(postgres_database: str) -> None:
    named = sa.make_url(postgres_database).update_query_dict({"application_name": "named-in-the-url"})
    made = engine(postgres_database)
    migrate(made, "quota")
    asked = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'named-in-the-url'")
    with contextlib.closing(EventLog(named.render_as_string(hide_password=False))) as log, made.connect() as connection:
        assert log.head() == 0
        assert connection.execute(asked).scalar_one() > 0
    made.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_replica_that_was_overtaken_reads_what_the_other_stored(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    url = f"sqlite:///{tmp_path}/q.db" if database == "sqlite" else request.getfixturevalue("postgres_database")
    engines = [engine(url), engine(url)]
    migrate(engines[0], "quota")
    ours, theirs = (CatalogueCopy(made) for made in engines)
    page = catalogue_page()
    assert ours.follow(page[:2]) == theirs.follow(page[:2]) == 2
    position_in = Projector.position_in
    raced: list[bool] = []

    def race(projector: Projector, connection: sa.Connection) -> int:
        at = position_in(projector, connection)
        if projector is ours._projector and not raced:
            raced.append(True)
            assert theirs.follow(page[2:4]) == 4
        return at

    if database == "postgresql":
        monkeypatch.setattr(Projector, "position_in", race)
    else:  # lets one at a time in: nobody can come between our reading and our writing
        assert theirs.follow(page[2:4]) == 4
    assert ours.follow(page[2:4]) == 4
    assert raced == [True] * (database == "postgresql")
    with pytest.raises(Conflict):
        ours._projector.apply(page[5:])
    assert ours.follow(page[4:]) == theirs.follow(page[4:]) == len(page)
    assert ours.view.operator(OPERATOR, page[0].event.at) == theirs.view.operator(OPERATOR, page[0].event.at)
    for made in engines:
        made.dispose()
