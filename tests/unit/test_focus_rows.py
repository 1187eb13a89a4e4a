"""Bills in FOCUS: how each kind of line is shown, and that no fen is counted twice or lost."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings

from services.billing.focus.check import check_focus
from services.billing.focus.lines import KINDS
from services.billing.focus.rows import HEADER, credit_note_row, decimal, focus_csv
from shared.contracts.billing import Bill, CreditNoteIssued, LineKind
from shared.units import largest_remainder
from tests.unit.billing_world import july
from tests.unit.focus_bills import EVERY_KIND, FEN, MILLION, bill, bills, line, read, rows_of, summed, used, written

few = settings(max_examples=30)
LATER = ("plan_credit", "cap", "commitment", "credit")  # kinds that a bill may have one day


def shown(made: Bill, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row.get(column, "") for column in columns) for row in rows_of(made)]


def test_every_kind_of_line_has_a_row() -> None:
    assert set(get_args(LineKind)) <= set(KINDS)
    assert {one.kind for one in EVERY_KIND.lines} == set(KINDS) >= set(LATER)
    assert {row["x_LineKind"] for row in rows_of(EVERY_KIND)} == {*KINDS, "unused"}


def test_an_unknown_kind_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="'gift'"):
        rows_of(bill(line("gift", 5)))


@few
@given(bills)
def test_what_is_billed_is_the_bill_and_so_is_what_it_all_cost(made: Bill) -> None:
    rows = rows_of(made)
    assert summed(rows, "BilledCost") == summed(rows, "EffectiveCost") == made.total_fen


@few
@given(bills)
def test_any_bill_keeps_to_the_specification(made: Bill) -> None:
    assert check_focus(written(made)) == []


@few
@given(bills)
def test_no_token_and_no_point_is_lost_where_a_line_is_parted(made: Bill) -> None:
    usage = [one for one in made.lines if one.kind in ("usage", "late_usage")]
    rows = [row for row in rows_of(made) if row["x_LineKind"] in ("usage", "late_usage")]
    assert sum(int(row["ConsumedQuantity"]) for row in rows) == sum(one.usage.total for one in usage)
    assert summed(rows, "PricingQuantity") * 10 == sum(one.amount for one in usage)


class TestPointsAreBoughtOnce:
    def test_a_purchase_is_billed_and_its_use_bears_the_cost(self) -> None:
        made = bill(line("purchase", 400, amount=MILLION), used(750_000), used(250_000, model="qwen"))
        assert shown(made, "ChargeCategory", "BilledCost", "EffectiveCost", "PricingCurrency", "PricingQuantity") == [
            ("Purchase", "4.00", "0.00", "CNY", "1.000"),
            ("Usage", "0.00", "3.00", "Points", "750000.000"),
            ("Usage", "0.00", "1.00", "Points", "250000.000"),
        ]

    def test_what_is_not_used_of_a_fee_has_a_row_of_its_own(self) -> None:
        made = bill(line("plan_fee", 990, amount=10 * MILLION, plan="basic", plan_version=1), used(1_000_000))
        columns = ("BilledCost", "EffectiveCost", "CommitmentDiscountStatus", "CommitmentDiscountQuantity")
        assert shown(made, *columns) == [
            ("9.90", "0.00", "", "10000000.000"),
            ("0.00", "0.99", "Used", "1000000.000"),
            ("0.00", "8.91", "Unused", "9000000.000"),
        ]

    def test_points_of_an_earlier_bill_cost_nothing_again(self) -> None:
        made = bill(used(1_000_000))
        assert shown(made, "BilledCost", "EffectiveCost", "CommitmentDiscountStatus") == [("0.00", "0.00", "Used")]

    def test_a_fee_without_points_or_use_is_not_used(self) -> None:
        made = bill(line("plan_fee", 500, plan="basic", plan_version=1))
        assert shown(made, "EffectiveCost", "CommitmentDiscountStatus") == [("0.00", ""), ("5.00", "Unused")]

    def test_what_was_given_back_of_a_plan_is_off_what_was_not_used(self) -> None:
        made = bill(line("plan_fee", 1000, amount=10 * MILLION), line("plan_credit", -300), used(5_000_000))
        assert [row["EffectiveCost"] for row in rows_of(made)] == ["0.00", "0.00", "5.00", "2.00"]

    def test_a_usage_line_paid_in_both_ways_is_two_rows(self) -> None:
        made = bill(line("purchase", 40, amount=MILLION // 10), used(100_000, 20, tokens=300))
        columns = ("ChargeDescription", "BilledCost", "EffectiveCost", "PricingCategory", "ConsumedQuantity")
        assert shown(made, *columns)[1:] == [
            ("usage, paid with points", "0.00", "0.40", "Committed", "200"),
            ("usage, as you go", "0.20", "0.20", "Standard", "100"),
        ]


class TestReductions:
    def test_a_discount_behind_its_fee_is_off_the_fee(self) -> None:
        plan = {"plan": "basic", "plan_version": 1}
        made = bill(line("plan_fee", 990, amount=MILLION, **plan), line("discount", -200, **plan), used(1_000_000))
        assert shown(made, "ChargeCategory", "ListCost", "ContractedCost", "EffectiveCost")[:2] == [
            ("Purchase", "9.90", "9.90", "0.00"),
            ("Purchase", "0.00", "-2.00", "0.00"),
        ]
        assert rows_of(made)[2]["EffectiveCost"] == "7.90"

    @pytest.mark.parametrize("kind", ["discount", "cap"])
    def test_what_is_off_usage_as_you_go_is_shared_by_what_there_was_to_pay(self, kind: str) -> None:
        made = bill(used(0, 300), used(0, 100, model="qwen"), line(kind, -100))
        assert shown(made, "ChargeCategory", "BilledCost", "EffectiveCost") == [
            ("Usage", "3.00", "2.25"),
            ("Usage", "1.00", "0.75"),
            ("Credit", "-1.00", "0.00"),
        ]

    @pytest.mark.parametrize(("kind", "category"), [("credit", "Credit"), ("commitment", "Adjustment")])
    def test_what_concerns_no_other_line_stays_where_it_is(self, kind: str, category: str) -> None:
        made = bill(used(0, 300), line(kind, 50))
        assert shown(made, "ChargeCategory", "BilledCost", "EffectiveCost")[-1] == (category, "0.50", "0.50")


class TestWhenAndWhere:
    def test_a_period_is_shanghais_month_in_utc(self) -> None:
        row = rows_of(bill(used(1)))[0]
        assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-05-31T16:00:00Z", "2026-06-30T16:00:00Z")
        assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
            row["BillingPeriodStart"],
            row["BillingPeriodEnd"],
        )

    def test_late_usage_corrects_the_month_before(self) -> None:
        row = rows_of(bill(used(0, 5, kind="late_usage"), period="2026-01"))[0]
        assert row["ChargeClass"] == "Correction"
        assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2025-11-30T16:00:00Z", "2025-12-31T16:00:00Z")
        assert row["BillingPeriodStart"] == row["ChargePeriodEnd"]

    def test_a_credit_note_corrects_its_bills_period_in_the_one_it_was_issued_in(self) -> None:
        at = july(3)
        note = CreditNoteIssued(
            at=at, recorded_at=at, request_id="c", number="o-C1", bill_number="o-1", fen=250, reason="slow"
        )
        row = credit_note_row(note, "o", "a", "2026-06", "O")
        assert check_focus(focus_csv([row])) == []
        assert (row["ChargeCategory"], row["ChargeClass"], row["InvoiceId"]) == ("Credit", "Correction", "o-C1")
        assert (row["BilledCost"], row["EffectiveCost"]) == ("-2.50", "-2.50")
        assert (row["BillingPeriodStart"], row["ChargePeriodEnd"]) == ("2026-06-30T16:00:00Z", "2026-06-30T16:00:00Z")


def test_the_price_as_you_go_is_the_lines_own_and_list_price_the_public_one() -> None:
    cheap = line("usage", 1, model="kimi", amount=4000 * 1000, charged=4000 * 1000)  # 400,000 points a yuan
    row = rows_of(bill(cheap))[0]
    assert (row["ContractedUnitPrice"], row["ListUnitPrice"]) == ("0.0000025", "0.000004")
    assert (row["ContractedCost"], row["ListCost"]) == ("0.01", "0.016")
    assert FEN == 2500 * 1000


@pytest.mark.parametrize(
    ("value", "places", "keep", "text"),
    [
        (0, 3, None, "0.000"),
        (1, 3, None, "0.001"),
        (-1, 3, None, "-0.001"),
        (-1234567, 3, None, "-1234.567"),
        (4_000_000, 12, 2, "0.000004"),
        (10**12, 12, 2, "1.00"),
    ],
)
def test_decimals_are_written_from_integers(value: int, places: int, keep: int | None, text: str) -> None:
    assert decimal(value, places, keep) == text


def test_a_file_has_its_header_and_one_line_a_row_even_if_a_text_tries_otherwise() -> None:
    hostile = 'a,"b"\r\n=1+1\nπ'
    text = focus_csv(rows_of(bill(line("purchase", 5, text=hostile, amount=1000))))
    assert text.startswith(",".join(HEADER) + "\r\n")
    assert read(text)[0]["ChargeDescription"] == hostile
    assert check_focus(text) == []


def test_a_sum_below_zero_is_shared_exactly_too() -> None:
    assert sum(largest_remainder(-7, [1, 1, 1])) == -7
