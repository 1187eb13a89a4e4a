"""What can be asked of the catalog: the arguments of its methods, `publish` and `check` aside."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shared.contracts import catalog as c
from shared.contracts.base import Command, Count, Instant, Reference, Slug

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

    NAME = "models"

    family: Slug | None = None
    status: Literal["active", "deprecated", "retired"] | None = None


class OneModel(Question, frozen=True, kw_only=True):
    """One model, retired or not."""

    NAME = "model"

    model: Slug


class OneRateCard(Question, frozen=True, kw_only=True):
    """What an operator charges for a model."""

    NAME = "rate_card"

    operator: Slug
    model: Slug


class RateCards(ListQuestion, frozen=True, kw_only=True):
    """Rate cards."""

    NAME = "rate_cards"

    operator: Slug | None = None
    model: Slug | None = None


class Plans(ListQuestion, frozen=True, kw_only=True):
    """Offers."""

    NAME = "plans"

    operator: Slug | None = None
    kind: c.PlanKind | None = None


class OnePlan(Question, frozen=True, kw_only=True):
    """One offer."""

    NAME = "plan"

    operator: Slug
    plan: Slug


class Operators(ListQuestion, frozen=True, kw_only=True):
    """Operators."""

    NAME = "operators"


class Regions(ListQuestion, frozen=True, kw_only=True):
    """Regions."""

    NAME = "regions"


class DataCentres(ListQuestion, frozen=True, kw_only=True):
    """Data centres."""

    NAME = "data_centres"

    operator: Slug | None = None
    region: Slug | None = None


class Deployments(ListQuestion, frozen=True, kw_only=True):
    """Where models run."""

    NAME = "deployments"

    model: Slug | None = None
    operator: Slug | None = None
    data_centre: Slug | None = None


class Tariffs(ListQuestion, frozen=True, kw_only=True):
    """Wholesale tariffs."""

    NAME = "tariffs"

    home: Slug | None = None
    serving: Slug | None = None
    model: TariffModel | None = None


class Policies(ListQuestion, frozen=True, kw_only=True):
    """Routing policies."""

    NAME = "policies"

    operator: Slug | None = None


class History(Command, frozen=True, kw_only=True):
    """Every version of one item. `key`: as in its stream, such as `shanghai-telecom/kimi-k2.5` of a rate card."""

    NAME = "history"

    kind: KindName
    key: Reference


class Compare(Command, frozen=True, kw_only=True):
    """What differs between what holds at `before` and what holds at `after`, both as recorded by `known_at` (all that
    is known). Either may be the earlier one."""

    NAME = "compare"

    before: Instant
    after: Instant
    known_at: Instant | None = None


class Imports(Command, frozen=True, kw_only=True):
    """Price imports behind log position `after`, at most `limit`."""

    NAME = "imports"

    after: Count = 0
    limit: Limit = LIMIT_DEFAULT
