"""What a publication refers to: whether it is in force when the publication takes effect, and fits.

It knows what was published before, and nothing of prices: `completeness` looks at those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

from services.catalog.domain.kinds import Fault, Place, places
from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c


class Horizon:
    """What is in force at the instant a publication takes effect, the publication included."""

    def __init__(self, view: CatalogueView, catalogue: c.Catalogue, at: datetime) -> None:
        self._view = view
        self._at = at
        self._here = {(place.kind.item, place.key): place.item for place in places(catalogue)}

    def get(self, kind: type[Any], key: str) -> Any:
        """The item, or None."""
        if (kind, key) in self._here:
            return self._here[kind, key]
        found = self._view.in_force(kind, key, self._at)
        return None if found is None else found.item

    def before(self, kind: type[Any]) -> Iterator[Any]:
        """Every item of a kind that was published before and that the publication does not have."""
        for version in self._view.items(kind, self._at):
            if (kind, version.item.key) not in self._here:
                yield version.item

    def all(self, kind: type[Any]) -> Iterator[Any]:
        """Every item of a kind."""
        yield from self.before(kind)
        yield from (item for (of, _key), item in self._here.items() if of is kind)

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """The models that are sold, by family."""
        found: dict[str, list[str]] = {}
        for model in self.all(c.Model):
            if model.status != "retired":
                found.setdefault(model.family, []).append(model.model)
        return found

    @cached_property
    def priced(self) -> set[str]:
        """The models that some operator has a rate card for."""
        return {card.model for card in self.all(c.RateCard)}

    @cached_property
    def sellers(self) -> dict[str, list[c.Deployment | c.Plan]]:
        """What was published before and sells a model by its name, by model: where it runs, and plans for it."""
        found: dict[str, list[c.Deployment | c.Plan]] = {}
        for deployment in self.before(c.Deployment):
            found.setdefault(deployment.model, []).append(deployment)
        for plan in self.before(c.Plan):
            for model in dict.fromkeys(plan.scope.models):
                found.setdefault(model, []).append(plan)
        return found

    @cached_property
    def tenants(self) -> dict[str, list[c.Deployment]]:
        """Deployments by data centre."""
        found: dict[str, list[c.Deployment]] = {}
        for deployment in self.all(c.Deployment):
            found.setdefault(deployment.data_centre, []).append(deployment)
        return found


def reference_faults(horizon: Horizon, new: Iterable[Place]) -> Iterator[Fault]:
    """References to what is not in force then, and things that do not fit what they refer to."""
    for place in new:
        for where, text in _references(horizon, place.item):
            yield Fault(f"{place.path}{where}", place.key, text)


def _references(horizon: Horizon, item: Any) -> Iterator[tuple[str, str]]:
    match item:
        case c.Region():
            yield from _known(horizon, c.Region, {f".latency_ms.{name}": name for name in item.latency_ms})
        case c.Operator():
            yield from _known(horizon, c.Region, {".home_region": item.home_region})
        case c.Model():
            yield from _known(horizon, c.Model, {".successor": item.successor} if item.successor else {})
        case c.RateCard():
            yield from _known(horizon, c.Operator, {".operator": item.operator})
            yield from _sellable(horizon, item.model)
        case c.DataCentre():
            yield from _known(horizon, c.Operator, {".operator": item.operator})
            yield from _known(horizon, c.Region, {".region": item.region})
            yield from _tenants(horizon, item)
        case c.Deployment():
            yield from _deployment(horizon, item)
        case c.Tariff():
            yield from _known(horizon, c.Operator, {".home": item.home, ".serving": item.serving})
            if item.model != "*":
                yield from _sellable(horizon, item.model)
        case c.Plan():
            yield from _known(horizon, c.Operator, {".operator": item.operator})
            for index, model in enumerate(item.scope.models):
                yield from _sellable(horizon, model, f".scope.models.{index}")
            for index, family in enumerate(item.scope.families):
                if family not in horizon.families:
                    yield f".scope.families.{index}", f"no model on sale is of the family {family!r}"
        case c.Policy():
            yield from _known(horizon, c.Operator, {".operator": item.operator})
            for index, name in enumerate(item.preferred):
                if not any(horizon.get(kind, name) for kind in (c.Operator, c.DataCentre, c.Deployment)):
                    yield f".preferred.{index}", f"{name!r} is no operator, data centre or deployment"


def _known(horizon: Horizon, kind: type[Any], references: dict[str, str]) -> Iterator[tuple[str, str]]:
    for where, key in references.items():
        if horizon.get(kind, key) is None:
            yield where, f"no {_WORDS[kind]} {key!r} is in force then"


_WORDS: dict[type[Any], str] = {
    c.Region: "region",
    c.Operator: "operator",
    c.Model: "model",
    c.DataCentre: "data centre",
}


def _sellable(horizon: Horizon, model: str, where: str = ".model") -> Iterator[tuple[str, str]]:
    found = horizon.get(c.Model, model)
    if found is None:
        yield where, f"no model {model!r} is in force then"
    elif found.status == "retired":
        yield where, f"the model {model!r} is retired: it is not sold"


def _deployment(horizon: Horizon, item: c.Deployment) -> Iterator[tuple[str, str]]:
    yield from _known(horizon, c.Operator, {".operator": item.operator})
    yield from _known(horizon, c.DataCentre, {".data_centre": item.data_centre})
    yield from _sellable(horizon, item.model)
    centre = horizon.get(c.DataCentre, item.data_centre)
    if centre is not None and centre.operator != item.operator:
        yield ".operator", f"{item.data_centre} is run by {centre.operator}, not by {item.operator}"


def _tenants(horizon: Horizon, centre: c.DataCentre) -> Iterator[tuple[str, str]]:
    """A data centre cannot change hands while deployments of another operator are in it."""
    for deployment in horizon.tenants.get(centre.data_centre, ()):
        if deployment.operator != centre.operator:
            yield ".operator", f"the deployment {deployment.deployment} there is run by {deployment.operator}"
