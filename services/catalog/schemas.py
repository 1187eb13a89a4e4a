"""The contract of every RPC method of catalog."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from shared.contracts import catalog as c
from shared.contracts.answers import Position, Version
from shared.contracts.base import Answer, Command, Count, Instant, Reference, Slug
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

LIMIT_DEFAULT = 1000
KindName = Literal["region", "operator", "model", "data_centre", "deployment", "rate_card", "tariff", "plan", "policy"]
Limit = Annotated[int, Meta(ge=1, description="count; bounded by the settings' page_max")]
TariffModel = Annotated[
    str, Meta(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,63})\Z", description="model, or `*` for all others")
]


class Question(Command, frozen=True, kw_only=True):
    """`at`: what holds at this instant (now). `known_at`: as it had been recorded by then (all that is known)."""

    at: Instant | None = None
    known_at: Instant | None = None


class ListQuestion(Question, frozen=True, kw_only=True):
    """Items in order of their keys after the key `after`, at most `limit`; the other fields choose."""

    after: Reference = ""
    limit: Limit = LIMIT_DEFAULT


class Models(ListQuestion, frozen=True, kw_only=True):
    """Models."""

    family: Slug | None = None
    status: Literal["active", "deprecated", "retired"] | None = None


class OneModel(Question, frozen=True, kw_only=True):
    """One model, retired or not."""

    model: Slug


class OneRateCard(Question, frozen=True, kw_only=True):
    """What an operator charges for a model."""

    operator: Slug
    model: Slug


class RateCards(ListQuestion, frozen=True, kw_only=True):
    """Rate cards."""

    operator: Slug | None = None
    model: Slug | None = None


class Plans(ListQuestion, frozen=True, kw_only=True):
    """Offers."""

    operator: Slug | None = None
    kind: c.PlanKind | None = None


class OnePlan(Question, frozen=True, kw_only=True):
    """One offer."""

    operator: Slug
    plan: Slug


class Operators(ListQuestion, frozen=True, kw_only=True):
    """Operators."""


class Regions(ListQuestion, frozen=True, kw_only=True):
    """Regions."""


class DataCentres(ListQuestion, frozen=True, kw_only=True):
    """Data centres."""

    operator: Slug | None = None
    region: Slug | None = None


class Deployments(ListQuestion, frozen=True, kw_only=True):
    """Where models run."""

    model: Slug | None = None
    operator: Slug | None = None
    data_centre: Slug | None = None


class Tariffs(ListQuestion, frozen=True, kw_only=True):
    """Wholesale tariffs."""

    home: Slug | None = None
    serving: Slug | None = None
    model: TariffModel | None = None


class Policies(ListQuestion, frozen=True, kw_only=True):
    """Routing policies."""

    operator: Slug | None = None


class History(Command, frozen=True, kw_only=True):
    """Every version of one item. `key`: as in its stream, such as `shanghai-telecom/kimi-k2.5` of a rate card."""

    kind: KindName
    key: Reference


class Imports(Command, frozen=True, kw_only=True):
    """Price imports behind log position `after`, at most `limit`."""

    after: Count = 0
    limit: Limit = LIMIT_DEFAULT


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
