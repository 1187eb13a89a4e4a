"""Deciding a publication: what of it is new, and every reason against it.

Whole or not at all. The past is what calls were priced by: it is never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from services.catalog.domain.kinds import Fault, Place, places
from services.catalog.domain.structure import structure_faults
from shared.catalogue.view import CatalogueView
from shared.clock import SHANGHAI
from shared.contracts import catalog as c
from shared.errors import CatalogueConflict

# A publication with hundreds of mistakes must not make a refusal larger than itself.
REASONS_MAX = 200


class Publication(NamedTuple):
    """What a publication comes to: what is new, and how many items hold unchanged already."""

    new: tuple[Place, ...]
    skipped: int


def decide(view: CatalogueView, command: c.Publish, now: datetime, tolerance_s: int) -> Publication:
    """What of `command` is new, judged at `now`.

    `tolerance_s`: how far before `now` a new version may take effect, for clocks that differ.
    Raises CatalogueConflict with every reason.
    """
    all_places = tuple(places(command.catalogue))
    new = tuple(place for place in all_places if not _holds(view, place, command.effective_from))
    faults = structure_faults(command.catalogue)
    faults += _past_faults(view, new, command.effective_from, now - timedelta(seconds=tolerance_s))
    faults += reference_faults(view, command.catalogue, new, command.effective_from)
    if faults:
        raise CatalogueConflict(
            f"refused for {len(faults)} {'reason' if len(faults) == 1 else 'reasons'}; nothing was published",
            {"reasons": [str(fault) for fault in faults[:REASONS_MAX]], "count": len(faults)},
        )
    return Publication(new, len(all_places) - len(new))


def _holds(view: CatalogueView, place: Place, at: datetime) -> bool:
    found = view.in_force(place.kind.item, place.key, at)
    return found is not None and found.item == place.item


# --- the past ------------------------------------------------------------------------------------
def _past_faults(
    view: CatalogueView, new: Iterable[Place], effective_from: datetime, earliest: datetime
) -> Iterator[Fault]:
    local = effective_from.astimezone(SHANGHAI)
    midnight = (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
    for place in new:
        if isinstance(place.item, c.Tariff) and not midnight:
            yield Fault(place.path, place.key, f"a tariff takes effect at midnight in Shanghai, not at {local}")
        if effective_from < earliest and _priced_before(view, place):
            yield Fault(
                place.path,
                place.key,
                f"would change the past: known already, and {effective_from.isoformat()} is before the publication",
            )


def _priced_before(view: CatalogueView, place: Place) -> bool:
    """Whether something was, or may have been, priced or decided by what this would supersede.

    The first version of a key may take effect at any past instant, for nothing held there before; but a
    model's own tariff takes the place of the pair's tariff for all others.
    """
    if view.known(place.kind.item, place.key):
        return True
    return isinstance(place.item, c.Tariff) and view.known(c.Tariff, f"{place.item.home}/{place.item.serving}/*")


# --- references -----------------------------------------------------------------------------------
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

    def all(self, kind: type[Any]) -> Iterator[Any]:
        """Every item of a kind."""
        for version in self._view.items(kind, self._at):
            if (kind, version.item.key) not in self._here:
                yield version.item
        yield from (item for (of, _key), item in self._here.items() if of is kind)

    @cached_property
    def families(self) -> set[str]:
        """The families of models."""
        return {model.family for model in self.all(c.Model)}

    @cached_property
    def tenants(self) -> dict[str, list[c.Deployment]]:
        """Deployments by data centre."""
        found: dict[str, list[c.Deployment]] = {}
        for deployment in self.all(c.Deployment):
            found.setdefault(deployment.data_centre, []).append(deployment)
        return found


def reference_faults(
    view: CatalogueView, catalogue: c.Catalogue, new: Iterable[Place], at: datetime
) -> Iterator[Fault]:
    """References to what is not in force at `at`, and things that do not fit what they refer to."""
    horizon = Horizon(view, catalogue, at)
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
                yield from _known(horizon, c.Model, {".model": item.model})
        case c.Plan():
            yield from _known(horizon, c.Operator, {".operator": item.operator})
            models = {f".scope.models.{index}": model for index, model in enumerate(item.scope.models)}
            yield from _known(horizon, c.Model, models)
            for index, family in enumerate(item.scope.families):
                if family not in horizon.families:
                    yield f".scope.families.{index}", f"no model is of the family {family!r}"
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


def _sellable(horizon: Horizon, model: str) -> Iterator[tuple[str, str]]:
    found = horizon.get(c.Model, model)
    if found is None:
        yield ".model", f"no model {model!r} is in force then"
    elif found.status == "retired":
        yield ".model", f"the model {model!r} is retired: it is not sold"


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
