"""Billing as a service: it follows quota and catalog by itself, answers, and has its own log followed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.billing import service
from services.billing.application import BillingApplication
from services.billing.schemas import METHODS
from services.billing.service import BillingService
from services.catalog.application import CatalogApplication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from services.quota.shards import QuotaShards
from shared import telemetry
from shared.clock import FrozenClock
from shared.config import Settings
from shared.contracts.base import COMMANDS, Usage
from shared.errors import MalformedCommand, NotCaughtUp, UnknownBill
from shared.messaging.client import Client
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.runner import serving
from tests.unit.billing_world import (
    BEFORE,
    CLOSE_OF_JUNE,
    JUNE,
    QuotaLog,
    billing,
    follow,
    issue,
    june,
)
from tests.waiting import eventually

FEN = 2_500_000


class June(QuotaService):
    """Quota in the middle of June."""

    app = Hosted(lambda settings: QuotaShards(settings, FrozenClock(june(15))))


class CloseOfJune(BillingService):
    """Billing at the close of June."""

    app = Hosted(lambda settings: BillingApplication(settings, FrozenClock(CLOSE_OF_JUNE)))


class BeforeJune(CatalogService):
    """The catalog, when prices were published."""

    app = Hosted(lambda settings: CatalogApplication(settings, FrozenClock(BEFORE - timedelta(days=30))))


CATALOGUE = {
    "operators": [{"operator": "sh-telecom", "name": "Shanghai Telecom", "home_region": "sh"}],
    "regions": [{"region": "sh", "name": "Shanghai", "latency_ms": {}}],
    "models": [{"model": "kimi-k2.5", "family": "kimi", "developer": "Moonshot"}],
    "rate_cards": [{"operator": "sh-telecom", "model": "kimi-k2.5", "rates": {"input": 1000, "output": 4000}}],
    "plans": [
        {
            "operator": "sh-telecom",
            "plan": "m-990",
            "name": "Token Plan 9.9",
            "kind": "monthly",
            "fee_fen": 990,
            "allowance": 10**10,
        }
    ],
}
ACCOUNT: dict[str, Any] = {"operator": "sh-telecom", "account": "a1"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = Settings(broker=f"inproc://{tmp_path.name}", var=tmp_path, follow_poll_s=0.02)
    with serving([BeforeJune, June, CloseOfJune], settings), Client(settings) as made:
        made.call("catalog", "publish", request_id="p", effective_from="2026-01-01T00:00:00+08:00", catalogue=CATALOGUE)
        head = made.call("catalog", "head")
        for follower in ("quota", "billing"):
            caught_up = lambda f=follower: made.call(f, "status")["followed"]["catalog"] == head  # noqa: E731
            eventually(caught_up)
        yield made


def test_from_a_debit_in_quota_to_a_bill(client: Client) -> None:
    plan: dict[str, Any] = {"source": "plan", "plan": "m-990", "plan_version": 1, "price_fen": 990}
    client.call("quota", "open_account", request_id="o", **ACCOUNT, credit_limit=10 * FEN)
    client.call("quota", "grant", request_id="g", **ACCOUNT, amount=2 * FEN, **plan)
    # 12,500 tokens are 5 fen's worth: 2 from the plan, 3 on credit; then half of it is given back, credit first.
    client.call("quota", "debit", request_id="d", **ACCOUNT, model="kimi-k2.5", usage={"input": 12_500})
    client.call("quota", "reverse", request_id="r", **ACCOUNT, debit="d", amount=5 * FEN // 2)
    head = client.call("quota", "head")
    eventually(lambda: client.call("billing", "status")["followed"]["quota"] == head)
    answer = client.call("billing", "issue_bills", operator="sh-telecom", period=JUNE, quota_position=head)
    number = answer["numbers"][0]
    bill = client.call("billing", "bill", number=number)["bill"]
    assert [(line["kind"], line["fen"], line.get("residual")) for line in bill["lines"]] == [
        ("plan_fee", 990, None),
        ("usage", 1, "-1/2"),
    ]
    assert "Shanghai Telecom" in client.call("billing", "bill_page", number=number)["html"]
    assert client.call("billing", "events", after=0, limit=10)["head"] == 1


def test_refusals_reach_the_caller_as_they_are(client: Client) -> None:
    with pytest.raises(NotCaughtUp):
        client.call("billing", "issue_bills", operator="sh-telecom", period=JUNE, quota_position=10**6)
    with pytest.raises(UnknownBill):
        client.call("billing", "bill", number="x")
    with pytest.raises(MalformedCommand) as refused:
        client.call("billing", "bills", limit="many", colour="red")
    assert set(refused.value.details["fields"]) == {"limit", "colour"}


def test_every_method_that_is_served_is_listed_and_the_other_way_round() -> None:
    inherited = set(dir(LogService))
    served = {
        name
        for name in vars(service.BillingService)
        if not name.startswith(("_", "on_")) and callable(getattr(service.BillingService, name))
    }
    assert {method.name for method in METHODS} == served - inherited
    assert set(COMMANDS["billing"]) <= served


class TestTrace:
    """One trace from the debit to the line that bills it."""

    TRACE = "0af7651916cd43dd8448eb211c80319c"

    @pytest.fixture
    def spans(self, tmp_path: Path) -> Iterator[InMemorySpanExporter]:
        exporter = InMemorySpanExporter()
        settings = Settings(var=tmp_path, telemetry="console")
        telemetry.configure(settings, "billing", span_processor=SimpleSpanProcessor(exporter))
        yield exporter
        telemetry.shutdown()

    def test_a_usage_line_is_a_span_in_its_debits_trace(self, tmp_path: Path, spans: InMemorySpanExporter) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), Usage(input=2_500), overdrawn=FEN, trace=f"00-{self.TRACE}-b7ad6b7169203331-01")
        quota.debit(june(4), Usage(input=2_500), overdrawn=FEN)  # without one: the first stays
        quota.debit(june(4), Usage(input=1), model="untraced")
        follow(app, quota)
        issue(app, quota)
        (span,) = [s for s in spans.get_finished_spans() if s.name == "billing/line"]
        assert span.context and span.parent and span.attributes  # noqa: PT018
        assert f"{span.context.trace_id:032x}" == self.TRACE
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
        assert span.attributes["tokengrid.bill"] == "sh-telecom-2026-06-000001"
        assert span.attributes["tokengrid.fen"] == 2
