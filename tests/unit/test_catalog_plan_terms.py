"""The terms of a plan: which contradict each other, and the reason for each; all of them at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.catalog.domain.kinds import places
from services.catalog.domain.structure import structure_faults
from shared.contracts import catalog as c

MONTHLY = {"kind": "monthly", "fee_fen": 2000, "allowance": 100}
CODING = MONTHLY | {"kind": "coding"}
PAYG = {"kind": "payg", "overage": "payg"}
POSTPAID = {"kind": "postpaid", "overage": "payg", "credit_limit": 100}
TRIAL = {"kind": "trial", "allowance": 100, "trial_days": 7}
BUNDLE = {
    "kind": "bundle",
    "fee_fen": 1475,
    "allowance": 100,
    "bundle": {"product": "Desktop", "bundle_price_fen": 5900, "token_share_percent": 25},
}
MORE = {"months": 1, "fee_fen": 100, "allowance": 300}
LIMITED = {"rollover": "limited"}


def faults(**terms: Any) -> list[str]:
    plan = msgspec.convert({"operator": "east", "plan": "p", "name": "P", **terms}, c.Plan)
    found = structure_faults(places(c.Catalogue(plans=(plan,))))
    assert {fault.key for fault in found} <= {"east/p"}
    return [f"{fault.path.removeprefix('plans.0.')}: {fault.text}" for fault in found]


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(MONTHLY, id="monthly"),
        pytest.param(TRIAL, id="trial"),
        pytest.param(BUNDLE | {"phases": [MORE]}, id="bundle with a phase"),
        pytest.param(CODING | {"phases": [MORE, MORE]}, id="coding with phases"),
        pytest.param(MONTHLY | {"cycle": "anniversary"}, id="anniversary"),
        pytest.param(TRIAL | {"cycle": "anniversary"}, id="anniversary for an allowance alone"),
        pytest.param(MONTHLY | LIMITED | {"rollover_max": 100}, id="all of the allowance rolls over"),
        pytest.param(MONTHLY | LIMITED | {"rollover_max": 300, "phases": [MORE]}, id="all of a phase's rolls over"),
        pytest.param(PAYG | {"cap_fen": 100, "commitment_fen": 100}, id="cap at commitment"),
        pytest.param(POSTPAID | {"commitment_fen": 100, "usage_discount_percent": 5}, id="commitment without a cap"),
        pytest.param(MONTHLY | {"overage": "payg", "cap_fen": 1}, id="cap beyond an allowance"),
        pytest.param(MONTHLY | {"discount_percent": 20}, id="discount on a fee"),
        pytest.param(
            MONTHLY | {"fee_fen": 0, "discount_percent": 20, "phases": [MORE]}, id="discount on the fee of a phase"
        ),
    ],
)
def test_terms_that_hold(terms: dict[str, Any]) -> None:
    assert faults(**terms) == []


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (PAYG | {"points_per_yuan": 0}, "points_per_yuan: must be above zero: usage as you go is priced by it"),
        (TRIAL | {"trial_days": 0}, "trial_days: a trial ends: it needs trial_days"),
        (TRIAL | {"trial_days": 3661}, "trial_days: 3661 is more than 3660"),
        (MONTHLY | {"trial_days": 7}, "trial_days: is of a trial, and this is a plan of kind monthly"),
        (TRIAL | {"fee_fen": 1}, "fee_fen: a trial costs nothing"),
        (
            TRIAL | {"phases": [MORE]},
            "phases: a plan of kind trial has no phases: only monthly, coding, bundle have",
        ),
        (TRIAL | LIMITED | {"rollover_max": 1}, "rollover: a trial has one period: nothing rolls over"),
        (TRIAL | LIMITED, "rollover: a trial has one period: nothing rolls over"),
        (TRIAL | {"allowance": 0}, "allowance: a plan of kind trial grants points"),
        (MONTHLY | {"allowance": 0}, "allowance: a plan of kind monthly grants points"),
        (POSTPAID | {"credit_limit": 0}, "credit_limit: a postpaid plan needs a credit_limit"),
        (
            BUNDLE | {"bundle": None},
            "bundle: a plan of kind bundle, and no other, says what it is sold together with",
        ),
        (
            MONTHLY | {"bundle": BUNDLE["bundle"], "fee_fen": 1475},
            "bundle: a plan of kind bundle, and no other, says what it is sold together with",
        ),
        (BUNDLE | {"fee_fen": 1474}, "fee_fen: the tokens' share is 25 % of 5900 fen: 1475, not 1474"),
        (PAYG | {"phases": [MORE]}, "phases: a plan of kind payg has no phases: only monthly, coding, bundle have"),
        (
            POSTPAID | {"phases": [MORE]},
            "phases: a plan of kind postpaid has no phases: only monthly, coding, bundle have",
        ),
        (
            PAYG | {"cycle": "anniversary"},
            "cycle: without a fee or an allowance there are no periods to count from a day",
        ),
        (MONTHLY | LIMITED, "rollover_max: rollover is limited: to how much must be said"),
        (MONTHLY | {"rollover_max": 1}, "rollover_max: nothing rolls over: rollover is none"),
        (MONTHLY | LIMITED | {"rollover_max": 101}, "rollover_max: 101 is more than any period grants: 100"),
        (
            MONTHLY | LIMITED | {"rollover_max": 301, "phases": [MORE]},
            "rollover_max: 301 is more than any period grants: 300",
        ),
        (
            PAYG | {"cap_fen": 99, "commitment_fen": 100},
            "commitment_fen: the least, 100 fen, is above the most, 99",
        ),
        (MONTHLY | {"cap_fen": 1}, "cap_fen: is of usage as you go, and overage is refuse"),
        (MONTHLY | {"commitment_fen": 1}, "commitment_fen: is of usage as you go, and overage is refuse"),
        (
            MONTHLY | {"usage_discount_percent": 1},
            "usage_discount_percent: is of usage as you go, and overage is refuse",
        ),
        (
            PAYG | {"discount_percent": 1},
            "discount_percent: is off a fee, and neither the plan nor a phase of it has one",
        ),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else value["kind"],
)
def test_terms_that_contradict_each_other(terms: dict[str, Any], reason: str) -> None:
    assert faults(**terms) == [reason]


def test_every_contradiction_is_named_at_once() -> None:
    found = faults(
        kind="payg", discount_percent=5, cap_fen=1, commitment_fen=2, usage_discount_percent=3, rollover_max=4,
        phases=[MORE], points_per_yuan=0,
    )  # fmt: skip
    assert [reason.partition(":")[0] for reason in found] == [
        "phases",
        "rollover_max",
        "points_per_yuan",
        "usage_discount_percent",
        "cap_fen",
        "commitment_fen",
        "commitment_fen",
    ]
