"""What is on sale: the catalogue as any client can read it, from the catalog service's log. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from shared.eventstore.log import LoggedEvent
from shared.messaging.client import Client

PAGE = 1000


class Offer(NamedTuple):
    """A plan in force, and the models that its points may pay for at its operator."""

    plan: c.Plan
    version: int
    models: tuple[str, ...]


class Shop(NamedTuple):
    """One operator: where its subscribers are, and its offers by kind."""

    operator: str
    region: str
    offers: dict[str, tuple[Offer, ...]]


def log_of(client: Client, service: str, shard: int = 0) -> Iterator[LoggedEvent]:
    """A service's events, page by page, up to its log's head; of several shards, those of one."""
    after = 0
    while True:
        answer = client.call(service, "events", after=after, limit=PAGE, shard=shard, retries=3)
        for fields in answer["events"]:
            yield LoggedEvent(**fields)
        if not answer["events"]:
            return
        after = answer["events"][-1]["position"]


def read_catalogue(client: Client) -> CatalogueView:
    """All that was published, folded."""
    view = CatalogueView()
    for logged in log_of(client, "catalog"):
        view.apply(logged.position, logged.event)
    return view


def shops(view: CatalogueView, at: datetime) -> list[Shop]:
    """The operators that have offers, by name, with what each sells at this instant."""
    return [
        Shop(operator.key, operator.home_region, offers)
        for operator in (version.item for version in view.items(c.Operator, at))
        if (offers := _offers(view, operator.key, at))
    ]


def _offers(view: CatalogueView, operator: str, at: datetime) -> dict[str, tuple[Offer, ...]]:
    families = _callable_models(view, operator, at)
    found: dict[str, tuple[Offer, ...]] = {}
    for version in view.items(c.Plan, at):
        plan = version.item
        if plan.operator != operator:
            continue
        models = tuple(sorted(model for model, family in families.items() if plan.scope.covers(model, family)))
        if models:
            found[plan.kind] = (*found.get(plan.kind, ()), Offer(plan, version.number, models))
    return found


def _callable_models(view: CatalogueView, operator: str, at: datetime) -> dict[str, str]:
    """The models that have a price at this operator and run somewhere, with their families."""
    running = {version.item.model for version in view.items(c.Deployment, at)}
    priced = {v.item.model for v in view.items(c.RateCard, at) if v.item.operator == operator}
    return {
        version.item.model: version.item.family
        for version in view.items(c.Model, at)
        if version.item.status == "active" and version.item.model in running & priced
    }
