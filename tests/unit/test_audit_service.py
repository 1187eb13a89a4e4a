"""The audit service as its callers see it, in one process, beside the services that it follows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import eventlet
import pytest

from services.audit.replay import run_audit
from services.audit.schemas import METHODS
from services.audit.service import AuditService
from services.billing.service import BillingService
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from services.routing.service import RoutingService
from shared.config import Settings
from shared.errors import MalformedCommand, NotCaughtUp
from shared.messaging.client import Client
from shared.messaging.rpc import Rpc
from shared.messaging.runner import serving
from tests.unit.audit_world import CATALOGUE, EAST, LONG_AGO
from tests.waiting import eventually

ALL = [CatalogService, QuotaService, RoutingService, BillingService, AuditService]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = Settings(broker=f"inproc://{tmp_path.name}", var=tmp_path, seal_interval_s=0.05)
    with serving(ALL, settings), Client(settings) as connected:
        connected.call("catalog", "publish", request_id="c", effective_from=LONG_AGO, catalogue=CATALOGUE)
        head = connected.call("catalog", "head")
        eventually(lambda: connected.call("quota", "status")["followed"]["catalog"] == head)
        yield connected


def spend(client: Client, calls: int = 5) -> None:
    owner: dict[str, Any] = {"operator": EAST, "account": "a1"}
    client.call("quota", "open_account", **owner, request_id="open", plan="payg", credit_limit=10**9)
    for n in range(calls):
        client.call("quota", "debit", **owner, request_id=f"d{n}", model="alpha", usage={"input": 100 + n})


def test_every_published_method_is_there() -> None:
    offered = {name for name in dir(AuditService) if _is_rpc(getattr(AuditService, name))}
    assert {method.name for method in METHODS} == offered - {"events", "stream", "head", "ping"}


def _is_rpc(method: Any) -> bool:
    return any(isinstance(entrypoint, Rpc) for entrypoint in getattr(method, "nameko_entrypoints", ()))


def test_logs_are_followed_and_sealed_by_themselves(client: Client) -> None:
    spend(client)
    head = client.call("quota", "head")
    eventually(lambda: client.call("audit", "status")["sealed"]["quota"] == head)
    page = client.call("audit", "events", after=0, limit=100)
    assert {e["topic"] for e in page["events"]} == {"audit.CheckpointSigned:1"}


def test_refusals_arrive(client: Client) -> None:
    with pytest.raises(NotCaughtUp):
        client.call("audit", "seal", log="billing", position=10**6)
    with pytest.raises(MalformedCommand):
        client.call("audit", "seal", log="billing")


def test_an_audit_over_the_wire_agrees(client: Client) -> None:
    spend(client)
    report = run_audit(client, "2026-06")
    assert report.differences == ()
    assert report.accounts == 1
    assert report.debited == sum((100 + n) * 1000 for n in range(5))
    assert report.checkpoints["quota"]["size"] == report.events["quota"] == 6


def test_an_audit_of_a_system_at_work_agrees(client: Client) -> None:
    """Calls go on while the logs are read: what is in flight is no difference."""
    spend(client)
    owner: dict[str, Any] = {"operator": EAST, "account": "a1"}
    done = 0
    stopping = False

    def work(caller: int) -> None:
        nonlocal done
        for n in count():
            if stopping:
                return
            call = f"c{caller}-{n}"
            about: dict[str, Any] = {"operator": EAST, "call": call}
            routed = client.call("routing", "route", **about, account="a1", model="alpha", tokens=2000)
            where = {"deployment": routed["deployment"], "serving_operator": routed["serving_operator"]}
            usage = {"input": 1000 + n, "output": 10}
            client.call(
                "quota", "reserve", **owner, request_id=call, model="alpha", max_usage={"input": 2000}, call=call
            )
            client.call("quota", "settle", **owner, request_id=f"s{call}", reservation=call, usage=usage, **where)
            report = {**about, "deployment": where["deployment"], "outcome": "ok", "usage": usage}
            client.call("routing", "report", **report)
            done += 1

    callers = [eventlet.spawn(work, n) for n in range(4)]
    try:
        for _ in range(3):
            before = done
            eventually(lambda before=before: done > before + 10)  # type: ignore[misc]
            report = run_audit(client, "2026-06")
            assert report.differences == ()
            assert report.events["quota"] > 6 + 2 * before
    finally:
        stopping = True
        for caller in callers:
            caller.wait()
