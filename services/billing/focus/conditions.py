"""What columns of one row of a FOCUS dataset demand of each other.

Facts of the specification, as its rule model states them, with the rules' names. It must not know of other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from services.billing.focus.columns import CATEGORY_OF

Given = Mapping[str, str]  # the columns that there are; null is empty


class Condition(NamedTuple):
    """`broken` says how a row breaks it, or nothing. Asked only where all of `needs` are there and well formed."""

    rule: str
    column: str
    needs: tuple[str, ...]
    broken: Callable[[Given], str]


def broken_conditions(row: Given) -> Iterator[tuple[str, str, str]]:
    """(rule, column, complaint) for each condition that a row breaks."""
    for condition in CONDITIONS:
        if all(name in row for name in condition.needs):
            said = condition.broken(row)
            if said:
                yield condition.rule, condition.column, said


# --- when a column must be null, and when it must not ------------------------------------------
def _priced(row: Given) -> bool:
    return row["ChargeCategory"] in ("Usage", "Purchase") and row["ChargeClass"] != "Correction"


def _null_for_tax(column: str, null: str, given: str) -> Iterator[Condition]:
    needs = (column, "ChargeCategory", "ChargeClass")
    yield Condition(
        f"{column}-{null}",
        column,
        needs,
        lambda row: "must be null for Tax" if row[column] and row["ChargeCategory"] == "Tax" else "",
    )
    yield Condition(
        f"{column}-{given}",
        column,
        needs,
        lambda row: f"must not be null for {row['ChargeCategory']}" if not row[column] and _priced(row) else "",
    )


def _null_without(column: str, other: str, rule: str) -> Condition:
    return Condition(
        f"{column}-{rule}",
        column,
        (column, other),
        lambda row: f"must be null where {other} is" if row[column] and not row[other] else "",
    )


def _given_with(column: str, other: str, rule: str) -> Condition:
    return Condition(
        f"{column}-{rule}",
        column,
        (column, other),
        lambda row: f"must not be null where {other} is not" if row[other] and not row[column] else "",
    )


def _status(column: str, other: str, rule: str) -> Condition:
    return Condition(
        f"{column}-{rule}",
        column,
        (column, other, "ChargeCategory"),
        lambda row: (
            f"must not be null for Usage with a {other}"
            if row[other] and row["ChargeCategory"] == "Usage" and not row[column]
            else ""
        ),
    )


def _never_null(column: str, rule: str) -> Condition:
    return Condition(f"{column}-{rule}", column, (column,), lambda row: "" if row[column] else "must not be null")


def _consumed(row: Given) -> str:
    unused = row.get("CommitmentDiscountStatus") == "Unused"
    if row["ChargeCategory"] != "Usage" or unused:
        return "must be null where nothing was consumed" if row["ConsumedQuantity"] else ""
    return "must not be null for Usage" if not row["ConsumedQuantity"] and row["ChargeClass"] != "Correction" else ""


def _committed_quantity(row: Given) -> str:
    if not row["CommitmentDiscountId"] or row["ChargeCategory"] not in ("Usage", "Purchase"):
        return "must be null without a commitment bought or used" if row["CommitmentDiscountQuantity"] else ""
    missing = not row["CommitmentDiscountQuantity"] and row["ChargeClass"] != "Correction"
    return "must not be null for a commitment bought or used" if missing else ""


# --- values that depend on each other ----------------------------------------------------------
def _not_negative(column: str, rule: str) -> Condition:
    return Condition(
        f"{column}-{rule}", column, (column,), lambda row: "must not be negative" if row[column].startswith("-") else ""
    )


def _product(cost: str, price: str, rule: str) -> Condition:
    """To the precision in which the cost is written."""

    def broken(row: Given) -> str:
        if row["ChargeClass"] == "Correction" or not (row[price] and row["PricingQuantity"] and row[cost]):
            return ""
        product = Fraction(row[price]) * Fraction(row["PricingQuantity"])
        decimals = len(row[cost].partition(".")[2]) if "e" not in row[cost].lower() else 0
        off = abs(product - Fraction(row[cost])) * 2 * 10**decimals > 1
        return f"{row[cost]} is not {price} {row[price]} × PricingQuantity {row['PricingQuantity']}" if off else ""

    return Condition(f"{cost}-{rule}", cost, (cost, price, "PricingQuantity", "ChargeClass"), broken)


def _zero_for_purchase(column: str, rule: str) -> Condition:
    return Condition(
        f"{column}-{rule}",
        column,
        (column, "ChargeCategory"),
        lambda row: (
            "must be 0 for a purchase that covers later charges"
            if row["ChargeCategory"] == "Purchase" and row[column] and Fraction(row[column])
            else ""
        ),
    )


def _zero_by_third_party(row: Given) -> str:
    billed = row["BilledCost"] and Fraction(row["BilledCost"])
    elsewhere = row["ProviderName"] != row["InvoiceIssuerName"]
    return "must be 0 where another than the provider invoices" if elsewhere and billed else ""


def _instant(value: str) -> str:
    return value.rstrip("Z")  # so that a fraction of a second sorts behind the second


def _in_order(start: str, end: str) -> Condition:
    return Condition(
        f"{end}-C-004-M",
        end,
        (start, end),
        lambda row: f"must lie behind {start}" if row[end] and _instant(row[end]) <= _instant(row[start]) else "",
    )


def _frequency(row: Given) -> str:
    usage_based = row["ChargeFrequency"] == "Usage-Based" and row["ChargeCategory"] == "Purchase"
    return "must not be Usage-Based for Purchase" if usage_based else ""


def _committed_price(row: Given) -> str:
    bound = bool(row["CommitmentDiscountId"]) and row["ChargeCategory"] == "Usage"
    return (
        "must be Committed where a commitment covers usage" if bound and row["PricingCategory"] != "Committed" else ""
    )


def _unused_is_usage(row: Given) -> str:
    unused = row["CommitmentDiscountStatus"] == "Unused"
    return "must be Usage where a commitment was not used" if unused and row["ChargeCategory"] != "Usage" else ""


def _parent(row: Given) -> str:
    category = CATEGORY_OF.get(row["ServiceSubcategory"])
    return (
        f"is of {category}, not of {row['ServiceCategory']}" if category not in (None, row["ServiceCategory"]) else ""
    )


CONDITIONS: tuple[Condition, ...] = (
    *_null_for_tax("ContractedUnitPrice", "C-005-C", "C-006-C"),
    *_null_for_tax("ListUnitPrice", "C-004-C", "C-005-C"),
    *_null_for_tax("PricingCategory", "C-003-C", "C-004-C"),
    *_null_for_tax("PricingCurrencyContractedUnitPrice", "C-004-C", "C-005-C"),
    *_null_for_tax("PricingCurrencyListUnitPrice", "C-004-C", "C-005-C"),
    *_null_for_tax("PricingQuantity", "C-004-C", "C-005-C"),
    *_null_for_tax("SkuId", "C-004-C", "C-005-C"),
    *_null_for_tax("SkuPriceId", "C-004-C", "C-005-C"),
    _null_without("PricingUnit", "PricingQuantity", "C-005-C"),
    _given_with("PricingUnit", "PricingQuantity", "C-006-C"),
    _null_without("ConsumedUnit", "ConsumedQuantity", "C-005-C"),
    _given_with("ConsumedUnit", "ConsumedQuantity", "C-006-C"),
    _null_without("CommitmentDiscountUnit", "CommitmentDiscountQuantity", "C-005-C"),
    _given_with("CommitmentDiscountUnit", "CommitmentDiscountQuantity", "C-006-C"),
    _null_without("CommitmentDiscountCategory", "CommitmentDiscountId", "C-003-C"),
    _given_with("CommitmentDiscountCategory", "CommitmentDiscountId", "C-004-C"),
    _null_without("CommitmentDiscountName", "CommitmentDiscountId", "C-004-C"),
    _null_without("CommitmentDiscountType", "CommitmentDiscountId", "C-004-C"),
    _given_with("CommitmentDiscountType", "CommitmentDiscountId", "C-005-C"),
    _null_without("CommitmentDiscountStatus", "CommitmentDiscountId", "C-003-C"),
    _status("CommitmentDiscountStatus", "CommitmentDiscountId", "C-004-C"),
    _null_without("CapacityReservationStatus", "CapacityReservationId", "C-003-C"),
    _status("CapacityReservationStatus", "CapacityReservationId", "C-004-C"),
    _null_without("ResourceName", "ResourceId", "C-004-C"),
    _null_without("ResourceType", "ResourceId", "C-004-C"),
    _given_with("ResourceType", "ResourceId", "C-005-C"),
    _null_without("RegionName", "RegionId", "C-004-C"),
    _given_with("RegionName", "RegionId", "C-005-C"),
    _null_without("SubAccountName", "SubAccountId", "C-004-C"),
    _given_with("SubAccountName", "SubAccountId", "C-005-C"),
    _null_without("SubAccountType", "SubAccountId", "C-004-C"),
    _given_with("SubAccountType", "SubAccountId", "C-005-C"),
    _null_without("SkuMeter", "SkuId", "C-004-C"),
    _null_without("SkuPriceDetails", "SkuPriceId", "C-004-C"),
    _never_null("PricingCurrency", "C-004-M"),
    _never_null("PricingCurrencyEffectiveCost", "C-003-M"),
    Condition(
        "ConsumedQuantity-C-003-C", "ConsumedQuantity", ("ConsumedQuantity", "ChargeCategory", "ChargeClass"), _consumed
    ),
    Condition(
        "CommitmentDiscountQuantity-C-004-C",
        "CommitmentDiscountQuantity",
        ("CommitmentDiscountQuantity", "CommitmentDiscountId", "ChargeCategory", "ChargeClass"),
        _committed_quantity,
    ),
    _not_negative("ContractedUnitPrice", "C-009-C"),
    _not_negative("ListUnitPrice", "C-008-M"),
    _not_negative("PricingCurrencyContractedUnitPrice", "C-008-C"),
    _not_negative("PricingCurrencyListUnitPrice", "C-008-M"),
    _product("ContractedCost", "ContractedUnitPrice", "C-009-C"),
    _product("ListCost", "ListUnitPrice", "C-009-C"),
    _zero_for_purchase("EffectiveCost", "C-005-C"),
    _zero_for_purchase("PricingCurrencyEffectiveCost", "C-005-M"),
    Condition(
        "BilledCost-C-005-C", "BilledCost", ("BilledCost", "ProviderName", "InvoiceIssuerName"), _zero_by_third_party
    ),
    _in_order("BillingPeriodStart", "BillingPeriodEnd"),
    _in_order("ChargePeriodStart", "ChargePeriodEnd"),
    Condition("ChargeFrequency-C-004-C", "ChargeFrequency", ("ChargeFrequency", "ChargeCategory"), _frequency),
    Condition(
        "PricingCategory-C-009-C",
        "PricingCategory",
        ("PricingCategory", "CommitmentDiscountId", "ChargeCategory"),
        _committed_price,
    ),
    Condition(
        "DiscountHandling-A-018-C", "ChargeCategory", ("ChargeCategory", "CommitmentDiscountStatus"), _unused_is_usage
    ),
    Condition("ServiceSubcategory-C-004-M", "ServiceSubcategory", ("ServiceSubcategory", "ServiceCategory"), _parent),
)
