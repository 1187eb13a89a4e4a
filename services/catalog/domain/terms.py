"""Terms of a plan that contradict each other: what no bill could make sense of.

It looks at one plan and knows neither what it refers to nor what was published before.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from shared.contracts import catalog as c
from shared.units import round_half_away

Complaints = Iterator[tuple[str, str]]
# Taken by subscription, for a fee and points that may change from one period to the next.
WITH_PHASES = ("monthly", "coding", "bundle")
WITH_ALLOWANCE = (*WITH_PHASES, "trial")
TRIAL_DAYS_MAX = 3660  # ten years, as of a phase; a period of more days than its event can say would stop billing


def plan_faults(plan: c.Plan) -> Complaints:
    """Path inside the plan (with a leading dot, or empty) and complaint."""
    yield from _kind(plan)
    yield from _periods(plan)
    yield from _as_you_go(plan)
    if plan.discount_percent and not any(terms.fee_fen for terms in _in_turn(plan)):
        yield ".discount_percent", "is off a fee, and neither the plan nor a phase of it has one"


def _in_turn(plan: c.Plan) -> tuple[c.Plan | c.Phase, ...]:
    """Whatever states a fee and an allowance."""
    return (*plan.phases, plan)


def attributed_fen(bundle: c.Bundle) -> int:
    """The part of a bundle's price that belongs to the tokens, in fen, rounded once."""
    return round_half_away(Fraction(bundle.bundle_price_fen * bundle.token_share_percent, 100))


def _kind(plan: c.Plan) -> Complaints:
    """What belongs to a kind, and what does not."""
    if plan.kind == "trial" and not plan.trial_days:
        yield ".trial_days", "a trial ends: it needs trial_days"
    if plan.kind != "trial" and plan.trial_days:
        yield ".trial_days", f"is of a trial, and this is a plan of kind {plan.kind}"
    elif plan.trial_days > TRIAL_DAYS_MAX:
        yield ".trial_days", f"{plan.trial_days} is more than {TRIAL_DAYS_MAX}"
    if plan.kind == "trial" and plan.fee_fen:
        yield ".fee_fen", "a trial costs nothing"
    if plan.kind == "postpaid" and not plan.credit_limit:
        yield ".credit_limit", "a postpaid plan needs a credit_limit"
    if (plan.kind == "bundle") != (plan.bundle is not None):
        yield ".bundle", "a plan of kind bundle, and no other, says what it is sold together with"
    if plan.kind in WITH_ALLOWANCE and not plan.allowance:
        yield ".allowance", f"a plan of kind {plan.kind} grants points"
    if plan.bundle is not None:
        share = attributed_fen(plan.bundle)
        if plan.fee_fen != share:
            yield (
                ".fee_fen",
                f"the tokens' share is {plan.bundle.token_share_percent} % of {plan.bundle.bundle_price_fen} fen: "
                f"{share}, not {plan.fee_fen}",
            )


def _periods(plan: c.Plan) -> Complaints:
    """What changes from one period of a subscription to the next."""
    if plan.phases and plan.kind not in WITH_PHASES:
        yield ".phases", f"a plan of kind {plan.kind} has no phases: only {', '.join(WITH_PHASES)} have"
    if plan.cycle == "anniversary" and not any(terms.fee_fen or terms.allowance for terms in _in_turn(plan)):
        yield ".cycle", "without a fee or an allowance there are no periods to count from a day"
    if plan.kind == "trial" and (plan.rollover == "limited" or plan.rollover_max):
        yield ".rollover", "a trial has one period: nothing rolls over"
    elif plan.rollover == "limited" and not plan.rollover_max:
        yield ".rollover_max", "rollover is limited: to how much must be said"
    elif plan.rollover == "none" and plan.rollover_max:
        yield ".rollover_max", "nothing rolls over: rollover is none"
    largest = max(terms.allowance for terms in _in_turn(plan))
    if plan.rollover == "limited" and plan.rollover_max > largest:
        yield ".rollover_max", f"{plan.rollover_max} is more than any period grants: {largest}"


def _as_you_go(plan: c.Plan) -> Complaints:
    """What points cost beyond the allowance."""
    if plan.points_per_yuan == 0:
        yield ".points_per_yuan", "must be above zero: usage as you go is priced by it"
    for name in ("usage_discount_percent", "cap_fen", "commitment_fen"):
        if getattr(plan, name) and plan.overage != "payg":
            yield f".{name}", f"is of usage as you go, and overage is {plan.overage}"
    if plan.cap_fen and plan.commitment_fen > plan.cap_fen:
        yield ".commitment_fen", f"the least, {plan.commitment_fen} fen, is above the most, {plan.cap_fen}"
