"""Routing a call from beginning to end: one request one decision, re-routes, reports, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

import services.routing.room as room_module
from services.routing.schemas import Call
from shared.contracts import catalog as c
from shared.errors import (
    IdempotencyConflict,
    NoDeployment,
)
from tests.unit.routing_world import RETAIL, START, World, deployment, market, route_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# --- the answer --------------------------------------------------------------------------------
def test_a_route_says_where_why_and_at_what_price(world: World) -> None:
    answer = world.route("c1", tokens=1000)
    assert answer["deployment"] == "bj-a"
    assert answer["serving_operator"] == "beijing"
    assert answer["fallbacks"] == ["bj-b", "gz-a"]
    assert answer["rejected"] == [{"deployment": "nx-a", "reason": "no-agreement"}]
    assert answer["rates"] == msgspec.structs.asdict(RETAIL)
    assert answer["rate_card"] == "beijing/alpha@1"
    assert [score["deployment"] for score in answer["scores"]] == ["bj-a", "bj-b", "gz-a"]
    assert answer["scores"][0]["price"] == 0
    assert answer["replayed"] is False


def test_why_a_call_went_there_can_be_asked_later(world: World) -> None:
    world.route("c1")
    world.report("c1", "bj-a", "error", detail="connection reset")
    routed, served = world.app.call(Call(operator="beijing", call="c1"))["events"]
    assert (routed["kind"], routed["deployment"], routed["account"]) == ("CallRouted", "bj-a", "alice")
    assert (served["kind"], served["outcome"], served["detail"]) == ("CallServed", "error", "connection reset")


def test_a_report_records_who_served_the_call(world: World) -> None:
    world.route("c1", residency=["cn-gz"])
    answer = world.report("c1", "gz-a", usage={"input": 10, "output": 5}, ttft_ms=120)
    assert (answer["serving_operator"], answer["model"], answer["version"]) == ("guizhou", "alpha", 2)
    assert answer["usage"] == {"input": 10, "output": 5}


# --- one request, one decision -----------------------------------------------------------------
def test_the_same_route_twice_is_one_decision_and_one_lease(world: World) -> None:
    first = world.route("c1")
    second = world.route("c1")
    assert second == first | {"replayed": True}
    assert world.seen("bj-a")["calls"] == 1
    assert len(world.events()) == 1


def test_a_replay_answers_as_then_whatever_has_happened_since(world: World) -> None:
    first = world.route("c1")
    fail(world, "bj-a")
    world.restart()
    assert world.route("c1") == first | {"replayed": True}


def test_the_same_call_for_something_else_is_refused(world: World) -> None:
    world.route("c1")
    with pytest.raises(IdempotencyConflict):
        world.route("c1", tokens=7)
    assert len(world.events()) == 1


def test_the_same_report_twice_counts_once(world: World) -> None:
    world.route("c1")
    first = world.report("c1", "bj-a", "error")
    assert world.report("c1", "bj-a", "error") == first | {"replayed": True}
    assert world.seen("bj-a")["consecutive_failures"] == 1


def test_two_different_reports_of_one_call_are_refused(world: World) -> None:
    world.route("c1")
    world.report("c1", "bj-a", "error")
    with pytest.raises(IdempotencyConflict):
        world.report("c1", "bj-a", "ok")


def test_calls_of_two_operators_do_not_meet(world: World) -> None:
    world.publish([c.RateCard(operator="guizhou", model="alpha", rates=RETAIL)])
    world.route("c1")
    other = world.route("c1", operator="guizhou")
    assert (other["deployment"], other["replayed"], other["version"]) == ("gz-a", False, 1)


# --- routing again -----------------------------------------------------------------------------
def test_after_a_failure_the_call_is_routed_again_without_the_failed_deployment(world: World) -> None:
    world.route("c1")
    world.report("c1", "bj-a", "error")
    again = world.route("c1", exclude=["bj-a"])
    assert (again["deployment"], again["version"], again["replayed"]) == ("bj-b", 3, False)
    assert {"deployment": "bj-a", "reason": "excluded"} in again["rejected"]


def test_routing_again_is_itself_a_request(world: World) -> None:
    world.route("c1")
    again = world.route("c1", exclude=["bj-a", "bj-b"])
    assert world.route("c1", exclude=["bj-b", "bj-a", "bj-a"]) == again | {"replayed": True}


def test_routing_again_gives_back_the_first_place(world: World) -> None:
    world.route("c1")
    world.route("c1", exclude=["bj-a"])
    assert (world.seen("bj-a")["calls"], world.seen("bj-b")["calls"]) == (0, 1)


def test_a_route_that_excludes_before_one_that_does_not(world: World) -> None:
    world.route("c1", exclude=["bj-a"])
    world.restart()
    world.app.room.calls.clear()  # as if long ago: only the log knows that the call exists
    plain = world.route("c1")
    assert (plain["version"], plain["deployment"]) == (2, "bj-a")
    assert world.seen("bj-a")["calls"] == 1


def test_a_fallback_may_be_used_and_reported_without_asking_again(world: World) -> None:
    world.route("c1")
    world.report("c1", "bj-a", "error")
    assert world.report("c1", "gz-a", "ok")["serving_operator"] == "guizhou"


def test_a_call_that_ended_at_a_fallback_holds_no_place(world: World) -> None:
    world.route("c1")
    world.report("c1", "bj-b", "ok")
    assert world.seen("bj-a")["calls"] == 0


# --- health and capacity -----------------------------------------------------------------------
def fail(world: World, name: str, outcome: str = "error", count: int = 5) -> None:
    others = [d for d in ("bj-a", "bj-b", "gz-a") if d != name]
    for n in range(count):
        call = f"fail-{name}-{world.app.log.head()}-{n}"
        world.route(call, exclude=others)
        world.report(call, name, outcome)


def test_failing_deployments_are_really_taken_out(world: World) -> None:
    fail(world, "bj-a")
    answer = world.route("c1")
    assert answer["deployment"] == "bj-b"
    assert "bj-a" not in answer["fallbacks"]
    assert {"deployment": "bj-a", "reason": "circuit-open"} in answer["rejected"]


def test_429_is_load_and_not_failure(world: World) -> None:
    fail(world, "bj-a", outcome="throttled", count=50)
    answer = world.route("c1")
    assert answer["deployment"] == "bj-b"
    assert "bj-a" in answer["fallbacks"]
    assert world.seen("bj-a")["circuit"] == "closed"


def test_after_the_cooldown_one_call_probes_and_its_success_brings_the_deployment_back(world: World) -> None:
    fail(world, "bj-a")
    world.clock.advance(5)
    assert world.route("probe")["deployment"] == "bj-a"
    assert world.route("meanwhile")["deployment"] == "bj-b"
    world.report("probe", "bj-a", "ok")
    assert world.route("after")["deployment"] == "bj-a"


def test_a_probe_that_is_routed_on_before_it_is_reported_still_decides(world: World) -> None:
    fail(world, "bj-a")
    world.clock.advance(5)
    world.route("probe")
    world.route("probe", exclude=["bj-a"])
    world.report("probe", "bj-a", "error")
    assert world.seen("bj-a")["circuit"] == "open"


def test_a_failed_probe_waits_longer(world: World) -> None:
    fail(world, "bj-a")
    world.clock.advance(5)
    world.route("probe")
    world.report("probe", "bj-a", "error")
    world.clock.advance(9)
    assert world.seen("bj-a")["circuit"] == "open"
    world.clock.advance(1)
    assert world.seen("bj-a")["circuit"] == "half-open"


def test_capacity_is_shared_out_within_a_batch(tmp_path: Path) -> None:
    items = [i for i in market() if not isinstance(i, c.Deployment)]
    items += [deployment("bj-a", "beijing", concurrent_calls=2), deployment("bj-b", "beijing", concurrent_calls=1)]
    world = World(tmp_path, items)
    answers = world.app.execute([route_of(f"c{n}") for n in range(4)])
    assert [a["ok"]["deployment"] for a in answers[:3]] == ["bj-a", "bj-b", "bj-a"]
    assert answers[3]["error"]["code"] == "NoDeployment"
    assert {r["reason"] for r in answers[3]["error"]["details"]["rejected"]} == {"calls-exhausted"}
    world.close()


def test_a_crashed_callers_place_comes_back(tmp_path: Path) -> None:
    items = [i for i in market() if not isinstance(i, c.Deployment)]
    world = World(tmp_path, [*items, deployment("bj-a", "beijing", concurrent_calls=1)])
    world.route("crashes", lease_s=30)
    world.clock.advance(29)
    with pytest.raises(NoDeployment):
        world.route("c1")
    world.clock.advance(1)
    assert world.route("c1")["deployment"] == "bj-a"
    world.close()


def test_a_refused_route_leaves_nothing(world: World) -> None:
    with pytest.raises(NoDeployment):
        world.route("c1", residency=["moon"])
    assert world.events() == []
    assert world.route("c1")["version"] == 1


# --- the catalogue moves -----------------------------------------------------------------------
def test_a_price_takes_effect_at_its_instant_without_a_restart(world: World) -> None:
    dearer = c.RateCard(operator="beijing", model="alpha", rates=msgspec.structs.replace(RETAIL, output=5_000))
    world.publish([dearer], version=2, effective_from=START + timedelta(seconds=10))
    assert world.route("before")["rate_card"] == "beijing/alpha@1"
    world.clock.advance(10)
    after = world.route("after")
    assert (after["rate_card"], after["rates"]["output"]) == ("beijing/alpha@2", 5_000)


def test_a_call_of_the_past_has_the_price_of_the_past(world: World) -> None:
    dearer = c.RateCard(operator="beijing", model="alpha", rates=RETAIL)
    world.publish([dearer], version=2, effective_from=START)
    world.route("now")
    late = world.route("late", occurred_at=(START - timedelta(hours=1)).isoformat())
    assert late["rate_card"] == "beijing/alpha@1"


def test_a_new_deployment_is_used_at_once(world: World) -> None:
    world.route("c1")
    world.publish([deployment("bj-0", "beijing")])
    assert world.route("c2")["deployment"] == "bj-0"


def test_surveys_in_memory_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "MARKETS_MAX", 2)
    for n, region in enumerate(["", "beijing-region", "guizhou-region", ""]):
        world.route(f"c{n}", region=region)
    assert len(world.app.room._markets) <= 2
