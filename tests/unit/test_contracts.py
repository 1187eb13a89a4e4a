"""The published language: every struct has a schema, every method is listed, old events are upcast."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
import msgspec
import pytest

from shared.config import SERVICES
from shared.contracts import base, quota
from shared.contracts.answers import LOG_METHODS
from shared.contracts.methods import Method
from shared.contracts.schema import FIELDS_REPORTED_MAX, parse, schema_of
from shared.errors import MalformedCommand, TokengridError, catalogue
from shared.messaging.lane import Lane
from shared.messaging.rpc import Rpc

for _service in SERVICES:
    importlib.import_module(f"services.{_service}.schemas")

STRUCTS = [*base.EVENTS.values(), *(c for commands in base.COMMANDS.values() for c in commands.values())]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_every_event_and_command_has_a_marshmallow_schema(struct: type[msgspec.Struct]) -> None:
    schema = schema_of(struct)()
    assert set(schema.fields) == {field.name for field in msgspec.structs.fields(struct)}
    for field in msgspec.structs.fields(struct):
        assert schema.fields[field.name].required == field.required


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda s: s.__name__)
def test_schema_and_decoder_agree_that_nothing_is_not_enough(struct: type[msgspec.Struct]) -> None:
    required = any(field.required for field in msgspec.structs.fields(struct))
    assert bool(schema_of(struct)().validate({})) == required


@pytest.mark.parametrize("service", SERVICES)
def test_the_published_methods_are_those_of_the_service(service: str) -> None:
    methods: tuple[Method, ...] = importlib.import_module(f"services.{service}.schemas").METHODS
    module = importlib.import_module(f"services.{service}.service")
    (cls,) = [c for c in vars(module).values() if isinstance(c, type) and getattr(c, "name", None) == service]
    served: set[str] = set()
    for name in dir(cls):
        for entrypoint in getattr(getattr(cls, name), "nameko_entrypoints", ()):
            if isinstance(entrypoint, Rpc):
                served.add(name)
            elif isinstance(entrypoint, Lane):
                served.update(entrypoint.methods)
    assert {m.name for m in (*methods, *LOG_METHODS)} == served


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_method_takes_is_refused_by_the_methods_name(service: str) -> None:
    methods: tuple[Method, ...] = importlib.import_module(f"services.{service}.schemas").METHODS
    named = {method.name: method.takes.NAME for method in methods if method.takes is not None}
    named.pop("check", None)  # takes what `publish` takes
    assert [name for name, own in named.items() if own != name] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_answer_has_a_marshmallow_schema(service: str) -> None:
    for method in (*importlib.import_module(f"services.{service}.schemas").METHODS, *LOG_METHODS):
        field = method.answer_field()
        one = field.inner if isinstance(field, ma.fields.List) else field
        assert isinstance(one, ma.fields.Nested) or method.name == "head", method.name
        if isinstance(one, ma.fields.Nested):
            assert one.schema.unknown == ma.RAISE, method.name
            assert one.schema.fields, method.name


@pytest.mark.parametrize("service", SERVICES)
def test_a_command_is_answered_by_a_receipt_or_an_answer_of_its_own(service: str) -> None:
    for method in importlib.import_module(f"services.{service}.schemas").METHODS:
        assert issubclass(method.answer, base.Answer) or issubclass(method.receipt, base.Answer), method.name


@pytest.mark.parametrize("service", SERVICES)
def test_every_command_of_a_service_is_a_method(service: str) -> None:
    methods = importlib.import_module(f"services.{service}.schemas").METHODS
    assert set(base.COMMANDS.get(service, {})) <= {m.name for m in methods}


HOSTILE: list[Any] = [
    None,
    5,
    [],
    "reserve",
    {"operator": None},
    {"max_usage": {"input": "1"}},
    {"max_usage": [1]},
    {"ttl_s": 10**30},
    {"model": "x" * 10**6},
    {"model": "\ud800"},
    {"amount": float("nan")},
    {"amount": True},
    {1: 2},
    {"occurred_at": "2026-13-45T99:99:99Z"},
    {f"field{n}": n for n in range(10_000)},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_is_malformed_is_refused_and_named_within_bounds(fields: Any) -> None:
    with pytest.raises(MalformedCommand) as refused:
        parse(quota.Reserve, fields)
    named = refused.value.details["fields"]
    assert 0 < len(named) <= FIELDS_REPORTED_MAX + 1
    assert len(str(refused.value.args)) < 100_000


def test_deep_nesting_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"scope": deep}
    with pytest.raises(MalformedCommand):
        parse(quota.Grant, {"operator": "o", "account": "a", "request_id": "r", "amount": 1, "scope": deep})


def test_an_event_survives_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    event = quota.GrantVoided(at=NOW, recorded_at=NOW, request_id="r", grant="g", amount=5, reason="多谢")
    assert base.decode_event(event.TOPIC, base.encode_event(event)) == event


def test_an_old_event_is_upcast_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_UPCASTS", {})
    base.upcast("quota.GrantVoided:-1", "quota.GrantVoided:0", lambda old: {**old, "grant": old["lot"]})
    base.upcast("quota.GrantVoided:0", "quota.GrantVoided:1", lambda old: {**old, "amount": old["points"] * 1000})
    stored = b'{"at":"2026-06-01T00:00:00Z","recorded_at":"2026-06-01T00:00:00Z","request_id":"r","lot":"g","points":5}'
    event = base.decode_event("quota.GrantVoided:-1", stored)
    assert isinstance(event, quota.GrantVoided)
    assert (event.grant, event.amount) == ("g", 5000)


def test_an_unknown_topic_is_no_event() -> None:
    with pytest.raises(KeyError):
        base.decode_event("quota.Nothing:1", b"{}")


@pytest.mark.parametrize("error", catalogue().values(), ids=lambda e: e.__name__)
def test_an_error_keeps_its_details_through_its_arguments(error: type[TokengridError]) -> None:
    raised = error("why", {"limit": 5, "at": NOW})
    again = error(*raised.args)
    assert (again.code, str(again), again.details["limit"]) == (error.__name__, "why", 5)
    assert error.__doc__
    assert error.advice


def test_a_schema_names_every_bad_field() -> None:
    errors = schema_of(quota.Reserve)().validate({"operator": "BAD", "account": "", "request_id": "r", "model": "m"})
    assert set(errors) == {"operator", "account"}
    assert isinstance(schema_of(quota.Reserve)(), ma.Schema)
