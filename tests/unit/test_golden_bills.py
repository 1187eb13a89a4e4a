"""Golden bills: one for each offer of the sample, and for each term that no offer has; worked out by hand.

`tests/golden/bills/README.md` says how to read and to change them.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pytest

from services.billing.domain.canonical import canonical_json, sealed, sha256_of
from services.billing.domain.charges import period_allowance, period_price
from shared.contracts.billing import LineKind
from tests.unit import golden_bills as golden

CASES = golden.cases()


@pytest.mark.parametrize("name", CASES)
def test_the_bill_is_the_golden_one_byte_for_byte(name: str) -> None:
    expected = (golden.FOLDER / f"{name}.json").read_bytes()
    made = sealed(golden.bill_of(name))[0]
    assert canonical_json(made).decode() == expected.decode()
    assert sha256_of(made) == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_the_worked_calculation_holds_and_ends_in_the_bill(name: str) -> None:
    text = golden.calculation(name)
    assert golden.equations(text)
    for sides in golden.equations(text):
        assert len({golden.value(side) for side in sides}) == 1, sides
    made = golden.bill_of(name)
    assert golden.table(text) == [(line.kind, line.text, line.fen, Fraction(line.residual)) for line in made.lines]
    assert golden.total(text) == (made.total_fen, made.vat_fen)


@pytest.mark.parametrize("name", CASES)
def test_the_inputs_could_have_happened(name: str) -> None:
    # A period's price is that of its lines; a plan's terms are the catalogue's; no grant pays for more than it has.
    case = golden.case_of(name)
    view = golden.view_of(case.plans)
    for charge in golden.charges_of(case):
        plan = view.plan_version(case.account.operator, charge.plan, charge.plan_version)
        terms = plan.phases[charge.phase - 1] if charge.phase else plan
        assert (charge.fee_fen, charge.discount_percent) == (terms.fee_fen, plan.discount_percent)
        assert charge.amount == period_allowance(terms.allowance, charge.part_days, charge.whole_days)
        about = (charge.fee_fen, charge.part_days, charge.whole_days, charge.discount_percent)
        assert charge.price_fen == period_price(*about)
        assert 0 <= charge.left_days <= charge.part_days <= charge.whole_days
        assert 0 <= charge.unused <= charge.amount
    periods = {(c.subscription, c.number): c for c in golden.charges_of(case) if c.kind in ("plan", "bundle", "trial")}
    cut = [c for c in golden.charges_of(case) if c.kind == "credited" and (c.subscription, c.number) in periods]
    granted = sum(c.amount for c in periods.values()) + sum(grant.amount for grant in golden.grants_of(case))
    paid = sum(used.amount - used.charged for used in golden.used(case, case.calls, case.reversals))
    assert paid <= granted - sum(c.unused for c in cut)


def test_every_offer_of_the_sample_has_its_bill() -> None:
    offers = {f"{plan.operator}.{plan.plan}" for plan in golden.sample().plans}
    assert offers <= set(CASES)


def test_every_kind_of_line_is_on_some_golden_bill() -> None:
    found = {line.kind for name in CASES for line in golden.bill_of(name).lines}
    assert found == set(LineKind.__args__)


def test_a_calculation_that_does_not_hold_is_found() -> None:
    ((left, right),) = golden.equations("    so much: 1,475 × 10 / 30 = 492 − 1/3\n")
    assert golden.value(left) == golden.value(right) == Fraction(1475, 3)
    assert golden.value("(1 + 2) × −3") == -9
    assert golden.value("492") != golden.value(left)
