"""What is asked of a subscription, and what follows by itself: decided purely, from state to events.

A refusal raises and changes nothing. What a period is follows from the subscription's events and the catalogue,
whenever it is worked out. It must not know quota: what is ordered there follows from these events.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from services.billing.domain.cycle import days_left
from services.billing.domain.inward import Advance, CloseOff, DropPeriod, Inward, SettlePeriod
from services.billing.domain.plan_periods import Context, cancelled, credited, grant_name, period_of_plan
from services.billing.domain.subscription import Period, Subscription, Subscriptions
from shared.contracts import billing as b
from shared.contracts import subscriptions as s
from shared.contracts.base import Event
from shared.contracts.catalog import Plan
from shared.errors import (
    AlreadySubscribed,
    LimitExceeded,
    MalformedCommand,
    SubscriptionNotActive,
    TrialUsed,
    UnknownSubscription,
)

SUBSCRIPTIONS_MAX = 100  # of one account that are not over: each decision looks at all of them
PERIODS_AT_ONCE_MAX = 60  # periods that one decision catches up with
AHEAD_MAX_DAYS = 366  # how far in the future a subscription may start


class Elsewhere(NamedTuple):
    """An event that begins a stream of its own."""

    stream: str
    event: Event


Decided = Event | Elsewhere


def decide(command: b.AccountCommand | Inward, state: Subscriptions, context: Context) -> list[Decided]:
    """The events, in order; those that answer a request come first."""
    thinking = _Thinking(state, context)
    match command:
        case s.Subscribe():
            _subscribe(command, thinking)
        case s.ChangeSubscription():
            _change(command, thinking)
        case s.PauseSubscription():
            _turn(command, thinking, s.SubscriptionPaused)
        case s.ResumeSubscription():
            _resume(command, thinking)
        case s.EndSubscription():
            _turn(command, thinking, s.SubscriptionEnded, reason=command.reason)
        case Advance():
            thinking.advance()
        case SettlePeriod():
            _settle(command, thinking)
        case DropPeriod():
            _drop(command, thinking)
        case CloseOff():
            _close_off(thinking)
        case _:
            raise TypeError(f"not about subscriptions: {command!r}")
    return thinking.events


class _Thinking:
    """A decision in the making: each event is folded at once into a copy of the state."""

    def __init__(self, state: Subscriptions, context: Context) -> None:
        self.state = state.copy()
        self.context = context
        self.events: list[Decided] = []

    def happen(self, event: Event) -> None:
        self.events.append(event)
        self.state.evolve(self.state.version + 1, event)

    def found(self, name: str) -> Subscription:
        subscription = self.state.by_name.get(name)
        if subscription is None:
            raise UnknownSubscription(f"no subscription {name!r}", {"subscription": name})
        return subscription

    def advance(self, until: datetime | None = None) -> None:
        """All periods that begin by `until`, or by the context's horizon."""
        until = self.context.ahead_to if until is None else until
        for subscription in self.state.by_name.values():
            for _ in range(PERIODS_AT_ONCE_MAX):
                start = subscription.next_start()
                if start is None or start > until:
                    break
                self.happen(period_of_plan(subscription, start, self.context))

    def cancel_ahead(self, subscription: Subscription) -> None:
        """Periods that were worked out and have not begun."""
        for period in reversed(subscription.ahead(self.context.at)):
            if period.starts_at <= self.context.now and period.starts_at > self.context.at:
                raise _too_early(f"a period has begun since, at {period.starts_at.isoformat()}")
            self.happen(cancelled(subscription, period, "not to be", self.context))

    def cut(self, subscription: Subscription, period: Period) -> None:
        """End a period now. Where no points are to be withdrawn, it is known at once what is given back."""
        context, started = self.context, period.started
        left = days_left(context.at, started.ends_at)
        self.happen(
            s.PlanPeriodCut(
                at=context.at,
                recorded_at=context.now,
                subscription=subscription.name,
                number=period.number,
                left_days=left,
                grant=started.grant,
            )
        )
        if not started.grant:
            self.happen(credited(subscription, period, 0, context))


# --- what clients ask --------------------------------------------------------------------------------
def _subscribe(command: s.Subscribe, thinking: _Thinking) -> None:
    context = thinking.context
    starts_at = (command.starts_at or context.at).astimezone(UTC)
    if command.starts_at is not None and starts_at < context.at:
        raise _malformed("starts_at", "must not lie before the request")
    if (starts_at - context.now).days >= AHEAD_MAX_DAYS:
        raise _malformed("starts_at", f"must be within {AHEAD_MAX_DAYS} days")
    plan = context.plan(command.plan, starts_at).item
    _refuse_second(command.plan, starts_at, thinking, "")
    others = [each for each in thinking.state.by_name.values() if each.status(context.now) != "ended"]
    if len(others) >= SUBSCRIPTIONS_MAX:
        raise LimitExceeded(
            f"an account has at most {SUBSCRIPTIONS_MAX} subscriptions that are not over", {"limit": SUBSCRIPTIONS_MAX}
        )
    trial = _trial(plan, command.request_id, context)
    thinking.happen(
        s.SubscriptionStarted(
            **context.stamp(command.request_id),
            subscription=command.request_id,
            plan=command.plan,
            starts_at=starts_at,
        )
    )
    thinking.events += trial
    thinking.advance()


def _change(command: s.ChangeSubscription, thinking: _Thinking) -> None:
    subscription = _active(command.subscription, thinking)
    running = _running(subscription, thinking)
    effective_at = _effective_at(command, subscription, running, thinking.context)
    plan = thinking.context.plan(command.plan, effective_at).item
    current = running.started.plan if running is not None else subscription.plan
    if command.plan == current and subscription.plan == current and not subscription.turns:
        raise AlreadySubscribed(
            f"{subscription.name} has the plan {command.plan!r}", {"subscription": subscription.name}
        )
    _refuse_second(command.plan, effective_at, thinking, subscription.name)
    trial = _trial(plan, subscription.name, thinking.context)
    _turn(command, thinking, s.SubscriptionChanged, plan=command.plan)
    thinking.events += trial


def _turn(command: s.SubscriptionCommand, thinking: _Thinking, kind: type[s.SubscriptionTurned], **more: Any) -> None:
    """Something else from a period's end on, or from now on. What was worked out ahead is worked out anew."""
    context = thinking.context
    subscription = _active(command.subscription, thinking)
    effective_at = _effective_at(command, subscription, _running(subscription, thinking), context)
    thinking.happen(
        kind(
            **context.stamp(command.request_id),
            subscription=subscription.name,
            effective_at=effective_at,
            at_once=command.at_once,
            **more,
        )
    )
    thinking.advance(context.at)
    running = subscription.running(context.at)
    thinking.cancel_ahead(subscription)
    if command.at_once and running is not None:
        thinking.cut(subscription, running)
    thinking.advance()


def _resume(command: s.ResumeSubscription, thinking: _Thinking) -> None:
    context = thinking.context
    subscription = thinking.found(command.subscription)
    if subscription.paused_from is None or subscription.status(context.at) == "ended":
        raise _not_active(subscription, context.at)
    thinking.happen(
        s.SubscriptionResumed(
            **context.stamp(command.request_id), subscription=subscription.name, effective_at=context.at
        )
    )
    thinking.advance()


def _active(name: str, thinking: _Thinking) -> Subscription:
    subscription, context = thinking.found(name), thinking.context
    if subscription.status(context.at) in ("paused", "ended") or subscription.ended_from is not None:
        raise _not_active(subscription, context.at)
    if subscription.last is not None and context.at < subscription.periods[0].starts_at:
        raise _too_early(f"its period began at {subscription.periods[0].starts_at.isoformat()}")
    return subscription


def _running(subscription: Subscription, thinking: _Thinking) -> Period | None:
    """The period that runs when the request was made, be it not worked out yet."""
    ahead = _Thinking(thinking.state, thinking.context)
    ahead.advance(thinking.context.at)
    return ahead.state.by_name[subscription.name].running(thinking.context.at)


def _effective_at(
    command: s.SubscriptionCommand, subscription: Subscription, running: Period | None, context: Context
) -> datetime:
    if running is None:
        return max(context.at, subscription.begins_at)
    if not command.at_once:
        return running.ends_at
    if running.cut_days is not None:
        raise _too_early(f"its period was ended since, at {running.ends_at.isoformat()}")
    return context.at


def _refuse_second(plan: str, start: datetime, thinking: _Thinking, but: str) -> None:
    """A plan runs once on an account: where it is to end, until then."""
    now = thinking.context.now
    for other in thinking.state.by_name.values():
        taken = {other.plan, *(plan for _, plan in other.turns)}
        over = other.status(now) == "ended" or (other.ended_from is not None and other.ended_from <= start)
        if other.name != but and plan in taken and not over:
            raise AlreadySubscribed(
                f"the plan {plan!r} runs already, as {other.name}", {"subscription": other.name, "plan": plan}
            )


def _trial(plan: Plan, subscription: str, context: Context) -> list[Elsewhere]:
    """The mark that a trial was taken, where the plan is one. Raises TrialUsed."""
    if plan.kind != "trial":
        return []
    stream = context.trial_stream(plan.plan)
    if context.trial_taken(stream):
        raise TrialUsed(f"the trial {plan.plan!r} was taken before", {"plan": plan.plan})
    event = s.TrialTaken(at=context.at, recorded_at=context.now, account=context.account, subscription=subscription)
    return [Elsewhere(stream, event)]


def _settle(command: SettlePeriod, thinking: _Thinking) -> None:
    """What was left of a period's points: part of the price is given back, or points roll over."""
    subscription = thinking.state.by_name.get(command.subscription)
    period = subscription.period(command.number) if subscription is not None else None
    if subscription is None or period is None or not period.unsettled:
        return
    if period.cut_days is not None:
        thinking.happen(credited(subscription, period, command.unused, thinking.context))
        return
    thinking.advance()
    following = next((p for p in subscription.periods if p.starts_at == period.ends_at), None)
    amount = min(command.unused, period.started.rollover_max) if following is not None else 0
    thinking.happen(
        s.PointsRolledOver(
            at=period.ends_at,
            recorded_at=thinking.context.now,
            subscription=subscription.name,
            number=period.number,
            unused=command.unused,
            amount=amount,
            grant=f"{grant_name(subscription.name, period.number)}/rollover" if amount else "",
            starts_at=period.ends_at,
            # Where it was to end: it may have been cut since, even at its beginning.
            ends_at=following.started.ends_at if following is not None else period.ends_at,
        )
    )


def _drop(command: DropPeriod, thinking: _Thinking) -> None:
    subscription = thinking.state.by_name.get(command.subscription)
    period = subscription.period(command.number) if subscription is not None else None
    if subscription is None or period is None or period.credited:
        return
    if command.granted:
        if period.cut_days is not None:  # there is nothing to withdraw
            thinking.happen(credited(subscription, period, 0, thinking.context))
        return
    context = thinking.context
    thinking.happen(cancelled(subscription, period, command.reason, context))
    # Else the next one would be refused as well, for ever. Whoever has seen to it resumes. Of several that are refused
    # the pause is from the first one on.
    paused_from = subscription.paused_from
    thinking.happen(
        s.SubscriptionPaused(
            **context.stamp(f"dropped/{subscription.name}/{period.number}"),
            subscription=subscription.name,
            effective_at=period.starts_at if paused_from is None else min(period.starts_at, paused_from),
        )
    )


def _close_off(thinking: _Thinking) -> None:
    """Everything that would go on ends now, or when the next period would have begun, if that was before."""
    context = thinking.context
    for subscription in thinking.state.by_name.values():
        start = subscription.next_start()
        ahead = subscription.ahead(context.at)
        may_resume = subscription.paused_from is not None and subscription.ended_from is None
        if start is None and not ahead and not may_resume:
            continue
        if subscription.ended_from is not None and subscription.ended_from <= context.at:
            continue
        thinking.happen(
            s.SubscriptionEnded(
                **context.stamp(f"account-closed/{subscription.name}"),
                subscription=subscription.name,
                effective_at=context.at if start is None else min(context.at, start),
                reason="account closed",
            )
        )
        for period in reversed(ahead):
            thinking.happen(cancelled(subscription, period, "account closed", context))


# --- refusals -------------------------------------------------------------------------------------------
def _not_active(subscription: Subscription, at: datetime) -> SubscriptionNotActive:
    status = "ending" if subscription.status(at) == "active" else subscription.status(at)
    return SubscriptionNotActive(f"{subscription.name} is {status}", {"status": status})


def _too_early(why: str) -> MalformedCommand:
    return _malformed("occurred_at", why)


def _malformed(field: str, complaint: str) -> MalformedCommand:
    return MalformedCommand(f"{field} {complaint}", {"fields": {field: [complaint]}})
