"""Catalog's published language: what can be bought, and when which price holds.

Everything published has a key, a version (its stream's version) and an instant from which it takes
effect (`effective_from`); the instant it was recorded is `recorded_at`. A published version is
never changed: a new one supersedes it from a stated instant. Streams are `kind:key`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shared.contracts.base import (
    AmountOrZero,
    Command,
    Count,
    Fen,
    Instant,
    Part,
    Percent,
    Rate,
    Rates,
    Reference,
    Requested,
    RequestId,
    Scope,
    Slug,
    Text,
    Tokens,
    command,
    event,
)

MinuteOfDay = Annotated[int, Meta(ge=0, le=1440, description="minutes since midnight in Shanghai")]
Ms = Annotated[int, Meta(ge=0, le=600_000, description="milliseconds")]
PlanKind = Literal["payg", "monthly", "coding", "trial", "bundle", "postpaid"]


class Model(Part, frozen=True, kw_only=True):
    """An AI model that can be called."""

    model: Slug
    family: Slug
    developer: Text
    provider: Text = ""
    context_tokens: Tokens = 0
    modality: Slug = "text"
    status: Literal["active", "deprecated", "retired"] = "active"
    successor: Reference = ""

    @property
    def key(self) -> str:
        return self.model


class Tier(Part, frozen=True, kw_only=True):
    """A cliff: with more input than `above_input_tokens`, every token of the call takes these rates."""

    above_input_tokens: Tokens
    rates: Rates


class OffPeak(Part, frozen=True, kw_only=True):
    """Rates of a part of the day; `from_minute` above `to_minute` runs over midnight."""

    from_minute: MinuteOfDay
    to_minute: MinuteOfDay
    rates: Rates

    def covers(self, minute: int) -> bool:
        if self.from_minute <= self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute


class RateCard(Part, frozen=True, kw_only=True):
    """What one operator charges for one model. Rates are points per 1,000 tokens."""

    operator: Slug
    model: Slug
    rates: Rates
    tiers: tuple[Tier, ...] = ()
    off_peak: tuple[OffPeak, ...] = ()
    source: Text = ""

    @property
    def key(self) -> str:
        return f"{self.operator}/{self.model}"


class Bundle(Part, frozen=True, kw_only=True):
    """What else is sold together with the tokens, and the share of the price that belongs to them."""

    product: Text
    bundle_price_fen: Fen
    token_share_percent: Percent


Months = Annotated[int, Meta(ge=1, le=120, description="months")]


class Phase(Part, frozen=True, kw_only=True):
    """Terms of a subscription's first months, before the plan's own fee and allowance hold."""

    months: Months
    name: Text = ""
    fee_fen: Fen = 0
    allowance: AmountOrZero = 0


class Plan(Part, frozen=True, kw_only=True):
    """An offer. `allowance` is granted each period; `points_per_yuan` is the price as you go.

    `phases`: what holds instead of `fee_fen` and `allowance` in the first months, one phase after the other.
    `cycle`: a period ends with the calendar month, or a month after the subscription's day. `rollover` limited: of what
    is left at a period's end, at most `rollover_max` can be used for one more period. `discount_percent` is off
    the fee, `usage_discount_percent` off what usage as you go costs; `cap_fen` is the most and `commitment_fen` the
    least that it costs in a month (0: no bound).
    """

    operator: Slug
    plan: Slug
    name: Text
    kind: PlanKind
    fee_fen: Fen = 0
    allowance: AmountOrZero = 0
    scope: Scope = Scope()
    priority: Count = 50
    phases: tuple[Phase, ...] = ()
    cycle: Literal["calendar", "anniversary"] = "calendar"
    rollover: Literal["none", "limited"] = "none"
    rollover_max: AmountOrZero = 0
    overage: Literal["refuse", "payg"] = "refuse"
    points_per_yuan: Rate = 250_000
    credit_limit: AmountOrZero = 0
    trial_days: Count = 0
    discount_percent: Percent = 0
    usage_discount_percent: Percent = 0
    cap_fen: Fen = 0
    commitment_fen: Fen = 0
    bundle: Bundle | None = None
    source: Text = ""

    @property
    def key(self) -> str:
        return f"{self.operator}/{self.plan}"


class Operator(Part, frozen=True, kw_only=True):
    """A seller and server of tokens."""

    operator: Slug
    name: Text
    home_region: Slug

    @property
    def key(self) -> str:
        return self.operator


class Region(Part, frozen=True, kw_only=True):
    """A place of users or data centres, with the round trip to every other in milliseconds."""

    region: Slug
    name: Text
    latency_ms: dict[Slug, Ms]

    @property
    def key(self) -> str:
        return self.region


class DataCentre(Part, frozen=True, kw_only=True):
    data_centre: Slug
    name: Text
    region: Slug
    operator: Slug
    carbon_g_per_kwh: Count = 0
    residency: tuple[Slug, ...] = ()

    @property
    def key(self) -> str:
        return self.data_centre


class Deployment(Part, frozen=True, kw_only=True):
    """A model at a data centre, run by an operator."""

    deployment: Slug
    model: Slug
    data_centre: Slug
    operator: Slug
    tokens_per_minute: Count
    concurrent_calls: Count

    @property
    def key(self) -> str:
        return self.deployment


class Tariff(Part, frozen=True, kw_only=True):
    """Wholesale: what the serving operator charges the home operator for a model.

    Without an own tariff for the model, the pair's tariff for model `*` holds as a share of retail.
    """

    home: Slug
    serving: Slug
    model: Annotated[
        str, Meta(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,63})\Z", description="model, or `*` for all others")
    ]
    rates: Rates = Rates()
    retail_percent: Percent = 0
    discount_percent: Percent = 0

    @property
    def key(self) -> str:
        return f"{self.home}/{self.serving}/{self.model}"


class Policy(Part, frozen=True, kw_only=True):
    """Weights of routing's score, for one home operator."""

    operator: Slug
    price: Count = 40
    latency: Count = 30
    load: Count = 20
    carbon: Count = 5
    preference: Count = 5
    preferred: tuple[Slug, ...] = ()

    @property
    def key(self) -> str:
        return self.operator


# --- events: one a kind, each carrying the whole item -------------------------------------------
class CatalogEvent(Requested, frozen=True, kw_only=True):
    """`at` equals `recorded_at` for publications; what counts for prices is `effective_from`."""

    version: Count
    effective_from: Instant


@event("catalog")
class ModelPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Model


@event("catalog")
class RateCardPublished(CatalogEvent, frozen=True, kw_only=True):
    item: RateCard


@event("catalog")
class PlanPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Plan


@event("catalog")
class OperatorPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Operator


@event("catalog")
class RegionPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Region


@event("catalog")
class DataCentrePublished(CatalogEvent, frozen=True, kw_only=True):
    item: DataCentre


@event("catalog")
class DeploymentPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Deployment


@event("catalog")
class TariffPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Tariff


@event("catalog")
class PolicyPublished(CatalogEvent, frozen=True, kw_only=True):
    item: Policy


@event("catalog")
class PricesImported(CatalogEvent, frozen=True, kw_only=True):
    """Where rates came from: package, its version, a hash of what was read, and what it could not price."""

    package: Text
    package_version: Text
    content_sha256: Text
    fen_per_usd: Count
    priced: Count
    unpriced: tuple[Slug, ...] = ()


# --- commands --------------------------------------------------------------------------------
class Catalogue(Part, frozen=True, kw_only=True):
    """A whole catalogue or a part of one, as it stands in a YAML file."""

    operators: tuple[Operator, ...] = ()
    regions: tuple[Region, ...] = ()
    models: tuple[Model, ...] = ()
    rate_cards: tuple[RateCard, ...] = ()
    plans: tuple[Plan, ...] = ()
    data_centres: tuple[DataCentre, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    tariffs: tuple[Tariff, ...] = ()
    policies: tuple[Policy, ...] = ()


class Import(Part, frozen=True, kw_only=True):
    """The provenance of imported rates."""

    package: Text
    package_version: Text
    content_sha256: Text
    fen_per_usd: Count
    priced: Count
    unpriced: tuple[Slug, ...] = ()


@command("catalog", "publish")
class Publish(Command, frozen=True, kw_only=True):
    """Publish items that take effect at `effective_from`; whole or not at all.

    What is already in force unchanged is skipped, so publishing a file twice changes nothing.
    """

    request_id: RequestId
    effective_from: Instant
    catalogue: Catalogue
    imported: Import | None = None
