"""Conversions and money arithmetic: exact, and rounded once."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import units
from shared.clock import day_of, period_bounds, period_of


def test_the_list_price() -> None:
    assert units.MILLIPOINTS_PER_FEN == 2_500_000
    assert units.millipoints(250_000) == 100 * units.MILLIPOINTS_PER_FEN
    assert units.price(1000, 1000) == units.millipoints(1000), "1,000 points per 1,000 tokens: a point a token"


@pytest.mark.parametrize(
    ("value", "rounded"),
    [("1/2", 1), ("-1/2", -1), ("3/2", 2), ("-3/2", -2), ("49/100", 0), ("-49/100", 0), ("7", 7), ("0", 0)],
)
def test_half_away_from_zero(value: str, rounded: int) -> None:
    assert units.round_half_away(Fraction(value)) == rounded


@given(st.fractions())
def test_rounding_is_the_nearest(value: Fraction) -> None:
    assert abs(value - units.round_half_away(value)) <= Fraction(1, 2)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any))
def test_shares_sum_to_the_total_and_are_fair(total: int, weights: list[int]) -> None:
    shares = units.largest_remainder(total, weights)
    assert sum(shares) == total
    assert all(abs(s - Fraction(total * w, sum(weights))) < 1 for s, w in zip(shares, weights, strict=True))


@pytest.mark.parametrize("weights", [[], [0], [-1, 2]])
def test_nothing_can_be_shared_by_no_weight(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        units.largest_remainder(5, weights)


@pytest.mark.parametrize(("fen", "shown"), [(0, "0.00"), (5, "0.05"), (990, "9.90"), (-12345, "-123.45")])
def test_yuan(fen: int, shown: str) -> None:
    assert units.yuan(fen) == shown


@pytest.mark.parametrize(("amount", "shown"), [(0, "0"), (1, "0.001"), (1_500, "1.5"), (-1_234_567_000, "-1,234,567")])
def test_points_for_people(amount: int, shown: str) -> None:
    assert units.show_points(amount) == shown


def test_a_month_is_shanghais() -> None:
    start, after = period_bounds("2026-12")
    assert (start, after) == (datetime(2026, 11, 30, 16, tzinfo=UTC), datetime(2026, 12, 31, 16, tzinfo=UTC))
    assert period_of(start) == "2026-12"
    assert period_of(after) == "2027-01"
    assert day_of(after) == "2027-01-01"
    for text in ("June", "2026-6", "2026-1\u0663", "2026-13", ""):
        with pytest.raises(ValueError, match=r"is not YYYY-MM|does not match|unconverted"):
            period_bounds(text)
