"""What a follower accepts as the next section of a log, and how it behaves in trouble."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared import telemetry
from shared.config import Settings
from shared.errors import Conflict
from shared.messaging import inproc
from shared.messaging.follower import BrokenLog, check_page, follow
from shared.messaging.runner import serving
from tests.messaging_behaviour import Log, ledger_over, reader_into
from tests.waiting import eventually


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path, follow_poll_s=0.01)
    inproc.reset()


def events(*positions: int) -> list[dict[str, int]]:
    return [{"position": position} for position in positions]


@pytest.mark.parametrize(
    ("position", "answer"),
    [
        (0, {"head": 0, "events": []}),
        (0, {"head": 2, "events": events(1, 2)}),
        (5, {"head": 100, "events": events(6, 7, 8)}),
        (5, {"head": 5, "events": []}),
    ],
)
def test_the_next_section_is_accepted(position: int, answer: dict[str, Any]) -> None:
    assert check_page(answer, position) == (answer["events"], answer["head"])


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("a gap at its start", {"head": 9, "events": events(7)}),
        ("a gap within", {"head": 9, "events": events(6, 8)}),
        ("a repetition", {"head": 9, "events": events(6, 6)}),
        ("what is known already", {"head": 9, "events": events(5, 6)}),
        ("a wrong order", {"head": 9, "events": events(7, 6)}),
        ("a shorter log than before", {"head": 4, "events": []}),
        ("less than it promises", {"head": 9, "events": []}),
    ],
)
def test_a_broken_section_is_refused(fault: str, answer: dict[str, Any]) -> None:
    with pytest.raises(BrokenLog):
        check_page(answer, 5)


def test_an_outage_is_logged_once_and_its_end_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    applied: list[dict[str, Any]] = []
    log.append("one")
    faults: list[Exception] = [RuntimeError("the disk is full")] * 3
    with caplog.at_level(logging.WARNING), serving([ledger_over(log), reader_into(applied, faults)], settings):
        eventually(lambda: applied)
        eventually(lambda: "again" in caplog.text)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "reader cannot follow ledger: RuntimeError: the disk is full" in said[0]
    assert "reader follows ledger again" in said[1]


def test_being_overtaken_by_a_replica_is_no_outage(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    applied: list[dict[str, Any]] = []
    log.append("one")
    faults: list[Exception] = [Conflict("another was faster")] * 3
    with caplog.at_level(logging.WARNING), serving([ledger_over(log), reader_into(applied, faults)], settings):
        eventually(lambda: applied)
    assert caplog.records == []


@pytest.mark.parametrize("returned", [None, 0, "1", True])
def test_a_method_that_does_not_say_where_it_is_makes_no_hot_loop(settings: Settings, returned: object) -> None:
    log = Log()
    pages: list[list[dict[str, Any]]] = []
    log.append("one")

    class Mute:
        name = "mute"

        @follow("ledger")
        def on_ledger(self, page: list[dict[str, Any]]) -> Any:
            if page:
                pages.append(page)
                return returned
            return 0

    with serving([ledger_over(log), Mute], settings):
        eventually(lambda: len(pages) >= 3)
        assert len(pages) <= 5


def test_its_lag_and_its_spans_are_measured(settings: Settings) -> None:
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    switched_on = settings.model_copy(update={"telemetry": "console"})
    telemetry.configure(switched_on, "t", span_processor=SimpleSpanProcessor(exporter), metric_reader=reader)
    try:
        log = Log()
        applied: list[dict[str, Any]] = []
        for n in range(10):
            log.append(str(n))
        with serving([ledger_over(log), reader_into(applied, [])], settings):
            eventually(lambda: len(applied) == 10)
            eventually(lambda: _lag(reader) == 0)
        pages = [span for span in exporter.get_finished_spans() if span.name == "process ledger"]
        counts = [span.attributes and span.attributes["messaging.batch.message_count"] for span in pages]
        assert counts == [7, 3]  # the page size is 7, and asking for the position is no page
    finally:
        telemetry.shutdown()


def test_a_page_larger_than_an_answer_is_gathered_from_several(settings: Settings) -> None:
    pages: list[list[int]] = []
    asked: list[int] = []

    class Counted(Log):
        def read(self, after: int, limit: int) -> list[dict[str, Any]]:
            asked.append(limit)
            return super().read(after, limit)

    class Behind:
        name = "behind"

        @follow("ledger", page_size=7)
        def on_ledger(self, page: list[dict[str, Any]]) -> int:
            pages.extend([[event["position"] for event in page]] if page else [])
            return sum(map(len, pages))

    log = Counted()
    for n in range(17):
        log.append(str(n))
    with serving([ledger_over(log), Behind], settings.model_copy(update={"page_max": 3})):
        eventually(lambda: sum(map(len, pages)) == 17)
    assert pages == [list(range(1, 8)), list(range(8, 15)), [15, 16, 17]]
    assert asked[:7] == [3, 3, 1, 3, 3, 1, 3]


def _lag(reader: InMemoryMetricReader) -> object:
    data: Any = reader.get_metrics_data()
    for metrics in data.resource_metrics[0].scope_metrics if data else []:
        for metric in metrics.metrics:
            if metric.name == "tokengrid.follower.lag":
                return next(iter(metric.data.data_points)).value
    return None
