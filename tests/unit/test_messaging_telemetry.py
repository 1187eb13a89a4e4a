"""Telemetry: nothing when it is off; the right names when it is on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nameko.exceptions import RemoteError
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared import telemetry
from shared.config import Settings
from shared.errors import Busy, InsufficientQuota
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.messaging_behaviour import GOOD_BODY, Log, ledger_over, publish_raw
from tests.waiting import eventually


class Recorded:
    """What was measured."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()

    def spans(self, name: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else []
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [point for metric in metrics for point in metric.data.data_points]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path, telemetry="console")
    inproc.reset()


@pytest.fixture
def recorded(settings: Settings) -> Iterator[Recorded]:
    made = Recorded()
    processor = SimpleSpanProcessor(made.exporter)
    telemetry.configure(settings, "quota", span_processor=processor, metric_reader=made.reader)
    yield made
    telemetry.shutdown()


def test_off_imports_nothing_of_the_sdk() -> None:
    program = (
        "import sys; from shared import telemetry; from shared.config import Settings;"
        "telemetry.configure(Settings(), 'quota');"
        "\nwith telemetry.span('x'): telemetry.counter('c').add(1)\n"
        "assert not telemetry.active() and telemetry.current_traceparent() is None;"
        "sys.exit('opentelemetry.sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_span_continues_the_trace_it_is_given(recorded: Recorded) -> None:
    with telemetry.span("first"):
        traceparent = telemetry.current_traceparent()
    with telemetry.span("elsewhere"), telemetry.span("second", "consumer", parent_traceparent=traceparent):
        assert telemetry.current_traceparent() is not None
    first, second = recorded.spans("first")[0], recorded.spans("second")[0]
    assert (second.context.trace_id, second.parent.span_id) == (first.context.trace_id, first.context.span_id)


@pytest.mark.parametrize("garbage", ["", "00-0-0-00", "hello", "00-" + "g" * 32 + "-" + "0" * 16 + "-01"])
def test_a_traceparent_that_is_none_is_ignored(recorded: Recorded, garbage: str) -> None:
    with telemetry.span("alone", parent_traceparent=garbage, links=[garbage, None]):
        pass
    (alone,) = recorded.spans("alone")
    assert alone.parent is None
    assert not alone.links


def test_links_are_bounded_and_each_trace_is_linked_once(recorded: Recorded) -> None:
    traceparents = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 300)]
    with telemetry.span("page", links=[*traceparents[:2], *traceparents]):
        pass
    links = recorded.spans("page")[0].links
    assert len(links) == telemetry.LINKS_MAX
    assert len({link.context.trace_id for link in links}) == telemetry.LINKS_MAX


@pytest.mark.parametrize(
    ("error", "status"),
    [(InsufficientQuota("no"), StatusCode.UNSET), (Busy("later"), StatusCode.ERROR), (ValueError(), StatusCode.ERROR)],
)
def test_a_refusal_is_noted_and_a_failure_is_an_error(recorded: Recorded, error: Exception, status: StatusCode) -> None:
    with pytest.raises(type(error)), telemetry.span("work"):
        raise error
    (span,) = recorded.spans("work")
    assert span.status.status_code is status
    assert span.attributes["error.type"] == type(error).__name__


def test_no_span_is_current_outside(recorded: Recorded) -> None:
    with telemetry.span("work"):
        pass
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_calls_and_errors_are_counted_by_method(settings: Settings, recorded: Recorded) -> None:
    with serving([ledger_over(Log())], settings), Client(settings) as client:
        client.call("ledger", "ping")
        client.call("ledger", "ping")
        with pytest.raises(InsufficientQuota):
            client.call("ledger", "refuse")
        with pytest.raises(RemoteError):
            client.call("ledger", "fail")
    for side in ("client", "server"):
        durations = recorded.points(f"rpc.{side}.call.duration")
        counted = {(p.attributes["rpc.method"], p.attributes.get("error.type")): p.count for p in durations}
        assert counted == {
            ("ledger/ping", None): 2,
            ("ledger/refuse", "InsufficientQuota"): 1,
            ("ledger/fail", "ZeroDivisionError"): 1,
        }
    errors = {p.attributes["error.type"]: p.value for p in recorded.points("tokengrid.rpc.errors")}
    assert errors == {"InsufficientQuota": 1, "ZeroDivisionError": 1}


def test_rejected_messages_are_counted_by_reason(settings: Settings, recorded: Recorded) -> None:
    with serving([ledger_over(Log())], settings):
        publish_raw(settings, GOOD_BODY, {"content_type": "application/json"})
        publish_raw(settings, b"{", {"content_type": "application/json", "reply_to": "x"})
        eventually(lambda: len(recorded.points("tokengrid.rpc.rejected")) == 2)
    reasons = {p.attributes["reason"]: p.value for p in recorded.points("tokengrid.rpc.rejected")}
    assert reasons == {"no reply_to": 1, "no readable JSON": 1}
