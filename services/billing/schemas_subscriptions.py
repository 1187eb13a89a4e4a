"""The RPC methods of subscriptions. A part of `schemas`."""

from __future__ import annotations

from typing import Literal

from services.billing.questions import Renew, SubscriptionsOf
from shared.contracts import subscriptions as s
from shared.contracts.answers import Receipt
from shared.contracts.base import (
    Answer,
    Count,
    FenSum,
    Instant,
    Name,
    Reference,
    Slug,
)
from shared.contracts.methods import Method
from shared.errors import (
    AccountClosed,
    AlreadySubscribed,
    Conflict,
    DeadlineExceeded,
    IdempotencyConflict,
    LimitExceeded,
    MalformedCommand,
    SubscriptionNotActive,
    TrialUsed,
    Unavailable,
    UnknownAccount,
    UnknownPlan,
    UnknownSubscription,
)


# --- answers ---------------------------------------------------------------------------------
class SubscriptionRow(Answer, frozen=True, kw_only=True):
    """A subscription as it stands now. `period`: the number of the one that runs or ran last, 0 before the first, from
    `starts_at` to `ends_at`; `next_plan` takes its place at the period's end."""

    subscription: Name
    plan: Slug
    status: Literal["waiting", "active", "paused", "ended"]
    period: Count
    starts_at: Instant | None
    ends_at: Instant | None
    next_plan: Reference


class SubscriptionList(Answer, frozen=True, kw_only=True):
    """In the order in which they were taken; and what is left of the account's money credits, fen."""

    subscriptions: tuple[SubscriptionRow, ...]
    credit_fen: FenSum


class Renewed(Answer, frozen=True, kw_only=True):
    """How much was done: subscriptions looked at, periods settled, orders that quota carried out. Repeat until nothing
    was."""

    advanced: Count
    settled: Count
    ordered: Count


OF_SUBSCRIPTION = (
    MalformedCommand,
    UnknownAccount,
    IdempotencyConflict,
    UnknownSubscription,
    SubscriptionNotActive,
    Conflict,
)

SUBSCRIPTION_METHODS: tuple[Method, ...] = (
    Method(
        "subscribe",
        s.Subscribe,
        "The receipt of the subscription.",
        s.SubscriptionStarted,
        (
            MalformedCommand,
            UnknownAccount,
            IdempotencyConflict,
            AccountClosed,
            UnknownPlan,
            AlreadySubscribed,
            TrialUsed,
            LimitExceeded,
            Conflict,
        ),
        receipt=Receipt,
    ),
    Method(
        "change_subscription",
        s.ChangeSubscription,
        "The receipt.",
        s.SubscriptionChanged,
        (*OF_SUBSCRIPTION, UnknownPlan, AlreadySubscribed),
        receipt=Receipt,
    ),
    Method(
        "pause_subscription",
        s.PauseSubscription,
        "The receipt.",
        s.SubscriptionPaused,
        OF_SUBSCRIPTION,
        receipt=Receipt,
    ),
    Method(
        "resume_subscription",
        s.ResumeSubscription,
        "The receipt.",
        s.SubscriptionResumed,
        OF_SUBSCRIPTION,
        receipt=Receipt,
    ),
    Method(
        "end_subscription", s.EndSubscription, "The receipt.", s.SubscriptionEnded, OF_SUBSCRIPTION, receipt=Receipt
    ),
    Method("renew", Renew, "What was done.", Renewed, (MalformedCommand, Unavailable, DeadlineExceeded)),
    Method(
        "subscriptions",
        SubscriptionsOf,
        "Subscriptions and credit.",
        SubscriptionList,
        (MalformedCommand, UnknownAccount),
    ),
)
