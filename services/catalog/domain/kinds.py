"""The kinds of things a catalogue holds: the field each stands in, its stream, its event.

The order is the order of publication: whatever is referred to stands before what refers to it, so
that a follower who has folded a part of a publication holds no reference to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from shared.contracts import catalog as c


class Kind(NamedTuple):
    """`name`: of its streams (`name:key`); `field`: of `Catalogue`, where its items stand."""

    name: str
    field: str
    item: type[Any]
    event: type[c.CatalogEvent]


KINDS: tuple[Kind, ...] = (
    Kind("region", "regions", c.Region, c.RegionPublished),
    Kind("operator", "operators", c.Operator, c.OperatorPublished),
    Kind("model", "models", c.Model, c.ModelPublished),
    Kind("data_centre", "data_centres", c.DataCentre, c.DataCentrePublished),
    Kind("deployment", "deployments", c.Deployment, c.DeploymentPublished),
    Kind("rate_card", "rate_cards", c.RateCard, c.RateCardPublished),
    Kind("tariff", "tariffs", c.Tariff, c.TariffPublished),
    Kind("plan", "plans", c.Plan, c.PlanPublished),
    Kind("policy", "policies", c.Policy, c.PolicyPublished),
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}


class Place(NamedTuple):
    """An item and where it stands in a `Catalogue`: `path` is its field and its number there from 0, `rate_cards.3`."""

    kind: Kind
    number: int
    item: Any

    @property
    def key(self) -> str:
        return str(self.item.key)

    @property
    def path(self) -> str:
        return f"{self.kind.field}.{self.number}"

    @property
    def stream(self) -> str:
        return f"{self.kind.name}:{self.key}"


def places(catalogue: c.Catalogue) -> Iterator[Place]:
    """Every item of a catalogue, in the order of publication."""
    for kind in KINDS:
        for number, item in enumerate(getattr(catalogue, kind.field)):
            yield Place(kind, number, item)


class Fault(NamedTuple):
    """A reason against a publication. `path`: the place it is about, `rate_cards.3.tiers.1`."""

    path: str
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} ({self.key}): {self.text}"
