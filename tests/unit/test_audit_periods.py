"""The auditor's own arithmetic of plans' periods: figures worked out by hand from the rules."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest

from services.audit.replay.calendar import instant
from services.audit.replay.periods import bounds, days_left, given_back, months_after, price, rounded, share, terms

MONTHLY: dict[str, Any] = {"kind": "monthly"}
YEARLY: dict[str, Any] = {"kind": "monthly", "cycle": "anniversary"}
TRIAL: dict[str, Any] = {"kind": "trial", "trial_days": 14}


@pytest.mark.parametrize(
    ("plan", "anchor", "start", "end", "part", "whole"),
    [
        (MONTHLY, "2026-06-01", "2026-05-31T16:00:00Z", "2026-06-30T16:00:00Z", 30, 30),
        (MONTHLY, "2026-06-01", "2026-06-29T16:00:00Z", "2026-06-30T16:00:00Z", 1, 30),
        (MONTHLY, "2026-12-31", "2026-12-31T15:59:59Z", "2026-12-31T16:00:00Z", 1, 31),
        (YEARLY, "2026-06-10", "2026-06-10T01:00:00Z", "2026-07-09T16:00:00Z", 30, 30),
        (YEARLY, "2026-06-10", "2026-07-04T01:00:00Z", "2026-07-09T16:00:00Z", 6, 30),  # changed to inside a cycle
        (YEARLY, "2027-01-31", "2027-01-30T16:00:00Z", "2027-02-27T16:00:00Z", 28, 28),
        (YEARLY, "2027-01-31", "2027-02-27T16:00:00Z", "2027-03-30T16:00:00Z", 31, 31),  # the day is back
        (YEARLY, "2028-01-30", "2028-01-29T16:00:00Z", "2028-02-28T16:00:00Z", 30, 30),
        (TRIAL, "2026-06-10", "2026-06-10T15:00:00Z", "2026-06-23T16:00:00Z", 14, 14),
    ],
)
def test_bounds(plan: dict[str, Any], anchor: str, start: str, end: str, part: int, whole: int) -> None:
    assert bounds(plan, date.fromisoformat(anchor), instant(start)) == (instant(end), part, whole)


def test_a_day_that_a_month_does_not_have_is_its_last() -> None:
    assert [months_after(date(2027, 8, 31), n).isoformat() for n in (0, 1, 6, 7, 16)] == [
        "2027-08-31", "2027-09-30", "2028-02-29", "2028-03-31", "2028-12-31",
    ]  # fmt: skip


def test_phases_count_their_months() -> None:
    phases = [{"months": 1, "allowance": 5}, {"months": 2, "fee_fen": 7}]
    plan = {"fee_fen": 9, "allowance": 8, "phases": phases}
    assert [terms(plan, n) for n in range(5)] == [(1, 0, 5), (2, 7, 0), (2, 7, 0), (0, 9, 8), (0, 9, 8)]


@pytest.mark.parametrize(
    ("fee", "part", "whole", "percent", "fen"),
    [
        (990, 10, 31, 0, 319),  # 319.35
        (990, 10, 31, 50, 159),  # 319 less 159.68
        (1, 15, 30, 0, 1),  # a half, away from zero
        (5, 30, 30, 50, 2),  # 5 less 2.5
        (990, 30, 30, 100, 0),
    ],
)
def test_a_price_is_the_sum_of_two_rounded_lines(fee: int, part: int, whole: int, percent: int, fen: int) -> None:
    assert price(fee, part, whole, percent) == fen


def test_an_allowances_share_is_rounded_once() -> None:
    assert [rounded(share(61_000_001, days, 30)) for days in (30, 15, 11)] == [61_000_001, 30_500_001, 22_366_667]


@pytest.mark.parametrize(
    ("unused", "allowance", "fen"),
    [(40, 40, "1495"), (20, 40, "1495"), (14, 40, "2093/2"), (0, 40, "0"), (0, 0, "1495")],
)
def test_given_back_is_the_lesser_share(unused: int, allowance: int, fen: str) -> None:
    assert given_back(2990, 30, allowance, 15, unused) == Fraction(fen)


def test_the_day_of_a_cut_is_given_back() -> None:
    ends_at = instant("2026-06-30T16:00:00Z")
    assert days_left(instant("2026-06-20T15:59:59Z"), ends_at) == 11
    assert days_left(instant("2026-06-20T16:00:00Z"), ends_at) == 10
