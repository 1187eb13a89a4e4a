"""Malformed, hostile and too much input to routing: refused by its field, and nothing is changed; batches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.routing.schemas import Call
from shared.contracts.schema import parse
from shared.errors import (
    LimitExceeded,
    MalformedCommand,
    UnknownCall,
    UnknownModel,
)
from tests.unit.routing_world import START, World, route_fields, route_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"operator": "Bei Jing"}, "operator"),
        ({"call": ""}, "call"),
        ({"call": "x" * 129}, "call"),
        ({"call": "a\tb"}, "call"),
        ({"account": 7}, "account"),
        ({"model": "alpha\n"}, "model"),
        ({"tokens": -1}, "tokens"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"tokens": 10**30}, "tokens"),
        ({"lease_s": 0}, "lease_s"),
        ({"lease_s": 3601}, "lease_s"),
        ({"residency": "cn"}, "residency"),
        ({"exclude": ["bj-a", "../etc"]}, "exclude.1"),
        ({"price_cap": -1}, "price_cap"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": "2026-06-18T04:00:00"}, "occurred_at"),
        ({"occurred_at": (START + timedelta(seconds=61)).isoformat()}, "occurred_at"),
        ({"occurred_at": (START - timedelta(days=36)).isoformat()}, "occurred_at"),
        ({"region": "atlantis"}, "region"),
        ({"priority": 1}, "priority"),
    ],
)
def test_a_malformed_route_is_refused_by_field(world: World, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedCommand) as refused:
        world.app.submit("route", route_fields("c1") | changes)
    assert field in refused.value.details["fields"]
    assert world.events() == []


def test_more_exclusions_than_allowed_are_refused(world: World) -> None:
    with pytest.raises(MalformedCommand):
        world.route("c1", exclude=[f"d{n}" for n in range(17)])


@pytest.mark.parametrize(
    ("call", "name"),
    [("never", "bj-a"), ("c1", "nx-a"), ("c1", "nowhere")],
    ids=["call", "not-routed-there", "nowhere"],
)
def test_a_report_of_what_was_not_routed_is_refused(world: World, call: str, name: str) -> None:
    world.route("c1")
    with pytest.raises(UnknownCall):
        world.report(call, name, "error")
    assert len(world.events()) == 1


def test_a_question_after_an_unknown_call_is_refused(world: World) -> None:
    with pytest.raises(UnknownCall):
        world.app.call(Call(operator="beijing", call="never"))


@pytest.mark.parametrize("query", [{"operator": "beijing"}, {"operator": "beijing", "call": "c", "more": 1}])
def test_a_malformed_question_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(MalformedCommand):
        parse(Call, query)


def test_a_batch_answers_each_for_itself(world: World) -> None:
    report = {"command": "report", "operator": "beijing", "call": "c1", "deployment": "bj-a", "outcome": "ok"}
    answers = world.app.execute(
        [
            route_of("c1"),
            report,
            7,
            {"command": "drop"},
            {"command": ["route"]},
            route_of("c2", model="?"),
            route_of("c1"),
        ]
    )
    assert [a.get("error", {}).get("code", "ok") for a in answers] == [
        "ok",
        "ok",
        "MalformedCommand",
        "MalformedCommand",
        "MalformedCommand",
        "MalformedCommand",
        "ok",
    ]
    assert answers[6]["ok"]["replayed"] is True
    assert len(world.events()) == 2


@pytest.mark.parametrize("commands", [None, {}, "route", 5])
def test_a_batch_that_is_no_list_is_refused(world: World, commands: Any) -> None:
    with pytest.raises(MalformedCommand):
        world.app.execute(commands)


def test_a_batch_is_bounded(world: World) -> None:
    with pytest.raises(LimitExceeded):
        world.app.execute([{}] * (world.settings.batch_max + 1))


def test_unknown_models_leave_nothing_in_memory(world: World) -> None:
    for n in range(20):
        with pytest.raises(UnknownModel):
            world.route(f"c{n}", model=f"m{n}")
    assert world.app.room._markets == {}
    assert len(world.app.room.calls) == 0
