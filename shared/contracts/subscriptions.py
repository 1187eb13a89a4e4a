"""Subscriptions in billing's published language: which plans a subscriber takes, and what each of their periods is."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shared.contracts.base import (
    AccountId,
    AmountOrZero,
    Count,
    Event,
    Fen,
    Instant,
    Name,
    Percent,
    Reference,
    Requested,
    Scope,
    Slug,
    Text,
    command,
    event,
)
from shared.contracts.billing import AccountCommand

PeriodSource = Literal["plan", "bundle", "trial"]  # of the grant that a plan's period brings
Days = Annotated[int, Meta(ge=0, le=100_000, description="days")]


# --- events ----------------------------------------------------------------------------------
@event("billing")
class SubscriptionStarted(Requested, frozen=True, kw_only=True):
    """A plan was taken; the subscription is named by its request. Its first period begins at `starts_at`."""

    subscription: Name
    plan: Slug
    starts_at: Instant


@event("billing")
class TrialTaken(Event, frozen=True, kw_only=True):
    """In the stream of plan and subscriber, which can begin once: nobody has a trial twice."""

    account: AccountId
    subscription: Name


@event("billing")
class PlanPeriodStarted(Event, frozen=True, kw_only=True):
    """A period of a plan: its fee is due, its points are ordered from quota under the name `grant` (none: empty).

    `number` counts a subscription's periods from 1; `phase` is 0 under the plan's own terms, else the phase's number.
    Of a period shorter than the plan's, `part_days` of `whole_days` are paid and granted: `fee_fen` is for the whole,
    before the discount; `price_fen` is what is due and `allowance` what is granted for the part.
    """

    subscription: Name
    number: Count
    plan: Slug
    plan_version: Count
    source: PeriodSource = "plan"
    phase: Count = 0
    starts_at: Instant
    ends_at: Instant
    part_days: Days
    whole_days: Days
    fee_fen: Fen = 0
    discount_percent: Percent = 0
    price_fen: Fen = 0
    allowance: AmountOrZero = 0
    grant: Reference = ""
    scope: Scope = Scope()
    priority: Count = 50
    rollover_max: AmountOrZero = 0


@event("billing")
class PlanPeriodCancelled(Event, frozen=True, kw_only=True):
    """A period does not take place: it had not begun, or quota gives the account no points. Nothing is due for it."""

    subscription: Name
    number: Count
    reason: Text


@event("billing")
class PlanPeriodCut(Event, frozen=True, kw_only=True):
    """A period ended early, at `at`, `left_days` before its time; what is left of its grant is withdrawn."""

    subscription: Name
    number: Count
    left_days: Days
    grant: Reference = ""


@event("billing")
class PlanPeriodCredited(Event, frozen=True, kw_only=True):
    """What is given back for a period that was cut: the price's share of days left or of points left, the lesser one.

    `unused`: millipoints that were withdrawn.
    """

    subscription: Name
    number: Count
    left_days: Days
    unused: AmountOrZero
    fen: Fen


@event("billing")
class PointsRolledOver(Event, frozen=True, kw_only=True):
    """What was left of a period's points (`unused`) and how much of it can be used for one more period (`amount`),
    ordered from quota under the name `grant`; none where nothing rolls over."""

    subscription: Name
    number: Count
    unused: AmountOrZero
    amount: AmountOrZero
    grant: Reference = ""
    starts_at: Instant
    ends_at: Instant


class SubscriptionTurned(Requested, frozen=True, kw_only=True):
    """Something changes at `effective_at`: at once, or at the end of the period that was running."""

    subscription: Name
    effective_at: Instant
    at_once: bool = False


@event("billing")
class SubscriptionChanged(SubscriptionTurned, frozen=True, kw_only=True):
    """To another plan."""

    plan: Slug


@event("billing")
class SubscriptionPaused(SubscriptionTurned, frozen=True, kw_only=True):
    """No period begins until it is resumed."""


@event("billing")
class SubscriptionResumed(SubscriptionTurned, frozen=True, kw_only=True):
    """A new period begins."""


@event("billing")
class SubscriptionEnded(SubscriptionTurned, frozen=True, kw_only=True):
    """For good."""

    reason: Text = ""


# --- commands --------------------------------------------------------------------------------
SUBSCRIPTION_MAX = 100  # characters of a subscription's name: its grants' names are made of it


@command("billing", "subscribe")
class Subscribe(AccountCommand, frozen=True, kw_only=True):
    """Take a plan, from `starts_at` on (now). The subscription is named by `request_id`, of at most 100 characters."""

    plan: Slug
    starts_at: Instant | None = None

    def __post_init__(self) -> None:
        if len(self.request_id) > SUBSCRIPTION_MAX:
            raise ValueError(f"request_id of a subscription has at most {SUBSCRIPTION_MAX} characters")


class SubscriptionCommand(AccountCommand, frozen=True, kw_only=True):
    """`at_once`, or at the end of the period that runs. At once, what is left of the period's points is withdrawn and
    its fee is given back in part."""

    subscription: Name
    at_once: bool = False


@command("billing", "change_subscription")
class ChangeSubscription(SubscriptionCommand, frozen=True, kw_only=True):
    """Take another plan instead. At once, the rest of the period is charged and granted in proportion to its days."""

    plan: Slug


@command("billing", "pause_subscription")
class PauseSubscription(SubscriptionCommand, frozen=True, kw_only=True):
    """Pause: no period begins until it is resumed."""


@command("billing", "resume_subscription")
class ResumeSubscription(AccountCommand, frozen=True, kw_only=True):
    """Resume, now: a new period begins, unless the pause has not begun yet."""

    subscription: Name


@command("billing", "end_subscription")
class EndSubscription(SubscriptionCommand, frozen=True, kw_only=True):
    """End, for good."""

    reason: Text = ""
