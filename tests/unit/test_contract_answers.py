"""Answers are what is published: those of real services, after two months of business, in their JSON form."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
import pytest

from services.catalog.schemas import ITEMS
from shared.config import SERVICES
from shared.contracts.answers import LOG_METHODS, RecordedEvent
from shared.contracts.base import EVENTS
from shared.contracts.methods import Method, receipt_of
from shared.contracts.schema import field_of
from tests.unit.answers_asked import ASKED, BEFORE_ANYTHING, answers
from tests.unit.answers_world import OWNER, WITNESS, Fields, Services
from tests.unit.audit_world import EAST, Market, two_months

SEED = 20260618
METHODS: dict[str, Method] = {
    f"{service}.{method.name}": method
    for service in SERVICES
    for method in (*importlib.import_module(f"services.{service}.schemas").METHODS, *LOG_METHODS)
}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    witnesses = (str(WITNESS.verifier),)
    market = two_months(tmp_path_factory.mktemp("market"), SEED, events=60, witness_keys=witnesses)
    made = Services(market)
    policy = {"operator": EAST, "preferred": [EAST]}
    imported = {"package": "p", "package_version": "1", "content_sha256": "0", "fen_per_usd": 700, "priced": 2}
    made.ask(
        "catalog.publish",
        request_id="policy",
        effective_from=market.clock.now.isoformat(),
        catalogue={"policies": [policy]},
        imported={**imported, "unpriced": ["gamma"]},
    )
    for _ in range(12):
        market.happen()
    market.follow()
    market.clock.now = max(market.clock.now, datetime(2026, 9, 2, tzinfo=UTC))
    yield made
    market.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    market = Market(tmp_path_factory.mktemp("empty"), SEED)
    yield Services(market)
    market.close()


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_is_as_published(services: Services, name: str) -> None:
    for answer in answers(services, name):
        METHODS[name].answer_field().deserialize(answer)


@pytest.mark.parametrize("name", BEFORE_ANYTHING)
def test_an_answer_is_as_published_before_anything_has_happened(empty: Services, name: str) -> None:
    if name == "billing.settle_period":
        empty.market.clock.now = datetime(2026, 8, 2, tzinfo=UTC)
    METHODS[name].answer_field().deserialize(empty.ask(name, **BEFORE_ANYTHING[name]))


def spoiled(field: ma.fields.Field[Any], answer: Any) -> Iterator[tuple[str, Any]]:
    """An answer without one of its required fields, or with one too many, at every depth; and where that is."""
    match field:
        case ma.fields.Nested():
            schema = field.schema
            for name, inner in schema.fields.items():
                if inner.required:
                    yield f"without {name}", {k: v for k, v in answer.items() if k != name}
                if answer.get(name) is not None:
                    for where, value in spoiled(inner, answer[name]):
                        yield f"{name}: {where}", {**answer, name: value}
            if schema.unknown == ma.RAISE:
                yield "with a surplus field", {**answer, "surplus": 1}
        case ma.fields.List() if answer:
            for where, value in spoiled(field.inner, answer[0]):
                yield f"0: {where}", [value, *answer[1:]]
        case ma.fields.Dict() if answer:
            key = next(iter(answer))
            for where, value in spoiled(field.value_field, answer[key]):
                yield f"{key}: {where}", {**answer, key: value}
        case ma.fields.Integer():
            yield "as text", str(answer)


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_that_lacks_a_field_or_has_one_too_many_is_refused(services: Services, name: str) -> None:
    field = METHODS[name].answer_field()
    tried = 0
    for answer in answers(services, name)[:2]:
        for where, bad in spoiled(field, answer):
            tried += 1
            with pytest.raises(ma.ValidationError):
                pytest.fail(f"{where} is let through: {field.deserialize(copy.deepcopy(bad))}")
    assert tried >= 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [("quota.statement", OWNER), ("quota.statement", {"operator": EAST, "account": "e3"})],
)
def test_an_event_in_an_account_statement_is_that_of_its_kind(services: Services, name: str, asked: Fields) -> None:
    for event in services.ask(name, **asked)["events"]:
        _of_its_kind("quota", event)


def test_the_event_that_is_found_is_that_of_its_kind(services: Services) -> None:
    _of_its_kind("quota", services.ask("quota.find", **services.debited(), name="d")["event"])


def test_an_event_in_a_calls_history_is_that_of_its_kind(services: Services) -> None:
    call = services.routed()
    services.ask("routing.report", **call, outcome="ok")
    del call["deployment"]
    for event in services.ask("routing.call", **call)["events"]:
        _of_its_kind("routing", event)


def _of_its_kind(service: str, event: Mapping[str, Any]) -> None:
    kind = EVENTS[f"{service}.{event['kind']}:1"]
    field_of(receipt_of(kind, RecordedEvent)).deserialize(event)


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith(".execute")])
def test_what_a_batch_accepts_is_answered_as_by_its_own_method(services: Services, name: str) -> None:
    service = name.partition(".")[0]
    (asked,) = ASKED[name](services)  # type: ignore[operator]
    accepted, refused = services.ask(name, **asked)
    METHODS[f"{service}.{asked['commands'][0]['command']}"].answer_field().deserialize(accepted["ok"])
    assert refused["error"]["code"] == "MalformedCommand"


@pytest.mark.parametrize("kind", ITEMS)
def test_a_version_in_an_items_history_is_that_of_its_kind(services: Services, kind: Any) -> None:
    listed = services.ask({"policy": "catalog.policies"}.get(kind, f"catalog.{kind}s"))
    versions = services.ask("catalog.history", kind=kind, key=listed[0]["key"])
    assert versions
    for version in versions:
        field_of(ITEMS[kind]).deserialize(version)
