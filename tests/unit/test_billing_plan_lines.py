"""What periods of plans make of a bill, case by case; whole bills are golden (`test_golden_bills.py`)."""

from __future__ import annotations

from typing import Any

import pytest

from services.billing.domain.canonical import sealed
from services.billing.domain.charges import Charge, credit_for, period_allowance, period_price
from services.billing.domain.rating import Account, rate
from shared.contracts.billing import Bill, BillLine
from shared.contracts.catalog import Bundle, Phase, Plan
from tests.unit.billing_world import JUNE, catalogue, june

PLAN = Plan(
    operator="sh-telecom",
    plan="gold",
    name="Gold",
    kind="monthly",
    fee_fen=990,
    phases=(Phase(months=1, name="first month"), Phase(months=1)),
)
FIBRE = Plan(
    operator="sh-telecom",
    plan="fibre",
    name="Fibre with tokens",
    kind="bundle",
    bundle=Bundle(product="Broadband 500M", bundle_price_fen=19_900, token_share_percent=10),
)
VIEW = catalogue(PLAN, FIBRE).view()


def charge(kind: Any = "plan", **fields: Any) -> Charge:
    about: dict[str, Any] = {
        "at_us": 1,
        "position": 1,
        "kind": kind,
        "subscription": "s1",
        "number": 1,
        "plan": "gold",
        "plan_version": 1,
        "phase": 0,
        "from_day": "2026-06-01",
        "to_day": "2026-06-30",
        "fee_fen": 990,
        "discount_percent": 0,
        "part_days": 30,
        "whole_days": 30,
        "price_fen": 990,
        "amount": 1_000,
    }
    return Charge(**(about | fields))


def bill(*charges: Charge) -> Bill:
    return rate(Account("sh-telecom", "a1", june(1)), JUNE, VIEW, 1, charges=charges)


def fens(*charges: Charge) -> list[tuple[str, int]]:
    return [(line.kind, line.fen) for line in bill(*charges).lines]


def text(made: Charge) -> str:
    return bill(made).lines[0].text


def test_a_line_says_what_it_is_for() -> None:
    (line,) = bill(charge(part_days=10, whole_days=31)).lines
    assert line == BillLine(
        kind="plan_fee",
        text="Gold",
        fen=319,
        residual="11/31",  # 990 x 10 / 31 = 319 11/31
        plan="gold",
        plan_version=1,
        subscription="s1",
        from_day="2026-06-01",
        to_day="2026-06-30",
        amount=1_000,
    )


def test_a_discount_is_taken_from_the_exact_fee_and_grants_nothing() -> None:
    fee, discount = bill(charge(part_days=10, whole_days=31, discount_percent=50)).lines
    assert (fee.fen, discount.kind, discount.fen) == (319, "discount", -160)  # 159.68: half of 319 would be 159.5
    assert (discount.text, discount.amount, discount.subscription) == ("Discount on Gold", 0, "s1")


@pytest.mark.parametrize(("phase", "name"), [(0, "Gold"), (1, "Gold: first month"), (2, "Gold"), (3, "Gold")], ids=str)
def test_a_phase_is_named_where_it_has_a_name(phase: int, name: str) -> None:
    assert text(charge(phase=phase)) == name


@pytest.mark.parametrize("kind", ["plan", "credited", "cancelled"])
@pytest.mark.parametrize(("plan", "version"), [("gold", 2), ("gold", 0), ("gone", 1)])
def test_without_a_plan_in_the_catalogue_its_key_stands_for_the_name(kind: str, plan: str, version: int) -> None:
    said = text(charge(kind, plan=plan, plan_version=version, phase=1))
    assert said == {"plan": "", "credited": "Unused part of ", "cancelled": "Cancelled: "}[kind] + plan


def test_a_bundle_says_what_it_is_a_share_of() -> None:
    said = "Tokens bundled with Broadband 500M: 10% of the bundle price of 199.00 yuan"
    fee, discount = bill(charge("bundle", plan="fibre", discount_percent=10)).lines
    assert (fee.kind, fee.text) == ("bundle", said)
    assert (discount.kind, discount.text) == ("discount", "Discount on Fibre with tokens")
    assert text(charge("bundle", plan="gone")) == "Tokens bundled with gone"


def test_a_trial_is_free_and_has_no_discount() -> None:
    (line,) = bill(charge("trial", fee_fen=0, price_fen=0, discount_percent=20)).lines
    assert (line.kind, line.text, line.fen, line.amount) == ("trial", "Trial points: Gold", 0, 1_000)


class TestGivenBack:
    def test_of_a_period_that_was_cut(self) -> None:
        # A third of the days is left, half of the points: 990 / 3.
        assert fens(charge("credited", left_days=10, unused=500)) == [("plan_credit", -330)]

    def test_whole_where_a_period_is_cancelled_after_its_bill(self) -> None:
        assert fens(charge("cancelled", price_fen=891)) == [("plan_credit", -891)]

    def test_nothing_where_nothing_was_paid(self) -> None:
        free = {"fee_fen": 0, "price_fen": 0}
        assert fens(charge("credited", left_days=10, **free), charge("cancelled", number=2, **free)) == []

    def test_a_line_where_all_was_used(self) -> None:
        assert fens(charge("credited", left_days=10, unused=0)) == [("plan_credit", 0)]

    def test_neither_where_both_would_be_on_one_bill(self) -> None:
        for kind in ("plan", "bundle", "trial"):
            assert fens(charge(kind, discount_percent=10), charge("cancelled", position=2)) == []
        assert fens(charge(), charge("credited", left_days=9), charge("cancelled", position=2)) == []

    @pytest.mark.parametrize("other", [{"number": 2}, {"subscription": "s2"}])
    def test_another_period_stays(self, other: dict[str, Any]) -> None:
        assert fens(charge(), charge("cancelled", **other)) == [("plan_fee", 990), ("plan_credit", -990)]


def test_a_long_name_is_cut_where_the_text_ends() -> None:
    log = catalogue(PLAN)
    log.publish(Plan(operator="sh-telecom", plan="gold", name="g" * 500, kind="monthly", fee_fen=990), 2)
    made = [charge(plan_version=2, discount_percent=1), charge("cancelled", plan_version=2, number=2)]
    bill, _ = sealed(rate(Account("sh-telecom", "a1", june(1)), JUNE, log.view(), 1, charges=made))
    assert [len(line.text) for line in bill.lines] == [500] * 3


def test_lines_of_a_kind_stand_by_time_then_position() -> None:
    made = bill(
        charge("cancelled", number=9, at_us=3, position=8),
        charge(subscription="c", at_us=2, position=5),
        charge(subscription="b", at_us=2, position=4),
        charge(subscription="a", at_us=1, position=9),
        charge("credited", number=8, at_us=3, position=7),
    )
    assert [(line.kind, line.subscription) for line in made.lines[:3]] == [("plan_fee", s) for s in "abc"]
    assert [line.text for line in made.lines[3:]] == ["Unused part of Gold", "Cancelled: Gold"]


@pytest.mark.parametrize(
    ("fee", "part", "whole", "percent", "price"),
    [
        (990, 30, 30, 0, 990),
        (990, 1, 31, 0, 32),  # 31.94
        (1, 15, 30, 0, 1),  # a half goes away from zero,
        (1, 30, 30, 50, 0),  # and so does the discount's
        (5, 30, 30, 50, 2),  # 5 less 2.5
        (990, 30, 30, 100, 0),
        (990, 0, 30, 0, 0),
    ],
)
def test_the_price_of_a_period(fee: int, part: int, whole: int, percent: int, price: int) -> None:
    assert period_price(fee, part, whole, percent) == price


@pytest.mark.parametrize(
    ("price", "left", "part", "unused", "amount", "fen"),
    [
        (2990, 15, 30, 14, 40, 1047),  # points: 1046.5
        (2990, 15, 30, 40, 40, 1495),  # days
        (2990, 15, 30, 0, 40, 0),
        (2990, 15, 30, 0, 0, 1495),  # a plan without points: days alone
        (2990, 30, 30, 40, 40, 2990),
        (0, 15, 30, 14, 40, 0),
    ],
)
def test_the_credit_for_a_cut_period(price: int, left: int, part: int, unused: int, amount: int, fen: int) -> None:
    assert credit_for(price, left, part, unused, amount) == fen


@pytest.mark.parametrize(
    ("allowance", "part", "amount"), [(10, 30, 10), (10, 10, 3), (10, 20, 7), (1, 15, 1), (0, 9, 0)]
)
def test_the_points_of_a_period(allowance: int, part: int, amount: int) -> None:
    assert period_allowance(allowance, part, 30) == amount
