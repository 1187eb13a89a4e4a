"""What a process remembers: restarts, replicas, bounds, and the same decisions from the same log."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import services.routing.application as application_module
import services.routing.room as room_module
from services.routing.application import RoutingApplication, warm_position
from shared.errors import Conflict, TokengridError
from shared.eventstore.log import EventLog
from tests.unit.routing_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def traffic(world: World, seed: int, calls: int) -> list[Any]:
    """Calls with every outcome, at random but from a seed; what was decided."""
    chance = random.Random(seed)
    decided: list[Any] = []
    for n in range(calls):
        world.clock.advance(chance.randrange(3))
        try:
            answer = world.route(f"c{n}", tokens=chance.randrange(200_000), residency=chance.choice([[], ["cn-gz"]]))
        except TokengridError as refusal:
            decided.append(refusal.as_dict())
            continue
        decided.append(answer)
        outcome = chance.choice(["ok", "ok", "error", "error", "throttled", "cancelled", None])
        if outcome is not None:
            world.report(f"c{n}", answer["deployment"], outcome, ttft_ms=chance.randrange(1000))
    return decided


def knowledge(world: World, app: RoutingApplication | None = None) -> list[dict[str, Any]]:
    return [world.seen(name, app) for name in ("bj-a", "bj-b", "gz-a", "nx-a")]


# --- determinism -------------------------------------------------------------------------------
def test_the_same_calls_are_decided_the_same(tmp_path: Path, seed: int) -> None:
    logs = []
    for name in ("one", "other"):
        world = World(tmp_path / name)
        traffic(world, seed, 150)
        logs.append(world.events())
        world.close()
    assert logs[0] == logs[1]


def test_a_restart_knows_what_was_known_and_decides_as_before(world: World, seed: int) -> None:
    traffic(world, seed, 150)
    before = knowledge(world)
    world.restart()
    assert knowledge(world) == before


def test_an_open_circuit_survives_a_restart(world: World) -> None:
    for n in range(5):
        world.route(f"c{n}")
        world.report(f"c{n}", "bj-a", "error")
        world.route(f"keep{n}", exclude=["bj-a"])
    world.restart()
    assert world.seen("bj-a")["circuit"] == "open"
    assert world.route("after")["deployment"] == "bj-b"


# --- a restart is cheap ------------------------------------------------------------------------
def test_a_restart_folds_only_the_recent_end_of_the_log(world: World) -> None:
    for n in range(20):
        world.route(f"old{n}")
    world.clock.advance(application_module.WARM_S + 1)
    for n in range(3):
        world.route(f"new{n}")
    app = world.restart()
    assert warm_position(app.log, world.clock()) == 20
    assert list(app.room.calls) == [f"beijing/new{n}" for n in range(3)]


def test_a_restart_folds_a_bounded_number_of_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_module, "WARM_EVENTS_MAX", 5)
    for n in range(20):
        world.route(f"c{n}")
    app = world.restart()
    assert len(app.room.calls) == 5
    assert world.route("next")["position"] == 21


def test_an_empty_log_starts_at_its_beginning(world: World) -> None:
    assert warm_position(world.app.log, world.clock()) == 0


def test_a_call_from_before_the_recent_end_is_read_from_the_log(world: World) -> None:
    world.route("old", lease_s=3600)
    world.route("old", exclude=["bj-a"], lease_s=3600)
    world.clock.advance(application_module.WARM_S + 1)
    world.restart()
    assert len(world.app.room.calls) == 0
    assert world.report("old", "bj-a", "error")["version"] == 3
    assert world.report("old", "bj-b", "ok")["version"] == 4


def test_a_call_of_which_only_the_end_was_folded_is_read_from_the_log(world: World) -> None:
    world.route("old", exclude=["bj-b", "gz-a"])
    world.clock.advance(application_module.WARM_S + 1)
    world.route("old", exclude=["bj-a", "gz-a"])
    world.restart()
    assert world.report("old", "bj-a", "error")["version"] == 3


def test_calls_in_memory_are_bounded_and_none_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "CALLS_MAX", 4)
    for n in range(20):
        world.route(f"c{n}")
    assert len(world.app.room.calls) == 4
    for n in range(20):
        assert world.report(f"c{n}", world.route(f"c{n}")["deployment"])["version"] == 2


# --- replicas ----------------------------------------------------------------------------------
def test_replicas_share_what_they_learn(world: World) -> None:
    other = world.replica()
    for n in range(5):
        world.route(f"c{n}", exclude=["bj-b", "gz-a"], app=[world.app, other][n % 2])
        world.report(f"c{n}", "bj-a", "error", app=[other, world.app][n % 2])
    assert world.route("next", app=other)["deployment"] == "bj-b"
    assert knowledge(world) == knowledge(world, other)


def test_a_replica_answers_anothers_request_from_the_log(world: World) -> None:
    first = world.route("c1")
    assert world.route("c1", app=world.replica()) == first | {"replayed": True}


def test_replicas_do_not_exceed_a_deployments_calls_together(world: World) -> None:
    other = world.replica()
    chosen = [world.route(f"c{n}", exclude=["bj-b", "gz-a"], app=[world.app, other][n % 2]) for n in range(100)]
    assert {answer["deployment"] for answer in chosen} == {"bj-a"}
    for app in (world.app, other):
        with pytest.raises(TokengridError, match="no deployment"):
            world.route("one-more", exclude=["bj-b", "gz-a"], app=app)


class Interrupted:
    """Lets another writer in just before an append, once."""

    def __init__(self, log: EventLog, meanwhile: Any) -> None:
        self._append, self._meanwhile = log.append, meanwhile
        log.append = self  # type: ignore[method-assign, assignment]

    def __call__(self, *args: Any) -> Any:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return self._append(*args)


def test_a_decision_that_lost_the_race_is_taken_again_and_counts_once(world: World) -> None:
    other = world.replica()
    world.route("mine")
    Interrupted(world.app.log, lambda: world.route("theirs", app=other))
    world.report("mine", "bj-a", "error")
    Interrupted(world.app.log, lambda: world.route("theirs2", app=other))
    world.route("again")
    assert knowledge(world) == knowledge(world, other)
    assert world.seen("bj-a")["consecutive_failures"] == 1
    assert sum(one["calls"] for one in knowledge(world)) == 3


def test_of_two_replicas_that_route_one_call_at_once_both_give_the_one_answer(world: World) -> None:
    other, theirs = world.replica(), []

    def faster() -> None:
        world.clock.advance(0.001)
        theirs.append(world.route("c1", app=other))

    Interrupted(world.app.log, faster)
    mine = world.route("c1")
    assert mine == theirs[0] | {"replayed": True}
    assert world.seen("bj-a")["calls"] == 1


def test_what_could_not_be_stored_is_not_remembered(world: World) -> None:
    before = knowledge(world)

    def away() -> None:
        raise Conflict("always")

    append = world.app.log.append
    world.app.log.append = lambda *_: away()  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict):
        world.route("c1")
    world.app.log.append = append  # type: ignore[method-assign]
    assert knowledge(world) == before
    assert world.route("c1")["replayed"] is False
