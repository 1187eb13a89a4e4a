"""Golden bills: one of each kind of offer, worked out by hand."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.domain.canonical import canonical_json, plain, sealed, sha256_of
from services.billing.domain.rating import Account, Granted, Used, rate, vat_of
from shared.catalogue.view import CatalogueView
from shared.contracts.billing import Bill, BillLine, TokenSums
from shared.contracts.catalog import Bundle, Plan
from tests.unit.billing_world import BEFORE, JUNE, catalogue, june

POINT = 1000  # millipoints
MONTHLY = Plan(
    operator="sh-telecom",
    plan="m-990",
    name="Token Plan 9.9",
    kind="monthly",
    fee_fen=990,
    allowance=10_000_000 * POINT,
)
CODING = Plan(operator="sh-telecom", plan="coding", name="Coding Plan", kind="coding", fee_fen=3990)
MOBILE = Plan(operator="sh-telecom", plan="payg-400", name="Pay as you go", kind="payg", points_per_yuan=400_000)
BROADBAND = Plan(
    operator="sh-telecom",
    plan="fibre",
    name="Fibre with tokens",
    kind="bundle",
    bundle=Bundle(product="Broadband 500M", bundle_price_fen=19_900, token_share_percent=10),
)
CATALOGUE = catalogue(MONTHLY, CODING, MOBILE, BROADBAND).view()
PAYG = Account("sh-telecom", "a1", june(1, 0))


def bill(account: Account = PAYG, **inputs: Any) -> Bill:
    return rate(account, JUNE, CATALOGUE, 42, number="sh-telecom-2026-06-000001", **inputs)


def used(charged: int, amount: int | None = None, model: str = "kimi-k2.5", rate_card: str = "rc@1") -> Used:
    return Used(model, rate_card, 1, TokenSums(input=7), charged if amount is None else amount, charged)


def granted(source: str, amount: int, price_fen: int = 0, plan: str = "", version: int = 1, at_us: int = 0) -> Granted:
    return Granted(at_us, 1, source, amount, price_fen, plan, version if plan else 0)


def fens(made: Bill) -> list[tuple[str, int]]:
    return [(line.kind, line.fen) for line in made.lines]


class TestOffers:
    def test_pay_as_you_go_at_list_price(self) -> None:
        # 1,000,000 points at 250,000 points a yuan: 4 yuan.
        made = bill(usage=[used(1_000_000 * POINT)])
        assert fens(made) == [("usage", 400)]
        assert made.total_fen == 400

    def test_pay_as_you_go_at_the_plans_own_price(self) -> None:
        # 1,000,000 points at 400,000 points a yuan: 2.50 yuan.
        account = PAYG._replace(plan="payg-400")
        assert fens(bill(account, usage=[used(1_000_000 * POINT)])) == [("usage", 250)]

    def test_an_unknown_plan_has_list_price(self) -> None:
        account = PAYG._replace(plan="gone")
        assert fens(bill(account, usage=[used(1_000_000 * POINT)])) == [("usage", 400)]

    def test_monthly_plan_covers_its_usage(self) -> None:
        # 9.90 for the plan; 6M points used, all from the plan's grant.
        plan = granted("plan", MONTHLY.allowance, 990, "m-990")
        made = bill(grants=[plan], usage=[used(0, 6_000_000 * POINT)])
        assert fens(made) == [("plan_fee", 990), ("usage", 0)]
        assert made.lines[0].amount == 10_000_000 * POINT
        assert made.debited == 6_000_000 * POINT

    def test_coding_plan_at_a_discount(self) -> None:
        # 39.90 less 7.98: two lines, what was paid is their sum.
        made = bill(grants=[granted("plan", 15_000_000 * POINT, 3192, "coding")])
        assert fens(made) == [("plan_fee", 3990), ("discount", -798)]
        assert made.total_fen == 3192
        assert made.lines[1].amount == 0

    def test_a_plan_the_catalogue_does_not_know_costs_what_was_paid(self) -> None:
        assert fens(bill(grants=[granted("plan", 1, 500, "gone")])) == [("plan_fee", 500)]
        assert fens(bill(grants=[granted("plan", 1, 500, "m-990", version=0)])) == [("plan_fee", 500)]

    def test_trial_and_promotion_are_free(self) -> None:
        made = bill(grants=[granted("trial", 5000), granted("promotion", 7000, at_us=1)])
        assert [(line.kind, line.fen, line.amount) for line in made.lines] == [("trial", 0, 5000), ("trial", 0, 7000)]

    def test_bundle_names_product_price_and_share(self) -> None:
        made = bill(grants=[granted("bundle", 20_000_000 * POINT, 1990, "fibre")])
        assert fens(made) == [("bundle", 1990)]
        assert made.lines[0].text == "Tokens bundled with Broadband 500M: 10% of the bundle price of 199.00 yuan"

    def test_prepaid_purchase(self) -> None:
        assert fens(bill(grants=[granted("purchase", 250_000 * POINT, 100)])) == [("purchase", 100)]

    def test_adjustments_move_no_money(self) -> None:
        assert bill(grants=[granted("adjustment", 5000)]).lines == ()

    def test_postpaid_pays_only_what_no_grant_covered(self) -> None:
        # 3M points used; 1M from grants, 2M from credit and overdraft: 8 yuan.
        made = bill(usage=[used(2_000_000 * POINT, 3_000_000 * POINT)])
        assert (made.total_fen, made.debited) == (800, 3_000_000 * POINT)

    def test_more_reversed_than_used_is_in_the_subscribers_favour(self) -> None:
        # -1.5 fen is -2: a half goes away from zero.
        made = bill(usage=[used(-3_750_000)])
        assert (made.lines[0].fen, made.lines[0].residual, made.total_fen) == (-2, "1/2", -2)

    def test_nothing_bought_or_used(self) -> None:
        made = bill()
        assert (made.lines, made.total_fen, made.vat_fen) == ((), 0, 0)


class TestOrder:
    def test_lines_come_by_kind_then_time_then_model(self) -> None:
        grants = [
            granted("trial", 1),
            granted("purchase", 1, 3, at_us=9),
            granted("purchase", 1, 4, at_us=8),
            granted("bundle", 1, 2, "fibre"),
            granted("plan", 1, 1, "coding"),
        ]
        usage = [used(0, model="b"), used(0, model="a", rate_card="z@2"), used(0, model="a", rate_card="z@1")]
        made = bill(grants=grants, usage=usage, late=[used(0, model="a")])
        assert [(line.kind, line.fen) for line in made.lines[:6]] == [
            ("plan_fee", 3990),
            ("discount", -3989),
            ("bundle", 2),
            ("purchase", 4),
            ("purchase", 3),
            ("trial", 0),
        ]
        assert [(line.kind, line.model, line.rate_card) for line in made.lines[6:]] == [
            ("usage", "a", "z@1"),
            ("usage", "a", "z@2"),
            ("usage", "b", "rc@1"),
            ("late_usage", "a", "rc@1"),
        ]


class TestPlanPrice:
    """The price as you go is that of the period's start, or of the account's opening inside the period."""

    def view(self) -> CatalogueView:
        log = catalogue()
        log.publish(MOBILE, 1, effective=june(10))
        dearer = Plan(operator="sh-telecom", plan="payg-400", name="", kind="payg", points_per_yuan=200_000)
        log.publish(dearer, 2, effective=june(20))
        return log.view()

    def total(self, account: Account, period: str) -> int:
        return rate(account, period, self.view(), 1, usage=[used(1_000_000 * POINT)]).total_fen

    def test_of_the_opening_when_the_plan_began_inside_the_period(self) -> None:
        assert self.total(Account("sh-telecom", "a", june(15), "payg-400"), JUNE) == 250

    def test_of_the_periods_start_afterwards(self) -> None:
        assert self.total(Account("sh-telecom", "a", june(15), "payg-400"), "2026-07") == 500

    def test_list_price_before_the_plan_existed(self) -> None:
        assert self.total(Account("sh-telecom", "a", BEFORE, "payg-400"), JUNE) == 400

    def test_a_plan_without_a_price_has_list_price(self) -> None:
        free = Plan(operator="sh-telecom", plan="free", name="", kind="payg", points_per_yuan=0)
        account = PAYG._replace(plan="free")
        assert rate(account, JUNE, catalogue(free).view(), 1, usage=[used(2_500_000)]).total_fen == 1


class TestRoundingAndTax:
    @pytest.mark.parametrize(
        ("charged", "fen", "residual"),
        [
            (0, 0, "0/1"),
            (1, 0, "1/2500000"),
            (1_249_999, 0, "1249999/2500000"),
            (1_250_000, 1, "-1/2"),
            (2_500_000, 1, "0/1"),
            (3_749_999, 1, "1249999/2500000"),
        ],
    )
    def test_a_line_is_rounded_once_and_says_by_how_much(self, charged: int, fen: int, residual: str) -> None:
        line = bill(usage=[used(charged)]).lines[0]
        assert (line.fen, line.residual) == (fen, residual)
        assert Fraction(line.fen) + Fraction(line.residual) == Fraction(charged, 2_500_000)

    @pytest.mark.parametrize(("total", "vat"), [(0, 0), (106, 6), (990, 56), (100, 6), (8, 0), (9, 1), (-106, -6)])
    def test_vat_is_included(self, total: int, vat: int) -> None:
        assert vat_of(total) == vat  # 990 x 6/106 = 56.04; 8 x 6/106 = 0.45; 9 x 6/106 = 0.51


class TestCanonicalForm:
    def test_defaults_are_left_out_by_value(self) -> None:
        line = BillLine(kind="usage", text="x", fen=0, usage=TokenSums(), residual="/".join(("0", "1")))
        assert canonical_json(line) == b'{"fen":0,"kind":"usage","text":"x"}'

    def test_keys_are_sorted_and_text_is_utf8(self) -> None:
        line = BillLine(text="套餐", kind="trial", fen=1)
        assert canonical_json(line) == '{"fen":1,"kind":"trial","text":"套餐"}'.encode()

    @given(text=st.text(), fen=st.integers())
    def test_it_is_what_any_json_writer_makes_of_it(self, text: str, fen: int) -> None:
        line = BillLine(text=text, kind="trial", fen=fen)
        written = json.dumps(plain(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert canonical_json(line) == written.encode()

    def test_a_bill_hashes_the_same_after_its_journey_through_the_log(self) -> None:
        import msgspec

        made, sha256 = sealed(bill(usage=[used(1)], grants=[granted("trial", 5)]))
        back = msgspec.json.decode(msgspec.json.encode(made), type=Bill)
        assert sha256_of(back) == sha256_of(made) == sha256
        assert msgspec.to_builtins(back) == msgspec.to_builtins(made)
