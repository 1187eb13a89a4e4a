"""The routing service as its callers see it, in one process, beside the catalog that it follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.catalog.service import CatalogService
from services.routing.schemas import METHODS
from services.routing.service import RoutingService
from shared.config import Settings
from shared.contracts import catalog as c
from shared.errors import MalformedCommand, NoDeployment, UnknownCall
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.unit.routing_world import market
from tests.waiting import eventually

NAMES: dict[type[Any], str] = {
    c.Operator: "operators",
    c.Region: "regions",
    c.Model: "models",
    c.RateCard: "rate_cards",
    c.DataCentre: "data_centres",
    c.Deployment: "deployments",
    c.Tariff: "tariffs",
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = Settings(broker=f"inproc://{tmp_path.name}", var=tmp_path)
    items = [*market(), c.Region(region="ningxia-region", name="Ningxia", latency_ms={})]
    catalogue: dict[str, list[Any]] = {}
    for item in items:
        catalogue.setdefault(NAMES[type(item)], []).append(msgspec.to_builtins(item))
    with serving([CatalogService, RoutingService], settings), Client(settings) as connected:
        connected.call(
            "catalog", "publish", request_id="market", effective_from="2026-01-01T00:00:00+08:00", catalogue=catalogue
        )
        head = connected.call("catalog", "head")
        eventually(lambda: connected.call("routing", "status")["followed"]["catalog"] == head)
        yield connected


ROUTE: dict[str, Any] = {"operator": "beijing", "call": "c1", "account": "alice", "model": "alpha"}


def test_a_calls_life(client: Client) -> None:
    assert client.call("routing", "route", **ROUTE)["deployment"] == "bj-a"
    report: dict[str, Any] = {"operator": "beijing", "call": "c1", "deployment": "bj-a"}
    assert client.call("routing", "report", **report, outcome="error")["kind"] == "CallServed"
    assert client.call("routing", "route", **ROUTE, exclude=["bj-a"])["deployment"] == "bj-b"
    (one,) = client.call(
        "routing", "execute", commands=[report | {"command": "report", "deployment": "bj-b", "outcome": "ok"}]
    )
    assert one["ok"]["version"] == 4
    kinds = [e["kind"] for e in client.call("routing", "call", operator="beijing", call="c1")["events"]]
    assert kinds == ["CallRouted", "CallServed", "CallRouted", "CallServed"]
    seen = client.call("routing", "deployments", model="alpha", limit=1)
    assert (seen["deployments"][0]["consecutive_failures"], seen["more"]) == (1, True)
    assert len(client.call("routing", "events", after=0)["events"]) == 4


@pytest.mark.parametrize(
    ("method", "arguments", "refusal"),
    [
        ("route", {}, MalformedCommand),
        ("route", ROUTE | {"residency": ["moon"]}, NoDeployment),
        ("report", {"operator": "beijing", "call": "x", "deployment": "bj-a", "outcome": "ok"}, UnknownCall),
        ("execute", {}, MalformedCommand),
        ("call", {"operator": "beijing"}, MalformedCommand),
        ("deployments", {"limit": -1}, MalformedCommand),
        ("deployments", {"model": ["alpha"]}, MalformedCommand),
    ],
)
def test_refusals_arrive_as_what_they_are(
    client: Client, method: str, arguments: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        client.call("routing", method, **arguments)


def test_every_published_method_exists() -> None:
    for method in METHODS:
        assert callable(getattr(RoutingService, method.name))
