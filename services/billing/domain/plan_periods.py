"""Periods of a plan as events: what one is, what is given back for it, that it does not take place. Pure.

It must not know why a period begins or ends, nor where its points come from.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from services.billing.domain.charges import credit_for, period_allowance, period_price
from services.billing.domain.cycle import Span, day_in_shanghai, midnight, span_from
from services.billing.domain.subscription import Period, Subscription
from shared.catalogue.view import CatalogueView, Version
from shared.contracts import subscriptions as s
from shared.contracts.catalog import Plan

REASON_MAX = 500  # characters, as the published language bounds it


class Context(NamedTuple):
    """What a decision may know besides the account's subscriptions. `ahead_to`: periods that begin by then are worked
    out; `trial_taken`: whether this stream of a trial has begun."""

    at: datetime
    now: datetime
    ahead_to: datetime
    operator: str
    account: str
    subscriber: str
    catalogue: CatalogueView
    trial_taken: Callable[[str], bool]
    fingerprint: str = ""

    def stamp(self, request_id: str) -> dict[str, Any]:
        return {"at": self.at, "recorded_at": self.now, "request_id": request_id, "fingerprint": self.fingerprint}

    def plan(self, key: str, at: datetime) -> Version[Plan]:
        """Raises UnknownPlan."""
        return self.catalogue.plan(self.operator, key, at)

    def trial_stream(self, plan: str) -> str:
        """The account stands for a subscriber whom quota does not know."""
        who = f"subscriber:{self.subscriber}" if self.subscriber else f"account:{self.account}"
        return f"trial:{self.operator}/{plan}/{who}"


def period_of_plan(subscription: Subscription, start: datetime, context: Context) -> s.PlanPeriodStarted:
    key = subscription.plan_from(start)
    version = context.plan(key, start)
    plan = version.item
    months = subscription.months if key == subscription.plan else 0
    phase, fee_fen, allowance = phase_of(plan, months)
    span, ends_at = _span(plan, subscription, start)
    number = subscription.number + 1
    granted = period_allowance(allowance, span.part_days, span.whole_days)
    return s.PlanPeriodStarted(
        at=start,
        recorded_at=context.now,
        subscription=subscription.name,
        number=number,
        plan=key,
        plan_version=version.number,
        source="bundle" if plan.kind == "bundle" else "trial" if plan.kind == "trial" else "plan",
        phase=phase,
        starts_at=start,
        ends_at=ends_at,
        part_days=span.part_days,
        whole_days=span.whole_days,
        fee_fen=fee_fen,
        discount_percent=plan.discount_percent,
        price_fen=period_price(fee_fen, span.part_days, span.whole_days, plan.discount_percent),
        allowance=granted,
        grant=grant_name(subscription.name, number) if granted else "",
        scope=plan.scope,
        priority=plan.priority,
        rollover_max=plan.rollover_max if granted and plan.rollover == "limited" else 0,
    )


def grant_name(subscription: str, number: int) -> str:
    """The name of the grant of a period: used once in the account."""
    return f"plan/{subscription}/{number}"


def phase_of(plan: Plan, months: int) -> tuple[int, int, int]:
    """Number of the phase (0: the plan's own terms), fee and allowance, after so many months on the plan."""
    until = 0
    for number, phase in enumerate(plan.phases, start=1):
        until += phase.months
        if months < until:
            return number, phase.fee_fen, phase.allowance
    return 0, plan.fee_fen, plan.allowance


def _span(plan: Plan, subscription: Subscription, start: datetime) -> tuple[Span, datetime]:
    day = day_in_shanghai(start)
    if plan.kind == "trial":
        after = day + timedelta(days=plan.trial_days)
        return Span(day, after, plan.trial_days, plan.trial_days), _utc(after)
    span = span_from(plan.cycle, subscription.anchor, day)
    return span, _utc(span.next_day)


def _utc(day: date) -> datetime:
    return midnight(day).astimezone(UTC)


def credited(subscription: Subscription, period: Period, unused: int, context: Context) -> s.PlanPeriodCredited:
    started, left = period.started, period.cut_days or 0
    unused = min(unused, started.allowance)
    return s.PlanPeriodCredited(
        at=period.ends_at,
        recorded_at=context.now,
        subscription=subscription.name,
        number=period.number,
        left_days=left,
        unused=unused,
        fen=credit_for(started.price_fen, left, started.part_days, unused, started.allowance),
    )


def cancelled(subscription: Subscription, period: Period, reason: str, context: Context) -> s.PlanPeriodCancelled:
    return s.PlanPeriodCancelled(
        at=period.starts_at,
        recorded_at=context.now,
        subscription=subscription.name,
        number=period.number,
        reason=reason[:REASON_MAX],
    )
