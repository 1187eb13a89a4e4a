"""Whatever reaches quota is answered or refused by a code: no worker dies, no queue blocks, no event is half written.

Hypothesis makes the requests: right ones, right ones with something wrong in them, any values, any bytes; to every
command and every question, through the same doors as real ones. The auditor reads the log behind them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.schemas import QUERIES
from services.quota.service import QuotaService
from shared import errors
from shared.config import Settings
from shared.contracts.base import COMMANDS
from shared.contracts.schema import parse
from shared.errors import MalformedCommand, TokengridError
from shared.eventstore.requests import Request
from shared.messaging import codec, inproc
from shared.messaging.client import Client
from shared.messaging.link import RPC_EXCHANGE, connection_to
from shared.messaging.runner import serving
from shared.units import AMOUNT_MAX
from tests.auditing import Auditor, audit
from tests.folders import brief_folder
from tests.unit.quota_world import OPERATOR, World, catalogue_page
from tests.waiting import eventually

SOAK = int(os.environ.get("TOKENGRID_SOAK_SEEDS", "0"))
EXAMPLES = max(20, SOAK // 5)
MESSAGES = max(15, SOAK // 20)
pytestmark = pytest.mark.timeout(3600 if SOAK else 120)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ODD = st.sampled_from(
    [
        *(None, True, 0, -1, 1.5, AMOUNT_MAX, AMOUNT_MAX + 1, 2**63, 10**30, 86_401),
        *("", " ", "\x00", "é", "a" * 129, "credit", "/", "a\tb", OPERATOR, "kimi-k2.5", "v/0"),
        *("2026-06-01T00:00:00Z", "2026-06-01T08:00:00+08:00"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"),
        *([], {}, [[]], {"input": 10**9, "output": 10**9}, {"input": 5}, {"models": ["kimi-k2.5"]}),
    ]
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "operator": st.just(OPERATOR),
    "account": st.sampled_from(["a1", "a2"]),
    "amount": st.integers(1, 10**7),
    "credit_limit": st.integers(0, 10**7),
    "source": st.just("purchase"),
    "model": st.sampled_from(["kimi-k2.5", "deepseek-chat"]),
    "max_usage": st.fixed_dictionaries({"output": st.integers(0, 500)}),
    "usage": st.fixed_dictionaries({"input": st.integers(0, 500)}),
    "ttl_s": st.integers(1, 90),
    "on_insufficient": st.sampled_from(["refuse", "overdraw"]),
}
NAMES = st.sampled_from([f"r{n}" for n in range(12)])  # few, so that one request refers to another
COMMAND_NAMES = st.sampled_from([name for name in COMMANDS["quota"] if name != "close_account"])
METHODS = COMMAND_NAMES | st.sampled_from([*QUERIES, "close_account", "execute", "events", "head", "status", "fly", ""])


@st.composite
def fields_of(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """The fields of a command or question: right ones, often with one that is not."""
    struct = COMMANDS["quota"].get(name) or QUERIES.get(name) or COMMANDS["quota"]["debit"]
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if field.required or draw(st.integers(0, 4)) == 0:
            fields[field.name] = draw(LIKELY.get(field.name, NAMES))
    if draw(st.integers(0, 2)) == 0:
        fields[draw(st.sampled_from([*fields, "colour"]))] = draw(ODD | JSON)
    return fields


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request as it comes from the broker: a method and bytes, which mostly are what they should be."""
    method = draw(METHODS)
    if method == "execute":
        commands: Any = draw(st.lists(tagged() | ODD, max_size=4) | JSON)
        body = codec.encode({"args": [], "kwargs": {"commands": commands}})
    else:
        body = codec.encode({"args": [], "kwargs": draw(fields_of(method))})
    match draw(st.integers(0, 9)):
        case 0:
            body = draw(st.binary(max_size=60))
        case 1:
            body = codec.encode(draw(JSON))
        case 2:
            at = draw(st.integers(0, len(body)))
            body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
        case 3:
            body = body[: draw(st.integers(0, len(body)))]
    return Request(method, body, draw(st.none() | st.text(max_size=10)))


@st.composite
def tagged(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(COMMAND_NAMES)
    return {"command": name, **draw(fields_of(name))}


def opened(folder: str) -> World:
    world = World(Path(folder))
    world.open("a1", points=10**9)
    world.open("a2", credit_limit=10**9)
    return world


def effects(answers: list[Any]) -> int:
    """How many commands say that they did something new."""
    found = 0
    for answer in answers:
        told = [a.get("ok") for a in answer] if isinstance(answer, list) else [answer]
        found += sum(isinstance(a, dict) and a.get("replayed") is False for a in told)
    return found


def test_requests_of_any_bytes_are_answered_or_refused_and_the_log_grows_by_whole_events(seed: int) -> None:
    @hypothesis.seed(seed)
    @settings(max_examples=EXAMPLES, database=None)
    @given(st.lists(st.lists(requests(), min_size=1, max_size=4), max_size=8))
    def fuzz(batches: list[list[Request]]) -> None:
        with brief_folder() as folder, brief_folder() as elsewhere:
            world, slow = opened(folder), opened(elsewhere)
            try:
                for batch in batches:
                    world.clock.advance(1)
                    slow.clock.advance(1)
                    before = keyed(world)
                    answers = world.app.serve(batch)
                    assert len(answers) == len(batch)
                    told = [_told(answer) for answer in answers]
                    assert keyed(world) - before == effects(told), "what is answered is stored, and nothing else"
                    slowly = [by_hand(slow, request) for request in batch]
                    assert [gist(a) for a in told] == [gist(a) for a in slowly], "read fast or slowly: the same"
                audit(world.app, catalogue_page())
            finally:
                world.app.close()
                slow.app.close()

    fuzz()


def test_commands_and_questions_of_any_values_are_answered_or_refused(seed: int) -> None:
    @st.composite
    def asked(draw: st.DrawFn) -> tuple[str, Any]:
        name = draw(COMMAND_NAMES | st.sampled_from([*QUERIES, "execute"]))
        return name, draw(st.lists(tagged() | ODD, max_size=4) if name == "execute" else fields_of(name))

    @hypothesis.seed(seed)
    @settings(max_examples=EXAMPLES, database=None)
    @given(st.lists(asked(), max_size=25))
    def fuzz(questions: list[tuple[str, Any]]) -> None:
        with brief_folder() as folder:
            world = opened(folder)
            try:
                for name, fields in questions:
                    world.clock.advance(1)
                    try:
                        if name == "execute":
                            answer: Any = world.app.execute(fields)
                        elif name in QUERIES:
                            answer = getattr(world.app, name)(parse(QUERIES[name], fields))
                        else:
                            answer = world.app.submit(name, fields)
                        codec.encode(answer)
                    except TokengridError as refusal:
                        _told(refusal)
                audit(world.app, catalogue_page())
            finally:
                world.app.close()

    fuzz()


def by_hand(world: World, request: Request) -> Any:
    """The answer to a request that is taken apart with plain means and goes in by the other door."""
    try:
        body = json.loads(request.body)
        fields = body["kwargs"]
        readable = isinstance(fields, dict) and not body.get("args")
    except (ValueError, LookupError, TypeError):
        readable = False
    try:
        if not readable:
            raise MalformedCommand
        if request.method == "execute":
            return _told(codec.encode(world.app.execute(fields.get("commands"))))
        return _told(codec.encode(world.app.submit(request.method, fields)))
    except TokengridError as refusal:
        return _told(refusal)


def gist(answer: Any) -> Any:
    """An answer whole; of a malformed command's refusal the code, since the words may name more or less."""
    if isinstance(answer, list):
        return [gist(a.get("error") or a) for a in answer]
    return "MalformedCommand" if answer.get("code") == "MalformedCommand" else answer


def keyed(world: World) -> int:
    """How many requests have had an effect: each has one event that bears its key."""
    with world.app.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM events WHERE request_key IS NOT NULL").scalar_one())


def _told(answer: bytes | Exception) -> Any:
    """What the client reads. A refusal has a code of the catalogue, and can be sent."""
    if isinstance(answer, bytes):
        return msgspec.json.decode(answer)
    assert isinstance(answer, TokengridError), repr(answer)
    assert answer.code in errors.catalogue()
    assert not answer.retryable, "nothing was wrong with the service"
    return codec.decode(codec.encode(answer.as_dict()))


# --- through the broker ----------------------------------------------------------------------------------
@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path, sweep_interval_s=0.1, follow_poll_s=0.1)
    inproc.reset()


PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "reply_to": st.sampled_from(["nobody", "", "quota.debit"]) | st.text(max_size=10),
        "correlation_id": st.text(max_size=10),
        "content_type": st.sampled_from(["application/json", "application/x-python-serialize", "text/plain", ""]),
        "content_encoding": st.sampled_from(["utf-8", "binary", "latin-9", "none"]),
        "priority": st.integers(0, 9),
        "expiration": st.sampled_from(["0", "1000"]),
    },
)
HEADERS = st.dictionaries(st.sampled_from(["traceparent", "nameko.call_id_stack", "x-death"]), JSON, max_size=2)


def test_messages_of_any_kind_leave_the_service_alive_and_its_queue_empty(seed: int, broker: Settings) -> None:
    with (
        serving([CatalogService, QuotaService], broker) as runner,
        Client(broker) as client,
        connection_to(broker) as connection,
    ):
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == client.call("catalog", "head"))
        client.call("quota", "open_account", operator=OPERATOR, account="a1", request_id="o", credit_limit=10**9)
        channel = connection.channel()

        @hypothesis.seed(seed)
        @settings(max_examples=MESSAGES, database=None)
        @given(st.lists(st.tuples(requests(), PROPERTIES, HEADERS), min_size=1, max_size=8))
        def fuzz(messages: list[tuple[Request, dict[str, Any], dict[str, Any]]]) -> None:
            for request, properties, headers in messages:
                named = dict(properties)
                content = {name: named.pop(name, None) for name in ("content_type", "content_encoding")}
                message = channel.prepare_message(request.body, headers=headers, properties=named, **content)
                channel.basic_publish(message, exchange=RPC_EXCHANGE, routing_key=f"quota.{request.method}")
            assert client.call("quota", "ping", deadline_s=5)["service"] == "quota"
            assert runner.failure is None
            eventually(lambda: channel.queue_declare("rpc-quota", passive=True).message_count == 0)

        fuzz()
        auditor = Auditor(client)
        auditor.finish()
        auditor.check_read_model()
        auditor.check()
