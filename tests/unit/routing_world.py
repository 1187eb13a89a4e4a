"""A small market for tests of routing: two operators, three regions, and the application on SQLite.

`beijing` sells `alpha` and has a data centre of its own; `guizhou` serves it under a tariff; `ningxia` has
no agreement with it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.routing.application import RoutingApplication
from services.routing.schemas import Deployments
from shared.catalogue.view import CatalogueView
from shared.clock import FrozenClock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts.base import Part, Rates, encode_event

START = datetime(2026, 6, 18, 4, 0, tzinfo=UTC)  # noon in Shanghai
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RETAIL = Rates(input=1000, cached_input=200, cache_write=1000, output=4000)

EVENTS: dict[type[Part], type[c.CatalogEvent]] = {
    c.Operator: c.OperatorPublished,
    c.Region: c.RegionPublished,
    c.Model: c.ModelPublished,
    c.RateCard: c.RateCardPublished,
    c.DataCentre: c.DataCentrePublished,
    c.Deployment: c.DeploymentPublished,
    c.Tariff: c.TariffPublished,
    c.Policy: c.PolicyPublished,
}


def deployment(name: str, operator: str, **changes: Any) -> c.Deployment:
    """A deployment of `alpha` at the operator's data centre, with ample capacity."""
    fields: dict[str, Any] = {
        "deployment": name,
        "model": "alpha",
        "data_centre": f"{operator}-1",
        "operator": operator,
        "tokens_per_minute": 1_000_000,
        "concurrent_calls": 100,
    }
    return c.Deployment(**(fields | changes))


def market() -> list[Part]:
    """The items of the small market."""
    return [
        *(c.Operator(operator=name, name=name, home_region=f"{name}-region") for name in ("beijing", "guizhou")),
        c.Operator(operator="ningxia", name="ningxia", home_region="ningxia-region"),
        c.Region(region="beijing-region", name="", latency_ms={"guizhou-region": 40, "ningxia-region": 20}),
        c.Region(region="guizhou-region", name="", latency_ms={}),
        c.Model(model="alpha", family="a", developer="A"),
        c.Model(model="beta", family="b", developer="B"),
        c.Model(model="old", family="o", developer="O", status="retired"),
        c.RateCard(operator="beijing", model="alpha", rates=RETAIL),
        c.DataCentre(
            data_centre="beijing-1",
            name="",
            region="beijing-region",
            operator="beijing",
            carbon_g_per_kwh=600,
            residency=("cn", "cn-bj"),
        ),
        c.DataCentre(
            data_centre="guizhou-1",
            name="",
            region="guizhou-region",
            operator="guizhou",
            carbon_g_per_kwh=100,
            residency=("cn", "cn-gz"),
        ),
        c.DataCentre(data_centre="ningxia-1", name="", region="ningxia-region", operator="ningxia", residency=("cn",)),
        deployment("bj-a", "beijing"),
        deployment("bj-b", "beijing"),
        deployment("gz-a", "guizhou"),
        deployment("nx-a", "ningxia"),
        c.Tariff(home="beijing", serving="guizhou", model="*", retail_percent=60),
    ]


def publication(item: Part, version: int = 1, effective_from: datetime = LONG_AGO) -> c.CatalogEvent:
    return EVENTS[type(item)](  # type: ignore[call-arg]
        at=effective_from,
        recorded_at=effective_from,
        request_id="published",
        version=version,
        effective_from=effective_from,
        item=item,
    )


def view_of(items: list[Part]) -> CatalogueView:
    view = CatalogueView()
    for position, item in enumerate(items, start=1):
        view.apply(position, publication(item))
    return view


class World:
    """Routing on SQLite with a clock that stands still, and any number of replicas of it."""

    def __init__(self, folder: Path, items: list[Part] | None = None, database: str | None = None) -> None:
        self.settings = Settings(var=folder, database=database or f"sqlite:///{folder}/{{service}}.db")
        self.clock = FrozenClock(START)
        self.replicas: list[RoutingApplication] = []
        self.app = self.replica()
        self.publish(market() if items is None else items)

    def replica(self) -> RoutingApplication:
        """Another process on the same database."""
        app = RoutingApplication(self.settings, self.clock)
        self.replicas.append(app)
        return app

    def restart(self) -> RoutingApplication:
        """The process ends; another one starts."""
        self.close()
        self.app = self.replica()
        return self.app

    def close(self) -> None:
        for app in self.replicas:
            app.close()
        self.replicas.clear()

    def publish(self, items: list[Part], version: int = 1, effective_from: datetime = LONG_AGO) -> None:
        """Append to the catalog's log, as every replica's follower sees it."""
        after = self.app.catalogue.view.position
        page = [
            {
                "position": after + n,
                "stream": f"item:{after + n}",
                "version": 1,
                "topic": EVENTS[type(item)].TOPIC,
                "state": encode_event(publication(item, version, effective_from)).decode(),
                "trace": None,
            }
            for n, item in enumerate(items, start=1)
        ]
        for app in self.replicas:
            app.follow_catalog(page)

    def route(self, call: str, app: RoutingApplication | None = None, **changes: Any) -> dict[str, Any]:
        fields = {"operator": "beijing", "call": call, "account": "alice", "model": "alpha"}
        return (app or self.app).submit("route", fields | changes)

    def report(
        self, call: str, deployment: str, outcome: str = "ok", app: RoutingApplication | None = None, **changes: Any
    ) -> dict[str, Any]:
        fields = {"operator": "beijing", "call": call, "deployment": deployment, "outcome": outcome}
        return (app or self.app).submit("report", fields | changes)

    def events(self) -> list[tuple[str, int, str]]:
        return [(e.stream, e.version, e.state) for e in self.app.log.read(0, 5000)]

    def seen(self, name: str, app: RoutingApplication | None = None) -> dict[str, Any]:
        """What an application knows of a deployment."""
        found: dict[str, Any]
        (found,) = [d for d in (app or self.app).deployments(Deployments())["deployments"] if d["deployment"] == name]
        return found


def route_fields(call: str) -> dict[str, Any]:
    return {"operator": "beijing", "call": call, "account": "alice", "model": "alpha"}


def route_of(call: str, **changes: Any) -> dict[str, Any]:
    return {"command": "route", **route_fields(call), **changes}
