"""What would be sold without a price: a model that runs somewhere and has no rate card, points that pay for nothing.

A publication answers for what is new in it, so that models may come first, then rate cards, then
deployments and plans; whatever is unknown or retired is `references`' to name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.catalog.domain.kinds import Fault, Place
from services.catalog.domain.references import Horizon
from shared.contracts import catalog as c


def price_faults(horizon: Horizon, new: Iterable[Place]) -> Iterator[Fault]:
    """Whatever of `new` puts on sale what has no price when the publication takes effect."""
    for place in new:
        for where, text in _unpriced(horizon, place):
            yield Fault(f"{place.path}{where}", place.key, text)


def _unpriced(horizon: Horizon, place: Place) -> Iterator[tuple[str, str]]:
    match place.item:
        case c.Deployment(model=model) if _on_sale(horizon, model) and model not in horizon.priced:
            yield ".model", f"{model!r} would be sold without a price: no operator has a rate card for it then"
        case c.Model(model=model) if _on_sale(horizon, model) and model not in horizon.priced:
            # Of a log that was written before these needed a price, or it was retired and is sold again.
            for seller in horizon.sellers.get(model, ()):
                if isinstance(seller, c.Deployment):
                    yield ".status", f"{seller.key} would sell it without a price: it has no rate card then"
                else:
                    yield ".status", f"the plan {seller.key} names it, and it has no rate card then"
        case c.Plan():
            yield from _scope(horizon, place.item)
        case _:
            pass


def _scope(horizon: Horizon, plan: c.Plan) -> Iterator[tuple[str, str]]:
    """Whatever a plan's scope names must have a price at the plan's operator, of a family one model at least."""
    for index, model in enumerate(plan.scope.models):
        if _on_sale(horizon, model) and not _sells(horizon, plan.operator, model):
            yield f".scope.models.{index}", f"{plan.operator} has no rate card for {model!r} then"
    for index, family in enumerate(plan.scope.families):
        members = horizon.families.get(family, [])
        if members and not any(_sells(horizon, plan.operator, model) for model in members):
            yield f".scope.families.{index}", f"{plan.operator} has no rate card for any model of {family!r} then"


def _on_sale(horizon: Horizon, model: str) -> bool:
    found = horizon.get(c.Model, model)
    return found is not None and found.status != "retired"


def _sells(horizon: Horizon, operator: str, model: str) -> bool:
    return horizon.get(c.RateCard, f"{operator}/{model}") is not None
