"""The auditor's own rating: hand-made inputs and figures worked out by hand from the rules of rating."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from services.audit.replay.account import Account
from services.audit.replay.calendar import instant, period_and_day, period_end, period_start
from services.audit.replay.periods import rounded
from services.audit.replay.prices import Prices
from services.audit.replay.rating import bill_of, statement_of
from services.audit.replay.usage import Granted, Metered, Sums, Usage

LONG_AGO = "2025-12-31T16:00:00Z"
JUNE = "2026-06"


def published(known: Prices, position: int, kind: str, item: dict[str, Any], version: int = 1, **when: str) -> None:
    event = {"recorded_at": LONG_AGO, "effective_from": LONG_AGO, "version": version, "item": item} | when
    known.apply(position, "", f"catalog.{kind}Published:1", event)


@pytest.fixture
def prices() -> Prices:
    known = Prices()
    pair: dict[str, Any] = {"home": "east", "serving": "west"}
    items: list[tuple[str, dict[str, Any]]] = [
        ("Plan", {"operator": "east", "plan": "gold", "name": "Gold", "kind": "monthly", "fee_fen": 990}),
        ("Plan", {"operator": "east", "plan": "payg", "name": "P", "kind": "payg", "points_per_yuan": 300_000}),
        ("Tariff", {**pair, "model": "*", "retail_percent": 60, "discount_percent": 10}),
        ("Tariff", {**pair, "model": "m2", "rates": {"input": 500, "output": 2000}}),
    ]
    for position, (kind, item) in enumerate(items, start=1):
        published(known, position, kind, item)
    return known


def account(plan: str = "") -> Account:
    made = Account("east/a1")
    made.open(1, {"at": "2026-06-01T00:00:00Z", "plan": plan})
    return made


def used(calls: int = 1, amount: int = 0, charged: int = 0, tokens: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Sums:
    sums = Sums()
    sums.calls, sums.amount, sums.charged, sums.tokens = calls, amount, charged, list(tokens)
    return sums


def grant(position: int, source: str, amount: int = 1, at: str = "2026-06-02T00:00:00Z", **event: Any) -> Granted:
    return Granted(JUNE, 9, at, position, {"source": source, "amount": amount, "at": at} | event)


def bill(prices: Prices, plan: str = "", grants: Any = (), own: Any = (), late: Any = ()) -> dict[str, Any]:
    issued = {"number": "east-2026-06-000001", "period": JUNE, "quota_position": 9, "catalog_position": 4}
    return bill_of(issued, account(plan), grants, own, late, prices)


ROUNDED = {"1/2": 1, "-1/2": -1, "49/100": 0, "-49/100": 0, "3/2": 2, "5/2": 3, "-5/2": -3, "7/3": 2, "0": 0}


@pytest.mark.parametrize(("value", "expected"), ROUNDED.items())
def test_rounding_is_half_away_from_zero(value: str, expected: int) -> None:
    assert rounded(Fraction(value)) == expected


def test_usage_is_charged_at_the_plans_price_and_rounded_once(prices: Prices) -> None:
    # 100,000,000 millipoints = 100,000 points; at 300,000 points a yuan: 33 1/3 fen.
    rows = [(Usage(JUNE, 9, "m1", "east/m1@1"), used(2, 150_000_000, 100_000_000, (7, 0, 0, 5)))]
    found = bill(prices, "payg", own=rows)
    (line,) = found["lines"]
    assert (line["fen"], line["residual"], line["calls"], line["usage"]) == (33, "1/3", 2, {"input": 7, "output": 5})
    # 33 x 6 / 106 = 1.867…
    assert (found["total_fen"], found["vat_fen"], found["tokens"], found["debited"]) == (33, 2, 12, 150_000_000)


def test_without_a_plan_the_list_price_holds(prices: Prices) -> None:
    rows = [(Usage(JUNE, 9, "m1", "east/m1@1"), used(1, 3_750_000, 3_750_000))]
    (line,) = bill(prices, own=rows)["lines"]
    assert (line["fen"], line["residual"]) == (2, "-1/2")  # 1.5 fen


def test_a_plan_published_after_the_bills_catalog_position_is_unknown(prices: Prices) -> None:
    published(prices, 5, "Plan", {"operator": "east", "plan": "new", "name": "N", "kind": "payg", "points_per_yuan": 1})
    rows = [(Usage(JUNE, 9, "m1", "east/m1@1"), used(1, 2_500_000, 2_500_000))]
    assert bill(prices, "new", own=rows)["total_fen"] == 1


def test_grants_come_in_the_bills_order(prices: Prices) -> None:
    grants = [
        grant(1, "trial"),
        grant(2, "purchase", price_fen=500),
        grant(5, "plan", plan="gold", plan_version=1, price_fen=790),
        grant(4, "plan", plan="gold", plan_version=1, price_fen=990),
        grant(3, "plan", plan="gold", price_fen=123),
        grant(6, "bundle", price_fen=300),
        grant(7, "adjustment", price_fen=1),
        grant(8, "plan", plan="gold", plan_version=1, price_fen=990, at="2026-06-01T00:00:00Z"),
    ]
    assert [(line["kind"], line["fen"]) for line in bill(prices, grants=grants)["lines"]] == [
        ("plan_fee", 990),
        ("plan_fee", 123),
        ("plan_fee", 990),
        ("plan_fee", 990),
        ("discount", -200),
        ("bundle", 300),
        ("purchase", 500),
        ("trial", 0),
    ]


def test_late_usage_has_lines_of_its_own_behind_the_periods(prices: Prices) -> None:
    late = [
        (Usage("2026-04", 9, "m1", "east/m1@1"), used(1, 10, 0)),
        (Usage("2026-05", 9, "m1", "east/m1@1"), used(2, 20, 0)),
    ]
    own = [(Usage(JUNE, 9, "m2", "east/m2@1"), used(4, 40)), (Usage(JUNE, 8, "m2", "east/m2@1"), used(8, 80))]
    found = bill(prices, own=own, late=late)
    assert [(line["kind"], line["calls"], line["amount"]) for line in found["lines"]] == [
        ("usage", 12, 120),
        ("late_usage", 3, 30),
    ]
    assert (found["calls"], found["debited"]) == (15, 150)


def test_wholesale_is_a_share_of_retail_or_by_rates(prices: Prices) -> None:
    rows = {
        ("m1", "2026-06-02"): used(1, 10_000_000),
        ("m1", "2026-06-03"): used(1, 11_250_000),
        ("m2", "2026-06-03"): used(1, 9, tokens=(5_000, 7, 0, 625)),
    }
    found = statement_of("east", "west", JUNE, 9, rows, prices, instant("2026-07-01T00:00:00Z"))
    # m1: 21,250,000 x 60 % = 5.1 fen; 10 % of that is 0.51. m2: 5,000 x 500 + 625 x 2,000 = 3,750,000 = 1.5 fen.
    assert [(line["tariff"], line["gross_fen"], line["discount_fen"], line["net_fen"]) for line in found["lines"]] == [
        ("east/west/*@1", 5, 1, 4),
        ("east/west/m2@1", 2, 0, 2),
    ]
    assert (found["calls"], found["gross_fen"], found["discount_fen"], found["net_fen"]) == (3, 7, 1, 6)


def test_a_tariff_of_tomorrow_makes_a_line_of_its_own(prices: Prices) -> None:
    item = {"home": "east", "serving": "west", "model": "m1", "retail_percent": 100}
    published(prices, 5, "Tariff", item, effective_from="2026-06-02T16:00:00Z")
    rows = {("m1", "2026-06-02"): used(1, 2_500_000), ("m1", "2026-06-03"): used(1, 2_500_000)}
    found = statement_of("east", "west", JUNE, 9, rows, prices, instant("2026-07-01T00:00:00Z"))
    assert [(line["tariff"], line["gross_fen"]) for line in found["lines"]] == [
        ("east/west/*@1", 1),
        ("east/west/m1@1", 1),
    ]
    assert found["lines"][0]["discount_fen"] == 0  # 10 % of 0.6 fen


def test_no_tariff_no_charge(prices: Prices) -> None:
    found = statement_of("west", "east", JUNE, 9, {("m1", "2026-06-02"): used(1, 5)}, prices, instant(LONG_AGO))
    assert (found["lines"][0]["tariff"], found["net_fen"], found["calls"]) == ("", 0, 1)


def test_usage_is_kept_by_the_sections_between_cut_offs() -> None:
    metered = Metered(JUNE, {"east/a1": [10, 20]}, {})
    event = {
        "model": "m1",
        "rate_card": "r",
        "usage": {"input": 3},
        "amount": 5,
        "draws": [["credit", 2]],
        "overdrawn": 1,
    }
    for position, at in ((10, "2026-06-02T00:00:00Z"), (11, "2026-05-02T00:00:00Z"), (20, "2026-06-02T00:00:00Z"),
                         (21, "2026-06-02T00:00:00Z"), (12, "2026-06-30T16:00:00Z")):  # fmt: skip
        metered.heard(position, account(), "quota.TokensDebited:1", {**event, "at": at})
    rows = {(key.period, key.section): sums.charged for key, sums in metered.usage["east/a1"].items()}
    assert rows == {(JUNE, 10): 3, ("2026-05", 20): 3, (JUNE, 20): 3}


def test_the_calendar_is_shanghais() -> None:
    assert period_and_day("2026-06-30T15:59:59.999999Z") == ("2026-06", "2026-06-30")
    assert period_and_day("2026-06-30T16:00:00Z") == ("2026-07", "2026-07-01")
    assert period_and_day("2026-07-01T00:30:00+09:00") == ("2026-06", "2026-06-30")
    assert period_start("2026-06") == instant("2026-05-31T16:00:00Z")
    assert period_end("2026-12") == instant("2026-12-31T16:00:00Z")
