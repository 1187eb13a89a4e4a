"""Burn-down order and the precedence of refusals, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared import errors
from tests.unit.quota_world import OPERATOR, World

JULY, AUGUST = "2026-07-01T00:00:00Z", "2026-08-01T00:00:00Z"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("grants", "order"),
    [
        ([("old", {}), ("new", {})], ["old", "new"]),
        ([("late", {"expires_at": AUGUST}), ("soon", {"expires_at": JULY})], ["soon", "late"]),
        ([("never", {}), ("soon", {"expires_at": JULY})], ["soon", "never"]),
        ([("soon", {"expires_at": JULY}), ("first", {"priority": 1})], ["first", "soon"]),
        ([("other", {"scope": {"families": ["deepseek"]}}), ("mine", {"scope": {"models": ["kimi-k2.5"]}})], ["mine"]),
        ([("later", {"effective_at": JULY}), ("now", {})], ["now"]),
    ],
)
def test_burn_down(world: World, grants: list[tuple[str, dict[str, Any]]], order: list[str]) -> None:
    world.open(credit_limit=1_000_000)
    for name, fields in grants:
        world.do("grant", request_id=name, amount=100_000, source="purchase", **fields)
    debit = world.do("debit", model="kimi-k2.5", usage={"input": 500})
    assert [grant for grant, _ in debit["draws"]] == [*order, "credit"]


def test_a_grant_whose_points_are_held_is_passed_over(world: World) -> None:
    world.open()
    world.do("grant", request_id="first", amount=100_000, source="purchase")
    world.do("grant", request_id="second", amount=100_000, source="purchase")
    world.do("reserve", model="kimi-k2.5", amount=100_000)
    debit = world.do("debit", model="kimi-k2.5", usage={"input": 50})
    assert [tuple(draw) for draw in debit["draws"]] == [("second", 50_000)]


# Each case breaks several rules at once; the earliest in the order of precedence is named.
PRECEDENCE: list[tuple[str, dict[str, Any]]] = [
    ("MalformedCommand", {"account": "no such", "model": "unknown", "amount": -1}),
    ("UnknownAccount", {"account": "nobody", "model": "unknown", "amount": 10**15}),
    ("IdempotencyConflict", {"account": "closed", "request_id": "g-closed", "model": "unknown", "amount": 1}),
    ("AccountClosed", {"account": "closed", "model": "unknown", "amount": 10**15}),
    ("AccountSuspended", {"account": "suspended", "model": "unknown", "amount": 10**15}),
    ("UnknownModel", {"account": "open", "model": "unknown", "amount": 10**15}),
    ("NoRateInForce", {"account": "open", "model": "unpriced", "amount": 10**15}),
    ("InsufficientQuota", {"account": "open", "model": "kimi-k2.5", "amount": 10**15}),
]


@pytest.mark.parametrize(("code", "fields"), PRECEDENCE)
def test_precedence_of_refusals(world: World, code: str, fields: dict[str, Any]) -> None:
    for account in ("open", "closed", "suspended"):
        world.open(account, points=1_000_000)
    world.do("close_account", "closed")
    world.do("suspend", "suspended")
    assert world.refusal("reserve", **fields) == code


def test_the_table_above_is_in_the_published_order() -> None:
    published = [error.__name__ for error in errors.PRECEDENCE]
    codes = [code for code, _ in PRECEDENCE]
    assert codes == sorted(codes, key=published.index)


def test_a_suspended_account_may_end_what_it_began(world: World) -> None:
    world.open(points=10_000_000)
    for name in ("h1", "h2"):
        world.do("reserve", request_id=name, model="kimi-k2.5", amount=1_000_000)
    world.do("suspend", reason="lost card")
    assert world.refusal("extend", reservation="h1", amount=1) == "AccountSuspended"
    world.do("settle", reservation="h1", usage={"input": 10})
    world.do("release", reservation="h2")
    world.do("resume")
    world.do("reserve", model="kimi-k2.5", amount=1)


def test_every_bad_field_is_named(world: World) -> None:
    with pytest.raises(errors.MalformedCommand) as refused:
        world.do("reserve", request_id="has space", model="Kimi!", max_usage={"input": -1, "speed": 3}, colour="red")
    assert set(refused.value.details["fields"]) == {
        "request_id",
        "model",
        "max_usage.input",
        "max_usage.speed",
        "colour",
    }


@pytest.mark.parametrize("occurred_at", ["2026-04-01T00:00:00Z", "2026-06-01T00:02:00Z", "yesterday", 5, "2026-06-01"])
def test_a_command_cannot_come_from_the_far_past_or_the_future(world: World, occurred_at: object) -> None:
    world.open()
    assert world.refusal("suspend", occurred_at=occurred_at) == "MalformedCommand"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"operator": "nobody"}, "UnknownOperator"),
        ({"plan": "no-such-plan"}, "UnknownPlan"),
    ],
)
def test_an_account_is_opened_at_a_known_operator_on_a_known_plan(
    world: World, command: dict[str, str], code: str
) -> None:
    with pytest.raises(errors.TokengridError) as refused:
        world.app.submit("open_account", {"operator": OPERATOR, "account": "x", "request_id": "r", **command})
    assert refused.value.code == code


def test_an_account_never_holds_more_than_a_json_reader_can_count(world: World) -> None:
    world.open(points=9 * 10**15)
    assert world.refusal("grant", amount=1, source="purchase") == "LimitExceeded"
