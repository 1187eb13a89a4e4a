"""The contract of every RPC method of catalog."""

from __future__ import annotations

from typing import Any

from services.catalog.questions import (
    Compare,
    DataCentres,
    Deployments,
    History,
    Imports,
    KindName,
    ListQuestion,
    Models,
    OneModel,
    OnePlan,
    OneRateCard,
    Operators,
    Plans,
    Policies,
    RateCards,
    Regions,
    Tariffs,
)
from shared.contracts import catalog as c
from shared.contracts.answers import Position, Version
from shared.contracts.base import Answer, Count, Instant, Reference, Slug
from shared.contracts.methods import Method
from shared.errors import (
    CatalogueConflict,
    Conflict,
    IdempotencyConflict,
    LimitExceeded,
    MalformedCommand,
    NoRateInForce,
    Unavailable,
    UnknownModel,
    UnknownOperator,
    UnknownPlan,
)


# --- answers ---------------------------------------------------------------------------------
class Published(Answer, frozen=True, kw_only=True):
    """How many items were new and how many held already unchanged, and where they stand in the log: positions are 0
    where nothing was new. `warnings`: sentences about prices below wholesale."""

    published: Count
    skipped: Count
    first_position: Position
    last_position: Position
    effective_from: Instant
    replayed: bool
    warnings: tuple[str, ...]


class Reason(Answer, frozen=True, kw_only=True):
    """A reason against a publication. `path`: the place in the catalogue it is about, such as `rate_cards.3.tiers.1`;
    `key`: of the item there."""

    path: str
    key: str
    text: str


class Named(Answer, frozen=True, kw_only=True):
    """An item."""

    kind: KindName
    key: Reference


class Changed(Named, frozen=True, kw_only=True):
    """An item whose fields differ. `fields`: by path, such as `rates.input`, a list of two: the value before and the
    value after; null where there is none."""

    fields: dict[str, list[Any]]


class Compared(Answer, frozen=True, kw_only=True):
    """What differs, kind by kind, in order of keys. `unchanged`: how many items are equal."""

    new: tuple[Named, ...]
    gone: tuple[Named, ...]
    changed: tuple[Changed, ...]
    unchanged: Count


class Checked(Answer, frozen=True, kw_only=True):
    """What publishing would do. `faults`: every reason against it; while there is one, nothing would be published and
    there are no `warnings`. `new`, `changed` and `unchanged`: the publication against what holds when it takes effect.
    `newly_unpriced`: models without a price in the import that have a rate card in force and were not without a
    price in the import before."""

    faults: tuple[Reason, ...]
    warnings: tuple[str, ...]
    new: tuple[Named, ...]
    changed: tuple[Changed, ...]
    unchanged: Count
    newly_unpriced: tuple[Slug, ...]


class ItemVersion(Answer, frozen=True, kw_only=True):
    """One version of an item. `reference` is `key@version`; `item` has every field of its kind."""

    key: Reference
    version: Version
    reference: Reference
    effective_from: Instant
    recorded_at: Instant


class AnyItem(ItemVersion, frozen=True, kw_only=True):
    """One version of an item of the kind that was asked for."""

    item: dict[str, Any]


class ModelItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a model."""

    item: c.Model


class RateCardItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a rate card."""

    item: c.RateCard


class PlanItem(ItemVersion, frozen=True, kw_only=True):
    """One version of an offer."""

    item: c.Plan


class OperatorItem(ItemVersion, frozen=True, kw_only=True):
    """One version of an operator."""

    item: c.Operator


class RegionItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a region."""

    item: c.Region


class DataCentreItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a data centre."""

    item: c.DataCentre


class DeploymentItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a deployment."""

    item: c.Deployment


class TariffItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a wholesale tariff."""

    item: c.Tariff


class PolicyItem(ItemVersion, frozen=True, kw_only=True):
    """One version of a routing policy."""

    item: c.Policy


class Positioned(Answer, frozen=True, kw_only=True):
    """Where the event stands in the log."""

    position: Position


ITEMS: dict[KindName, type[ItemVersion]] = {
    "model": ModelItem,
    "rate_card": RateCardItem,
    "plan": PlanItem,
    "operator": OperatorItem,
    "region": RegionItem,
    "data_centre": DataCentreItem,
    "deployment": DeploymentItem,
    "tariff": TariffItem,
    "policy": PolicyItem,
}
# Each list method: its question and the kind of things it lists.
LISTS: dict[str, tuple[type[ListQuestion], KindName]] = {
    "models": (Models, "model"),
    "rate_cards": (RateCards, "rate_card"),
    "plans": (Plans, "plan"),
    "operators": (Operators, "operator"),
    "regions": (Regions, "region"),
    "data_centres": (DataCentres, "data_centre"),
    "deployments": (Deployments, "deployment"),
    "tariffs": (Tariffs, "tariff"),
    "policies": (Policies, "policy"),
}

METHODS: tuple[Method, ...] = (
    Method(
        "check",
        c.Publish,
        "What publishing would do, and every reason against it. Nothing is published.",
        Checked,
        (MalformedCommand, LimitExceeded, Unavailable),
    ),
    Method("compare", Compare, "What differs between two instants.", Compared, (MalformedCommand, Unavailable)),
    Method(
        "publish",
        c.Publish,
        "What was published.",
        Published,
        (MalformedCommand, IdempotencyConflict, LimitExceeded, CatalogueConflict, Conflict, Unavailable),
    ),
    *(
        Method(
            name,
            question,
            "A list of versions in force, in order of their keys. A full list: ask again after its last key.",
            ITEMS[kind],
            (MalformedCommand, Unavailable),
            many=True,
        )
        for name, (question, kind) in LISTS.items()
    ),
    Method("model", OneModel, "The version in force.", ModelItem, (MalformedCommand, UnknownModel, Unavailable)),
    Method(
        "rate_card",
        OneRateCard,
        "The version in force.",
        RateCardItem,
        (MalformedCommand, UnknownOperator, UnknownModel, NoRateInForce, Unavailable),
    ),
    Method(
        "plan",
        OnePlan,
        "The version in force.",
        PlanItem,
        (MalformedCommand, UnknownOperator, UnknownPlan, Unavailable),
    ),
    Method(
        "history", History, "A list of every version, by number.", AnyItem, (MalformedCommand, Unavailable), many=True
    ),
    Method(
        "imports",
        Imports,
        "A list of the imports' events, each with its `position` in the log, oldest first.",
        c.PricesImported,
        (MalformedCommand, Unavailable),
        many=True,
        receipt=Positioned,
    ),
)
