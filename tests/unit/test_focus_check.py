"""The checker of FOCUS files: it finds each kind of defect, on its line, and nothing where there is none."""

from __future__ import annotations

import csv
import re
from itertools import product

import pytest

from services.billing.focus.check import Finding, check_focus
from services.billing.focus.columns import ALLOWED, CATEGORY_OF, COLUMNS, Column, Format, Level
from services.billing.focus.conditions import CONDITIONS, Condition
from services.billing.focus.rows import HEADER, focus_csv
from tests.folders import REFERENCE
from tests.unit.focus_bills import EVERY_KIND, rows_of, written

FOCUS = REFERENCE / "data" / "focus"
needs_the_specification = pytest.mark.skipif(not FOCUS.is_dir(), reason=f"the specification's data is not in {FOCUS}")


def line_of(kind: str) -> int:
    """The line in the file of the first row of a kind."""
    return 2 + [row["x_LineKind"] for row in rows_of(EVERY_KIND)].index(kind)


def found(findings: list[Finding]) -> set[tuple[int, str, str]]:
    return {(finding.line, finding.column, finding.rule) for finding in findings}


def with_changes(kind: str, **changed: str) -> str:
    rows = rows_of(EVERY_KIND)
    rows[line_of(kind) - 2] |= changed
    return focus_csv(rows)


def test_a_file_without_defects_has_no_findings() -> None:
    assert check_focus(written(EVERY_KIND)) == []


def test_a_byte_order_mark_and_a_file_without_rows_are_no_defects() -> None:
    assert check_focus("\ufeff" + written(EVERY_KIND)) == check_focus(focus_csv([])) == []


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.level is Level.MANDATORY])
def test_a_mandatory_column_that_is_missing(name: str) -> None:
    header = [column for column in HEADER if column != name]
    assert (1, name, "CostAndUsage-D") in found(check_focus(",".join(header) + "\r\n"))


@pytest.mark.parametrize(
    ("header", "finding"),
    [
        ("BilledCost,BilledCost", (1, "BilledCost", "ColumnHandling")),
        ("Cost", (1, "Cost", "ColumnHandling-A-010-M")),
    ],
)
def test_columns_that_must_not_be_there(header: str, finding: tuple[int, str, str]) -> None:
    assert finding in found(check_focus(header + "\r\n"))


PLANTED = [  # kind of the row, what is changed in it, the column and rule of the finding
    ("usage", {"BilledCost": ""}, "BilledCost", "NullHandling"),
    ("usage", {"ProviderName": " "}, "ProviderName", "NullHandling"),
    ("usage", {"ServiceName": "NULL"}, "ServiceName", "NullHandling"),
    ("usage", {"PricingCurrency": ""}, "PricingCurrency", "PricingCurrency-C-004-M"),
    (
        "usage",
        {"PricingCurrencyEffectiveCost": ""},
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyEffectiveCost-C-003-M",
    ),
    *(
        ("trial", {"BilledCost": bad}, "BilledCost", "NumericFormat")
        for bad in ("1,000.00", "+1", "¥1", "1.", "½", "1e+2", "9" * 5000)
    ),
    *(
        ("usage", {"ChargePeriodEnd": bad}, "ChargePeriodEnd", "DateTimeFormat")
        for bad in (
            "2026-06-30",
            "6/30/26",
            "2026-06-30T16:00:00+08:00",
            "2026-06-30 16:00:00Z",
            "2026-06-31T16:00:00Z",
        )
    ),
    ("usage", {"BillingCurrency": "Points"}, "BillingCurrency", "CurrencyFormat"),
    ("usage", {"BillingCurrency": "cny"}, "BillingCurrency", "CurrencyFormat"),
    ("usage", {"PricingUnit": "points "}, "PricingUnit", "UnitFormat"),
    ("usage", {"ChargeCategory": "usage"}, "ChargeCategory", "AllowedValues"),
    ("usage", {"ChargeClass": "Normal"}, "ChargeClass", "AllowedValues"),
    ("usage", {"ChargeFrequency": "Monthly"}, "ChargeFrequency", "AllowedValues"),
    ("usage", {"PricingCategory": "On-Demand"}, "PricingCategory", "AllowedValues"),
    ("usage", {"ServiceCategory": "AI"}, "ServiceCategory", "AllowedValues"),
    ("usage", {"ServiceSubcategory": "LLM"}, "ServiceSubcategory", "AllowedValues"),
    ("usage", {"CommitmentDiscountStatus": "Active"}, "CommitmentDiscountStatus", "AllowedValues"),
    ("purchase", {"CommitmentDiscountCategory": "Tokens"}, "CommitmentDiscountCategory", "AllowedValues"),
    *(
        ("usage", {"SkuPriceDetails": bad}, "SkuPriceDetails", "KeyValueFormat")
        for bad in ("kimi", "[]", '{"x_a": [1]}', "[" * 5000, '{"x_a": 1, "x_a": 2}', '{"model": "kimi"}', '"x_a"')
    ),
    ("cap", {"ChargeCategory": "Tax", "PricingQuantity": "1"}, "PricingQuantity", "PricingQuantity-C-004-C"),
    ("cap", {"ChargeCategory": "Tax", "SkuId": "1"}, "SkuId", "SkuId-C-004-C"),
    ("usage", {"ListUnitPrice": ""}, "ListUnitPrice", "ListUnitPrice-C-005-C"),
    ("purchase", {"SkuPriceId": "", "SkuPriceDetails": ""}, "SkuPriceId", "SkuPriceId-C-005-C"),
    ("usage", {"PricingUnit": ""}, "PricingUnit", "PricingUnit-C-006-C"),
    ("cap", {"PricingUnit": "Points"}, "PricingUnit", "PricingUnit-C-005-C"),
    ("usage", {"ConsumedUnit": ""}, "ConsumedUnit", "ConsumedUnit-C-006-C"),
    ("cap", {"ConsumedUnit": "Tokens"}, "ConsumedUnit", "ConsumedUnit-C-005-C"),
    ("usage", {"ConsumedQuantity": "", "ConsumedUnit": ""}, "ConsumedQuantity", "ConsumedQuantity-C-003-C"),
    ("unused", {"ConsumedQuantity": "1", "ConsumedUnit": "Tokens"}, "ConsumedQuantity", "ConsumedQuantity-C-003-C"),
    ("usage", {"CommitmentDiscountStatus": ""}, "CommitmentDiscountStatus", "CommitmentDiscountStatus-C-004-C"),
    ("cap", {"CommitmentDiscountStatus": "Used"}, "CommitmentDiscountStatus", "CommitmentDiscountStatus-C-003-C"),
    (
        "usage",
        {"CommitmentDiscountQuantity": "", "CommitmentDiscountUnit": ""},
        "CommitmentDiscountQuantity",
        "CommitmentDiscountQuantity-C-004-C",
    ),
    ("usage", {"ResourceType": ""}, "ResourceType", "ResourceType-C-005-C"),
    ("cap", {"ResourceName": "kimi"}, "ResourceName", "ResourceName-C-004-C"),
    ("usage", {"PricingCategory": "Standard"}, "PricingCategory", "PricingCategory-C-009-C"),
    ("unused", {"ChargeCategory": "Adjustment"}, "ChargeCategory", "DiscountHandling-A-018-C"),
    ("purchase", {"ChargeFrequency": "Usage-Based"}, "ChargeFrequency", "ChargeFrequency-C-004-C"),
    ("usage", {"ListUnitPrice": "-0.000004", "ListCost": "-3.878268"}, "ListUnitPrice", "ListUnitPrice-C-008-M"),
    ("usage", {"ContractedCost": "3.878267"}, "ContractedCost", "ContractedCost-C-009-C"),
    ("usage", {"ListCost": "9"}, "ListCost", "ListCost-C-009-C"),
    ("purchase", {"EffectiveCost": "40.00"}, "EffectiveCost", "EffectiveCost-C-005-C"),
    ("purchase", {"InvoiceIssuerName": "Another"}, "BilledCost", "BilledCost-C-005-C"),
    ("usage", {"ChargePeriodEnd": "2026-05-31T16:00:00Z"}, "ChargePeriodEnd", "ChargePeriodEnd-C-004-M"),
    ("usage", {"ServiceSubcategory": "Databases"}, "ServiceSubcategory", "AllowedValues"),
    ("usage", {"ServiceSubcategory": "Caching"}, "ServiceSubcategory", "ServiceSubcategory-C-004-M"),
    ("unused", {"ServiceCategory": "Other"}, "ServiceCategory", "ServiceName-C-005-C"),
    ("late_usage", {"SkuId": "another"}, "SkuId", "SkuPriceId-C-008-M"),
    ("unused", {"BillingAccountId": "another"}, "BillingAccountId", "InvoiceId-C-007-C"),
    ("unused", {"BillingCurrency": "USD"}, "BillingCurrency", "BillingCurrency-C-005-M"),
    ("unused", {"CommitmentDiscountUnit": "Units"}, "CommitmentDiscountUnit", "CommitmentDiscountUnit-C-008-M"),
]


@pytest.mark.parametrize(("kind", "changed", "column", "rule"), PLANTED)
def test_a_planted_defect_is_found_on_its_line(kind: str, changed: dict[str, str], column: str, rule: str) -> None:
    assert (line_of(kind), column, rule) in found(check_focus(with_changes(kind, **changed)))


def test_cost_that_is_counted_twice_or_lost_is_found_where_the_commitment_begins() -> None:
    (finding,) = check_focus(with_changes("unused", EffectiveCost="33.33"))
    assert (finding.line, finding.rule) == (line_of("plan_fee"), "EffectiveCost-C-012-C")


def test_a_commitment_that_goes_on_after_the_file_ends_costs_more_than_the_file_shows() -> None:
    rows = rows_of(EVERY_KIND)
    rows[line_of("unused") - 2]["EffectiveCost"] = "1.00"
    for row in rows:
        if row["ChargeCategory"] == "Purchase":
            row["ChargePeriodEnd"] = "2027-05-31T16:00:00Z"
    assert check_focus(focus_csv(rows)) == []


def test_a_record_of_another_length_and_what_is_no_csv() -> None:
    lines = written(EVERY_KIND).splitlines()
    assert found(check_focus("\r\n".join([*lines[:2], lines[2] + ",x", *lines[3:], '"open']))) >= {
        (3, "", "CSV"),
        (len(lines) + 1, "", "CSV"),
    }


def test_a_text_of_several_lines_moves_the_lines_behind_it() -> None:
    rows = rows_of(EVERY_KIND)
    rows[0]["ChargeDescription"] = "two\nlines"
    rows[1]["BilledCost"] = "x"
    assert (4, "BilledCost", "NumericFormat") in found(check_focus(focus_csv(rows)))


def test_every_condition_is_of_a_known_column() -> None:
    assert {name for one in CONDITIONS for name in (one.column, *one.needs)} <= set(COLUMNS)


CANDIDATES = {
    "ChargeCategory": ("Usage", "Purchase", "Tax", "Credit"),
    "ChargeClass": ("", "Correction"),
    "ChargeFrequency": ("Usage-Based", "Recurring"),
    "CommitmentDiscountStatus": ("", "Used", "Unused"),
    "PricingCategory": ("", "Standard", "Committed"),
    "ServiceSubcategory": ("Caching",),
    "ServiceCategory": ("Databases", "Web"),
}


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.rule)
def test_every_condition_can_be_kept_and_broken(condition: Condition) -> None:
    values = product(*(CANDIDATES.get(name, ("", "1", "-1")) for name in condition.needs))
    said = [condition.broken(dict(zip(condition.needs, row, strict=True))) for row in values]
    assert "" in said
    assert any(said)


@needs_the_specification
class TestAgainstTheSpecification:
    def test_the_columns_are_those_of_its_list(self) -> None:
        with (FOCUS / "focus_1.2_columns.csv").open(newline="") as file:
            listed = {row["column_id"]: row for row in csv.DictReader(file)}
        assert {
            name: Column(
                name,
                Level(row["feature_level"]),
                row["allows_nulls"] == "True",
                _format(row["value_format"]),
                row["introduced"],
            )
            for name, row in listed.items()
        } == COLUMNS
        types = {Format.NUMBER: ("Metric", "Decimal"), Format.INSTANT: ("Dimension", "Date/Time")}
        types |= {Format.KEY_VALUE: ("Dimension", "JSON")}
        for name, row in listed.items():
            assert (row["column_type"], row["data_type"]) == types.get(COLUMNS[name].format, ("Dimension", "String"))

    def test_the_allowed_values_are_those_of_its_rule_model(self) -> None:
        text = (FOCUS / "model-1.2.0.1.json").read_text()
        pairs = re.findall(r'"ColumnName": "(\w+)",\s+"Value": "([^"]+)"', text)
        model: dict[str, set[str]] = {}
        for column, value in pairs:
            model.setdefault(column, set()).add(value)
        # Its values of CommitmentDiscountStatus are not those of the column itself, which the model's conditions use.
        model["CommitmentDiscountStatus"] -= {"Active", "Expired", "Pending"}
        assert {column: model[column] for column in ALLOWED} == ALLOWED
        assert set(CATEGORY_OF.values()) == ALLOWED["ServiceCategory"]

    @pytest.mark.parametrize("example", ["a1", "a2", "b1", "b2", "b3", "c"])
    def test_its_own_examples_break_what_they_break_and_nothing_else(self, example: str) -> None:
        """They lack a mandatory column, write days as in America, and one has a blank behind a number."""
        text = (FOCUS / f"virtual_currency_pricing_model_{example}.csv").read_text()
        rules = {(finding.column, finding.rule) for finding in check_focus(text)}
        periods = {(f"{of}Period{end}", "DateTimeFormat") for of in ("Billing", "Charge") for end in ("Start", "End")}
        blank = {("EffectiveCost", "NumericFormat")} if example == "b1" else set()
        assert rules == {("ServiceCategory", "CostAndUsage-D"), *periods, *blank}


def _format(listed: str) -> Format:
    """The list writes some of them in two ways."""
    known = {"not specified": "String", "Unit Format recommended": "Unit Format", "KeyValueFormat": "Key-Value Format"}
    return Format(known.get(listed, listed.replace("values", "Values")))
