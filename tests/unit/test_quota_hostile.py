"""Input that means harm: names that are taken, amounts beyond counting, the ends of time, text that is no text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from services.quota.schemas import QUERIES, Balances
from shared.contracts import quota as q
from shared.contracts.base import COMMANDS
from shared.contracts.catalog import Model
from shared.contracts.schema import parse
from shared.errors import MalformedCommand, TokengridError
from shared.messaging import codec
from shared.units import AMOUNT_MAX
from tests.unit.quota_world import OPERATOR, START, World
from tests.unit.test_quota_properties import check_grants, check_log, check_row

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
    check_grants(world.app.accounts.account(f"{OPERATOR}/a1"))


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
    model = world.app.catalogue.view.versions(Model, "kimi-k2.5")[0]
    retired = msgspec.structs.replace(model.item, status="retired")
    world.app.catalogue.view._kinds["Model"]["kimi-k2.5"].append(model._replace(number=2, item=retired))
    assert world.refusal("reserve", model="kimi-k2.5", amount=1) == "UnknownModel"
    world.do("extend", reservation="h", amount=1)
    assert world.do("settle", reservation="h", usage={"input": 10})["amount"] == 10_000


# --- anything at all -------------------------------------------------------------------------------
ODD: list[Any] = [
    *(None, True, 0, -1, 1, 1.5, float("nan"), AMOUNT_MAX, AMOUNT_MAX + 1, 2**63, 10**30, 10**9, 86_401),
    *("", " ", "\ud800", "\x00", "é", "a" * 129, "credit", "h", "d", "v/0", "/", OPERATOR, "kimi-k2.5", "a1"),
    *("2026-06-01T00:00:00Z", "2026-06-01T08:00:00+08:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"),
    *([], {}, [[]], {"input": 10**9, "output": 10**9}, {"input": 5}, {"\ud800": 1}, {1: 2}, b"x", object),
]
LIKELY: dict[str, Callable[[Random], Any]] = {
    "operator": lambda _: OPERATOR,
    "account": lambda d: d.choice(["a1", "a2"]),
    "request_id": lambda d: f"r{d.randrange(300)}",
    "amount": lambda d: d.randrange(1, 10**7),
    "source": lambda _: "purchase",
    "model": lambda _: "kimi-k2.5",
    "max_usage": lambda d: {"output": d.randrange(500)},
    "usage": lambda d: {"input": d.randrange(500)},
    "ttl_s": lambda d: d.randrange(1, 90),
    "on_insufficient": lambda d: d.choice(["refuse", "overdraw"]),
}


def any_fields(dice: Random, struct: type[msgspec.Struct], oddness: float) -> dict[Any, Any]:
    fields: dict[Any, Any] = {}
    for field in msgspec.structs.fields(struct):
        if field.required or dice.random() < 0.2:
            likely = LIKELY.get(field.name, LIKELY["request_id"])
            fields[field.name] = dice.choice(ODD) if dice.random() < oddness else likely(dice)
    return fields


@pytest.mark.parametrize("oddness", [0.02, 0.4])
def test_whatever_comes_in_is_answered_or_refused_by_code_and_the_books_balance(
    world: World, seed: int, oddness: float
) -> None:
    dice = Random(seed)
    world.open("a1", points=10**9)
    world.open("a2", credit_limit=10**9)
    commands = [name for name in COMMANDS["quota"] if name != "close_account"]
    for _ in range(2500):
        world.clock.advance(dice.random())
        name = dice.choice([*commands, *QUERIES])
        struct = COMMANDS["quota"].get(name) or QUERIES[name]
        fields = any_fields(dice, struct, oddness)
        try:
            if name in QUERIES:
                answer = getattr(world.app, name)(parse(struct, fields))
            elif dice.random() < 0.5:
                answer = world.app.submit(name, fields)
            else:
                answer = world.app.execute([{"command": name, **fields}, dice.choice(ODD)])
            codec.encode(answer)
        except TokengridError as refusal:
            codec.encode(refusal.as_dict())
    events = world.app.log.read(0, 5000)
    check_log(events)
    world.app.follow_quota([e._asdict() for e in events])
    for row in world.app.balances(Balances())["accounts"]:
        account = world.app.accounts.account(f"{OPERATOR}/{row['account']}")
        check_grants(account)
        check_row(account, row)
