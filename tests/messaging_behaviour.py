"""What messaging promises over every broker, as tests that take a `settings` fixture.

Collected twice: over the in-process broker in tests/unit, over RabbitMQ in tests/integration.
"""

from __future__ import annotations

import gc
import logging
import uuid
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any

import eventlet
import pytest
from eventlet.event import Event
from nameko import exceptions as nameko_exceptions
from nameko.exceptions import IncorrectSignature, MethodNotFound, RemoteError
from nameko.extensions import DependencyProvider
from nameko.standalone.rpc import ClusterRpcProxy
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from shared import telemetry
from shared.config import Settings
from shared.errors import Busy, Conflict, DeadlineExceeded, InsufficientQuota, MalformedCommand, Unavailable
from shared.messaging.client import Client, Peers
from shared.messaging.follower import follow
from shared.messaging.link import RPC_EXCHANGE, connection_to
from shared.messaging.log_service import LogService
from shared.messaging.prompts import Prompt
from shared.messaging.rpc import rpc
from shared.messaging.runner import Runner, serving
from shared.messaging.tracing import Tracing, event_span
from tests.waiting import eventually


class Given(DependencyProvider):  # type: ignore[misc]
    """Gives a service an object of the test."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get_dependency(self, worker_ctx: Any) -> Any:
        return self.value


class Log:
    """A gapless log in memory, as `LogService` wants it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def append(self, state: str, trace: str | None = None) -> int:
        position = len(self.events) + 1
        event = {"position": position, "stream": "s", "version": position, "topic": "Noted"}
        self.events.append({**event, "state": state, "trace": trace})
        return position

    def read(self, after: int, limit: int) -> list[dict[str, Any]]:
        return self.events[after : after + limit]

    def head(self) -> int:
        return len(self.events)


def ledger_over(events: Log, shared: dict[str, Any] | None = None) -> type:
    """A service with a log, and methods that misbehave in every way that matters."""

    class Ledger(LogService):
        name = "ledger"
        log = Given(events)
        prompt = Prompt()
        tracing = Tracing()
        given = Given(shared if shared is not None else {})

        @rpc
        def echo(self, value: Any = None) -> Any:
            return value

        @rpc
        def append(self, state: str) -> int:
            position: int = self.log.append(state, telemetry.current_traceparent())
            self.prompt(position)
            return position

        @rpc
        def refuse(self) -> None:
            raise InsufficientQuota(
                "Not enough.", {"available": 5, "required": 12345678901234567890, "of": ["a", None]}
            )

        @rpc
        def fail(self) -> float:
            return 1 / 0

        @rpc
        def unserialisable(self) -> object:
            return object()

        @rpc
        def slow(self, key: str, seconds: float) -> str:
            self.given.setdefault("executed", Counter())[key] += 1
            eventlet.sleep(seconds)
            return key

        @rpc
        def busy_twice(self) -> int:
            self.given["calls"] = self.given.get("calls", 0) + 1
            if self.given["calls"] <= 2:
                raise Busy("Later.")
            return int(self.given["calls"])

    return Ledger


def reader_into(applied: list[dict[str, Any]], faults: list[Exception], poll_s: float | None = None) -> type:
    """A service that follows the ledger into a list; raises each of `faults` once, before applying a page."""

    class Reader:
        name = "reader"
        peers = Peers()
        tracing = Tracing()

        @rpc
        def echo_of_ledger(self, value: Any) -> Any:
            return self.peers.call("ledger", "echo", value=value)

        @rpc
        def append_through(self, state: str) -> Any:
            return self.peers.call("ledger", "append", state=state)

        @follow("ledger", page_size=7, poll_s=poll_s)
        def on_ledger(self, page: list[dict[str, Any]]) -> int:
            if page and faults:
                raise faults.pop(0)
            for event in page:
                with event_span(event):
                    applied.append(event)
            return len(applied)

    return Reader


def follower_in(runner: Runner) -> Any:
    """The follower of the last service: it shows nothing to others of what it waits for."""
    (entrypoint,) = runner.containers[-1].entrypoints
    return entrypoint


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as connected:
        yield connected


# --- calls -----------------------------------------------------------------------------------
def test_a_call_is_answered_with_its_values_intact(settings: Settings, client: Client, log: Log) -> None:
    value = {"amount": 12345678901234567890, "names": ["中国移动", ""], "none": None, "nested": {"a": [1, 2.5, True]}}
    with serving([ledger_over(log)], settings):
        assert client.call("ledger", "echo", value=value) == value


def test_a_large_answer_arrives_whole(settings: Settings, client: Client, log: Log) -> None:
    value = "x" * 3_000_000
    with serving([ledger_over(log)], settings):
        assert client.call("ledger", "echo", value=value) == value


def test_pipelined_requests_are_answered_each_with_its_own_answer(settings: Settings, client: Client, log: Log) -> None:
    with serving([ledger_over(log)], settings):
        pending = [client.submit("ledger", "echo", value=n) for n in range(300)]
        assert client.results(pending) == list(range(300))


def test_concurrent_nested_calls_do_not_deadlock(settings: Settings, client: Client, log: Log) -> None:
    settings.max_workers = 4
    with serving([ledger_over(log), reader_into([], [])], settings):
        pending = [client.submit("reader", "echo_of_ledger", value=n) for n in range(100)]
        assert client.results(pending) == list(range(100))


def test_an_unknown_service_is_unavailable_and_named(settings: Settings, client: Client) -> None:
    with pytest.raises(Unavailable, match="nowhere") as caught:
        client.call("nowhere", "echo")
    assert caught.value.details == {"service": "nowhere"}


def test_no_answer_in_time_is_deadline_exceeded(settings: Settings, client: Client, log: Log) -> None:
    with serving([ledger_over(log)], settings):
        with pytest.raises(DeadlineExceeded, match=r"ledger\.slow"):
            client.call("ledger", "slow", key="k", seconds=1, deadline_s=0.1)
        gc.collect()
        assert client.pending_count == 0


def test_a_request_whose_caller_has_gone_is_not_executed(settings: Settings, client: Client, log: Log) -> None:
    settings.max_workers = 1
    seen: dict[str, Any] = {}
    with serving([ledger_over(log, seen)], settings):
        first = client.submit("ledger", "slow", key="first", seconds=0.5)
        eventually(lambda: seen.get("executed"))
        with pytest.raises(DeadlineExceeded):
            client.call("ledger", "slow", key="stale", seconds=0, deadline_s=0.05)
        assert first.result() == "first"
        assert client.call("ledger", "slow", key="last", seconds=0) == "last"
    assert seen["executed"] == {"first": 1, "last": 1}


def test_a_retryable_error_is_retried_only_where_asked(settings: Settings, client: Client, log: Log) -> None:
    with serving([ledger_over(log)], settings):
        with pytest.raises(Busy):
            client.call("ledger", "busy_twice")
        assert client.call("ledger", "busy_twice", retries=3) == 3


# --- errors ----------------------------------------------------------------------------------
def test_our_error_arrives_as_its_class_with_details(settings: Settings, client: Client, log: Log) -> None:
    with serving([ledger_over(log)], settings), pytest.raises(InsufficientQuota, match="Not enough") as caught:
        client.call("ledger", "refuse")
    assert caught.value.details == {"available": 5, "required": 12345678901234567890, "of": ["a", None]}


def test_a_stock_client_sees_our_code(settings: Settings, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(nameko_exceptions.registry, "shared.errors.InsufficientQuota")
    with (
        serving([ledger_over(log)], settings),
        ClusterRpcProxy(settings.nameko(), timeout=5) as stock,
    ):
        assert stock.ledger.echo(value=[1]) == [1]
        with pytest.raises(RemoteError) as caught:
            stock.ledger.refuse()
    assert caught.value.exc_type == "InsufficientQuota"
    assert caught.value.value == "Not enough."


def test_a_refusal_is_not_logged_and_a_fault_is(
    settings: Settings, client: Client, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nameko"), serving([ledger_over(log)], settings):
        with pytest.raises(InsufficientQuota):
            client.call("ledger", "refuse")
        assert "Not enough" not in caplog.text
        with pytest.raises(RemoteError):
            client.call("ledger", "fail")
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "arguments", "error", "said"),
    [
        ("fail", {}, RemoteError, "ZeroDivisionError"),
        ("unserialisable", {}, RemoteError, "UnserializableValueError"),
        ("echo", {"valeu": 1}, IncorrectSignature, "valeu"),
        ("no_such", {}, MethodNotFound, "no_such"),
        ("events", {"after": -1, "limit": 10**9}, MalformedCommand, "section"),
        ("events", {"after": "1"}, MalformedCommand, "section"),
    ],
)
def test_what_goes_wrong_is_told_and_the_service_lives(
    settings: Settings, client: Client, log: Log, method: str, arguments: dict[str, Any], error: type, said: str
) -> None:
    with serving([ledger_over(log)], settings):
        with pytest.raises(error, match=said):
            client.call("ledger", method, **arguments)
        assert client.call("ledger", "ping") == {"service": "ledger"}


GOOD_BODY = b'{"args": [], "kwargs": {}}'
JSON = "application/json"
POISON = [
    ("no reply_to", GOOD_BODY, {"content_type": JSON}),
    ("no content type", GOOD_BODY, {"reply_to": "x"}),
    ("another content type", GOOD_BODY, {"reply_to": "x", "content_type": "application/x-python-serialize"}),
    ("nothing at all", b"", {}),
    ("no JSON", b"{", {"reply_to": "x", "content_type": JSON}),
    ("no UTF-8", b'{"args": ["\xff"]}', {"reply_to": "x", "content_type": JSON}),
    ("nested beyond reason", b"[" * 100_000, {"reply_to": "x", "content_type": JSON}),
    ("no args", b'{"kwargs": {}}', {"reply_to": "x", "content_type": JSON}),
    ("args of no list", b'{"args": 1, "kwargs": {}}', {"reply_to": "x", "content_type": JSON}),
    ("no object", b"[]", {"reply_to": "x", "content_type": JSON}),
    (
        "broken compression",
        b"x",
        {"reply_to": "x", "content_type": JSON, "headers": {"compression": "application/x-gzip"}},
    ),
    ("unknown compression", b"x", {"reply_to": "x", "content_type": JSON, "headers": {"compression": "no such"}}),
    ("odd call ids", GOOD_BODY, {"reply_to": "x", "content_type": JSON, "headers": {"nameko.call_id_stack": 5}}),
    ("odd trace", GOOD_BODY, {"reply_to": "x", "content_type": JSON, "headers": {"traceparent": 5, "tracestate": "="}}),
]


def publish_raw(settings: Settings, body: bytes, properties: dict[str, Any], method: str = "ping") -> None:
    """Put a message into the ledger's queue as somebody careless or hostile would."""
    named = dict(properties)
    with connection_to(settings) as connection:
        channel = connection.channel()
        headers = named.pop("headers", None)
        content_type = named.pop("content_type", None)
        message = channel.prepare_message(body, content_type=content_type, headers=headers, properties=named)
        channel.basic_publish(message, exchange=RPC_EXCHANGE, routing_key=f"ledger.{method}")


@pytest.mark.parametrize(("body", "properties"), [case[1:] for case in POISON], ids=[case[0] for case in POISON])
def test_a_poisonous_message_neither_kills_nor_blocks_the_service(
    settings: Settings, client: Client, log: Log, body: bytes, properties: dict[str, Any]
) -> None:
    settings.max_workers = 2
    with serving([ledger_over(log)], settings) as runner:
        for _ in range(5):  # more than workers: one that is not settled would block the queue
            publish_raw(settings, body, properties)
        assert client.call("ledger", "echo", value=1, deadline_s=5) == 1
        assert runner.failure is None


# --- stopping --------------------------------------------------------------------------------
def test_a_graceful_stop_answers_what_is_in_hand_and_nothing_runs_twice(
    settings: Settings, client: Client, log: Log
) -> None:
    seen: dict[str, Any] = {}
    keys = [str(uuid.uuid4()) for _ in range(20)]
    first = Runner([ledger_over(log, seen)], settings)
    first.start()
    pending = [client.submit("ledger", "slow", key=key, seconds=0.3) for key in keys]
    eventually(lambda: len(seen.get("executed", ())) == len(keys))
    assert first.stop()
    with serving([ledger_over(log, seen)], settings):
        assert client.results(pending) == keys
        client.call("ledger", "ping")  # whatever came again would have come before this
    assert set(seen["executed"].values()) == {1}


def test_a_stop_that_takes_too_long_is_cut_short(settings: Settings, client: Client, log: Log) -> None:
    seen: dict[str, Any] = {}
    runner = Runner([ledger_over(log, seen)], settings)
    runner.start()
    client.submit("ledger", "slow", key="k", seconds=60)
    eventually(lambda: seen.get("executed"))
    started = monotonic()
    assert not runner.stop(bound_s=0.3)
    assert monotonic() - started < 5


def test_a_service_that_cannot_start_says_why(settings: Settings, log: Log) -> None:
    class Refusing(DependencyProvider):  # type: ignore[misc]
        def setup(self) -> None:
            raise RuntimeError("no database")

    class Broken:
        name = "broken"
        dependency = Refusing()

    with pytest.raises(RuntimeError, match="no database"), serving([ledger_over(log), Broken], settings):
        pytest.fail("it started")


# --- following -------------------------------------------------------------------------------
def test_a_follower_applies_every_event_once_in_order(settings: Settings, log: Log) -> None:
    for n in range(50):
        log.append(str(n))
    applied: list[dict[str, Any]] = []
    with serving([ledger_over(log), reader_into(applied, [])], settings):
        eventually(lambda: len(applied) >= 50)
    assert applied == log.events


def test_a_follower_survives_its_own_method_raising(settings: Settings, log: Log) -> None:
    for n in range(50):
        log.append(str(n))
    applied: list[dict[str, Any]] = []
    faults: list[Exception] = [RuntimeError("the disk is full"), Conflict("too late"), KeyError("oops")]
    with serving([ledger_over(log), reader_into(applied, faults)], settings) as runner:
        eventually(lambda: len(applied) >= 50)
        assert runner.failure is None
    assert applied == log.events


def test_a_follower_outlasts_its_upstream(settings: Settings, log: Log) -> None:
    settings.deadline_s = 0.5
    applied: list[dict[str, Any]] = []
    with serving([reader_into(applied, [])], settings):
        for n in range(2):  # once before it ever was there, once after it went away
            log.append(f"before {n}")
            with serving([ledger_over(log)], settings):
                eventually(lambda: len(applied) == len(log.events))
    assert applied == log.events


def test_a_prompt_comes_before_the_poll(settings: Settings, client: Client, log: Log) -> None:
    applied: list[dict[str, Any]] = []
    with serving([ledger_over(log), reader_into(applied, [], poll_s=60)], settings):
        client.call("ledger", "append", state="first")
        eventually(lambda: len(applied) == 1, within_s=5)
        for n in range(20):
            client.call("ledger", "append", state=str(n))
        eventually(lambda: len(applied) == 21, within_s=5)


def test_a_prompt_during_a_page_is_not_forgotten(settings: Settings, client: Client, log: Log) -> None:
    log.append("first")
    applied: list[dict[str, Any]] = []
    begun, finish = Event(), Event()

    class Slow:
        name = "slowreader"

        @follow("ledger", poll_s=60)
        def on_ledger(self, page: list[dict[str, Any]]) -> int:
            if page and not begun.ready():
                begun.send()
                finish.wait()
            applied.extend(page)
            return len(applied)

    with serving([ledger_over(log), Slow], settings) as runner:
        begun.wait(10)
        client.call("ledger", "append", state="second")
        eventually(lambda: follower_in(runner).logs[0].hint == 2)
        finish.send()
        eventually(lambda: len(applied) == 2, within_s=5)


def test_without_prompts_the_poll_finds_the_event(settings: Settings, log: Log) -> None:
    applied: list[dict[str, Any]] = []
    with serving([ledger_over(log), reader_into(applied, [], poll_s=0.05)], settings):
        log.append("unprompted")
        eventually(lambda: len(applied) == 1)


def test_stopping_finishes_the_page_in_hand(settings: Settings, log: Log) -> None:
    log.append("one")
    begun, finish, finished = Event(), Event(), []

    class Slow:
        name = "slowreader"

        @follow("ledger")
        def on_ledger(self, page: list[dict[str, Any]]) -> int:
            if page:
                begun.send()
                finish.wait()
                finished.extend(page)
            return len(finished)

    runner = Runner([ledger_over(log), Slow], settings)
    runner.start()
    begun.wait(10)
    stopping = eventlet.spawn(runner.stop)
    eventually(lambda: follower_in(runner).stopping)
    finish.send()
    assert stopping.wait()
    assert len(finished) == 1


# --- telemetry -------------------------------------------------------------------------------
@pytest.fixture
def spans(settings: Settings) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    switched_on = settings.model_copy(update={"telemetry": "console"})
    telemetry.configure(
        switched_on, "test", span_processor=SimpleSpanProcessor(exporter), metric_reader=InMemoryMetricReader()
    )
    yield exporter
    telemetry.shutdown()


def test_one_trace_from_the_client_through_services_and_follower(
    settings: Settings, client: Client, log: Log, spans: InMemorySpanExporter
) -> None:
    applied: list[dict[str, Any]] = []
    with serving([ledger_over(log), reader_into(applied, [])], settings):
        client.call("reader", "append_through", state="traced")
        eventually(lambda: applied)
        eventually(lambda: any(span.name == "process ledger" for span in spans.get_finished_spans()))
    finished = spans.get_finished_spans()
    root = next(span for span in finished if span.name == "reader/append_through" and span.kind is SpanKind.CLIENT)
    trace_id = root.context.trace_id
    in_trace = [(span.name, span.kind) for span in finished if span.context.trace_id == trace_id]
    assert sorted(in_trace, key=str) == sorted(
        [
            ("reader/append_through", SpanKind.CLIENT),
            ("reader/append_through", SpanKind.SERVER),
            ("ledger/append", SpanKind.CLIENT),
            ("ledger/append", SpanKind.SERVER),
            ("process Noted", SpanKind.CONSUMER),
        ],
        key=str,
    )
    page = next(span for span in finished if span.name == "process ledger")
    assert [link.context.trace_id for link in page.links] == [trace_id]
    server = next(span for span in finished if span.name == "ledger/append" and span.kind is SpanKind.SERVER)
    assert server.attributes is not None
    assert server.attributes["rpc.system.name"] == "nameko"
    assert server.attributes["rpc.method"] == "ledger/append"
