"""One trace from the reservation to the line of the bill, across RPC and followers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.billing.service import BillingService
from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from shared import telemetry
from shared.config import Settings
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.waiting import eventually

WALLET = {"operator": "shanghai-telecom", "account": "a1"}
JUNE = {"occurred_at": "2026-06-10T04:00:00Z"}


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    telemetry.configure(Settings(var=tmp_path, telemetry="console"), "test", span_processor=SimpleSpanProcessor(made))
    yield made
    telemetry.shutdown()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = Settings(var=tmp_path, telemetry="console", backdate_max_s=10**9, follow_poll_s=0.05)
    with serving([CatalogService, QuotaService, BillingService], settings), Client(settings) as client:
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        head = client.call("catalog", "head")
        for service in ("quota", "billing"):
            eventually(lambda s=service: client.call(s, "status")["followed"]["catalog"] == head)
        yield client
    inproc.reset()


def test_one_trace_from_reserve_to_bill_line(exporter: InMemorySpanExporter, client: Client) -> None:
    client.call(
        "quota", "open_account", **WALLET, request_id="o", credit_limit=10**12, occurred_at="2026-06-01T00:00:00Z"
    )
    with telemetry.span("gateway/call") as root:
        client.call("quota", "reserve", **WALLET, **JUNE, request_id="h", model="kimi-k2.5", amount=10**7)
        client.call("quota", "settle", **WALLET, **JUNE, request_id="s", reservation="h", usage={"input": 900})
        trace_id = root.get_span_context().trace_id
    head = client.call("quota", "head")
    eventually(lambda: client.call("billing", "status")["followed"]["quota"] == head)
    client.call(
        "billing", "issue_bills", operator=WALLET["operator"], period="2026-06", quota_position=head
    )  # in a trace of its own
    spans: dict[str, list[Any]] = {}
    for span in exporter.get_finished_spans():
        if span.context.trace_id == trace_id:
            spans.setdefault(span.name, []).append(span)
    assert {"gateway/call", "quota/reserve", "quota/settle", "billing/line"} <= set(spans)
    assert {kind.kind.name for kind in spans["quota/settle"]} == {"CLIENT", "SERVER"}
