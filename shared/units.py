"""Points, millipoints, fen and tokens: the only place where they are converted.

A millipoint is the ledger's only unit, an integer. 1 point = 1,000 millipoints. At list price
1 yuan = 250,000 points, so 1 fen = 2,500 points = 2,500,000 millipoints. A rate is an integer
number of points per 1,000 tokens, so tokens x rate = millipoints, exactly: nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

MILLIPOINTS_PER_POINT = 1_000
POINTS_PER_YUAN = 250_000
FEN_PER_YUAN = 100
POINTS_PER_FEN = POINTS_PER_YUAN // FEN_PER_YUAN
MILLIPOINTS_PER_FEN = POINTS_PER_FEN * MILLIPOINTS_PER_POINT

# Below 2**53, so that every amount survives a JSON reader that has only doubles.
AMOUNT_MAX = 9_000_000_000_000_000
TOKENS_MAX = 1_000_000_000
TOKEN_CLASSES = ("input", "cached_input", "cache_write", "output")


def points(millipoints: int) -> Fraction:
    """Millipoints as exact points (for display: never store the result)."""
    return Fraction(millipoints, MILLIPOINTS_PER_POINT)


def millipoints(points: int) -> int:
    """Whole points as millipoints."""
    return points * MILLIPOINTS_PER_POINT


def price(tokens: int, rate: int) -> int:
    """Millipoints for `tokens` at `rate` points per 1,000 tokens: exact, no rounding."""
    return tokens * rate


def round_half_away(value: Fraction) -> int:
    """The nearest integer; a half goes away from zero. The one rounding of a bill line."""
    n, d = value.numerator, value.denominator
    whole = (2 * abs(n) + d) // (2 * d)
    return whole if n >= 0 else -whole


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """`total` shared in proportion to `weights`, summing to it exactly; ties go to the earlier one."""
    weight_sum = sum(weights)
    if weight_sum <= 0 or any(w < 0 for w in weights):
        raise ValueError("weights must be non-negative and not all zero")
    shares = [total * w // weight_sum for w in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % weight_sum), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def yuan(fen: int) -> str:
    """Fen as a yuan string with two decimals: `-12345` gives `-123.45`."""
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // FEN_PER_YUAN}.{abs(fen) % FEN_PER_YUAN:02d}"


def show_points(millipoints: int) -> str:
    """Millipoints as points for people: thousands separated, decimals only where there are any."""
    sign = "-" if millipoints < 0 else ""
    whole, rest = divmod(abs(millipoints), MILLIPOINTS_PER_POINT)
    return f"{sign}{whole:,}" + (f".{rest:03d}".rstrip("0") if rest else "")
