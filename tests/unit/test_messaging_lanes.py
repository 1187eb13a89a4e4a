"""The promises of lanes, over the in-process broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from shared import telemetry
from shared.config import Settings
from shared.errors import InsufficientQuota
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.lane_behaviour import *  # noqa: F403 - the tests themselves
from tests.lane_behaviour import Till, full_house, till_service


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path)
    inproc.reset()


@pytest.fixture
def recorded(settings: Settings) -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    spans, metrics = InMemorySpanExporter(), InMemoryMetricReader()
    switched_on = settings.model_copy(update={"telemetry": "console"})
    telemetry.configure(switched_on, "quota", span_processor=SimpleSpanProcessor(spans), metric_reader=metrics)
    yield spans, metrics
    telemetry.shutdown()


def test_a_batch_is_linked_to_its_calls_and_each_call_is_counted(
    settings: Settings, client: Client, till: Till, recorded: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    spans, metrics = recorded
    with serving([till_service(till)], settings):
        go_on, held = full_house(client, till)
        pending = [client.submit("quota", "pay", account=n) for n in range(9)]
        pending.append(client.submit("quota", "refuse", account=9))
        client.call("quota", "ask", value=1)
        go_on()
        client.results([*held, *pending[:9]])
        with pytest.raises(InsufficientQuota):
            pending[9].result()
    finished = spans.get_finished_spans()
    callers = {span.context.span_id: span for span in finished if span.kind is SpanKind.CLIENT}
    (batch,) = [span for span in finished if span.name == "quota/work"]
    assert batch.attributes["messaging.batch.message_count"] == 10
    assert {callers[link.context.span_id].name for link in batch.links} == {"quota/pay", "quota/refuse"}
    assert len(batch.links) == 10
    alone = [span for span in finished if span.name == "quota/pay" and span.kind is SpanKind.SERVER]
    assert [callers[span.parent.span_id].name for span in alone] == ["quota/pay"] * 2

    (resource,) = metrics.get_metrics_data().resource_metrics  # type: ignore[union-attr]
    found = {metric.name: metric.data.data_points for scope in resource.scope_metrics for metric in scope.metrics}
    counted = {point.attributes["rpc.method"]: point.count for point in found["rpc.server.call.duration"]}
    assert counted["quota/pay"] == 11
    assert counted["quota/refuse"] == 1
    (error,) = found["tokengrid.rpc.errors"]
    assert error.attributes["error.type"] == "InsufficientQuota"
