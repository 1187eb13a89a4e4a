"""Input that means harm: names that are taken, amounts beyond counting, the ends of time, text that is no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.quota.schemas import QUERIES
from shared.contracts import quota as q
from shared.contracts.base import COMMANDS
from shared.contracts.catalog import Model, ModelPublished
from shared.contracts.schema import parse
from shared.errors import MalformedCommand
from shared.units import AMOUNT_MAX
from tests.auditing import audit
from tests.unit.quota_world import CATALOGUE, OPERATOR, START, World, catalogue_page

MILLION: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 1000}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_grant_can_be_named_as_the_credit_limit_is(world: World) -> None:
    """Else its points would be drawn from the credit limit, and never used up."""
    world.open()
    assert world.refusal("grant", request_id=q.CREDIT, amount=1_000_000, source="purchase") == "MalformedCommand"


def reversal_of_an_ended_grant(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=1_000_000, source="purchase")
    world.do("debit", request_id="d", **MILLION)
    world.do("void_grant", grant="g")


def test_a_reversal_never_gives_a_grant_the_name_of_another(world: World) -> None:
    reversal_of_an_ended_grant(world)
    world.do("grant", request_id="v/0", amount=7, source="purchase")
    world.do("reverse", request_id="v", debit="d")
    assert {n: g["available"] for n, g in world.grant_books().items()} == {"g": 0, "v/0": 7, "v/1": 1_000_000}
    assert world.do("debit", **MILLION)["draws"] == [["v/0", 7], ["v/1", 999_993]]
    assert world.balance()["available"] == 7
    audit(world.app, catalogue_page())


def test_no_grant_takes_the_name_that_a_reversal_gave(world: World) -> None:
    reversal_of_an_ended_grant(world)
    world.do("reverse", request_id="v", debit="d")
    assert world.refusal("grant", request_id="v/0", amount=7, source="purchase") == "IdempotencyConflict"


def test_an_event_of_the_sweep_hides_no_debit_of_the_same_name_in_the_same_batch(world: World) -> None:
    world.open(points=10_000_000)
    world.do("debit", request_id="c/0", **MILLION)
    world.do("grant", request_id="g", amount=1_000_000, source="purchase", priority=0)
    world.do("debit", request_id="d", **MILLION)
    world.do("void_grant", grant="g")
    named = {"operator": OPERATOR, "account": "a1"}
    answers = world.app.execute(
        [
            {"command": "reverse", "request_id": "c", "debit": "d", **named},  # makes a grant c/0
            {"command": "reverse", "request_id": "v", "debit": "c/0", **named},
        ]
    )
    assert ["ok" in answer for answer in answers] == [True, True]


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("extend", {"reservation": "h", "amount": AMOUNT_MAX}),
        ("debit", {"model": "kimi-k2.5", "usage": {"output": 10**9}, "on_insufficient": "overdraw"}),
        ("settle", {"reservation": "h", "usage": {"output": 10**9}}),
        ("reverse", {"debit": "d"}),
    ],
)
def test_no_event_gets_an_amount_that_its_readers_would_refuse(
    world: World, monkeypatch: pytest.MonkeyPatch, command: str, fields: dict[str, Any]
) -> None:
    """What no reader accepts could never be read again: neither the account nor the log behind it."""
    world.open(points=AMOUNT_MAX, credit_limit=AMOUNT_MAX)
    world.do("debit", request_id="d", **MILLION)
    world.do("grant", amount=1_000_000, source="purchase")
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=AMOUNT_MAX)
    price = type(world.app.catalogue.view.rate_card(OPERATOR, "kimi-k2.5", START)[1].rates).price
    monkeypatch.setattr("shared.contracts.base.Rates.price", lambda rates, usage: 10**4 * price(rates, usage))
    assert world.refusal(command, **fields) == "LimitExceeded"


def test_no_hold_is_beyond_counting_either(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=AMOUNT_MAX, credit_limit=AMOUNT_MAX)
    monkeypatch.setattr("shared.contracts.base.Rates.price", lambda *_: AMOUNT_MAX + 1)
    assert world.refusal("reserve", model="kimi-k2.5", max_usage={"input": 1}) == "LimitExceeded"


def test_owing_is_bounded_over_many_debits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open()
    monkeypatch.setattr("shared.contracts.base.Rates.price", lambda *_: AMOUNT_MAX // 2)
    for expected in ("done", "done", "LimitExceeded"):
        assert world.refusal("debit", on_insufficient="overdraw", **MILLION) == expected
    assert world.balance()["overdrawn"] == AMOUNT_MAX - AMOUNT_MAX % 2


@pytest.mark.parametrize("instant", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
@pytest.mark.parametrize(("query", "field"), [("sweep", "until"), ("balance", "at"), ("grant", "effective_at")])
def test_the_ends_of_time_are_refused(query: str, field: str, instant: str) -> None:
    """They cannot be converted to every zone, nor kept by every database."""
    fields: dict[str, Any] = {"operator": OPERATOR}
    if query != "sweep":
        fields |= {"account": "a1"}
    if query == "grant":
        fields |= {"request_id": "g", "amount": 1, "source": "purchase"}
    struct = COMMANDS["quota"].get(query) or QUERIES[query]
    parse(struct, fields | {field: "2026-01-01T00:00:00Z"})
    with pytest.raises(MalformedCommand) as refused:
        parse(struct, fields | {field: instant})
    assert list(refused.value.details["fields"]) == [field]


def test_a_reversal_to_a_grant_of_the_longest_term_ends_with_the_calendar(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=1_000_000, source="purchase", expires_at="9999-12-29T00:00:00Z")
    world.do("debit", request_id="d", **MILLION)
    world.do("void_grant", grant="g")
    world.clock.advance(7 * 86_400)
    world.do("reverse", request_id="v", debit="d")
    assert world.grant_books()["v/0"]["expires_at"].startswith("9999-12-30")


def test_a_grant_cannot_have_expired_when_it_is_given(world: World) -> None:
    world.open()
    assert world.refusal("grant", amount=1, source="purchase", expires_at="2026-05-01T00:00:00Z") == "MalformedCommand"


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
def test_text_that_a_database_cannot_keep_is_refused(world: World, text: str) -> None:
    world.open()
    assert world.refusal("suspend", reason=text) == "MalformedCommand"


def test_a_model_retired_meanwhile_still_settles_the_calls_it_served(world: World) -> None:
    world.open(points=10_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=1_000_000)
    retired = ("model", ModelPublished, Model(model="kimi-k2.5", family="kimi", developer="Moonshot", status="retired"))
    world.app.follow_catalog([e._asdict() for e in catalogue_page((*CATALOGUE, retired))])
    assert world.refusal("reserve", model="kimi-k2.5", amount=1) == "UnknownModel"
    world.do("extend", reservation="h", amount=1)
    assert world.do("settle", reservation="h", usage={"input": 10})["amount"] == 10_000
