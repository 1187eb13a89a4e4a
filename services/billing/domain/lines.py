"""One line of a bill from its exact amount. It must not know what the amount is for."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from shared.contracts.billing import BillLine, LineKind
from shared.units import round_half_away

TEXT_MAX = 500  # a line's text, as the published language bounds it


def line_of(kind: LineKind, text: str, exact: Fraction | int, **about: Any) -> BillLine:
    """A line over `exact` fen: rounded once, half away from zero, and what rounding took is its residual. `about`: the
    line's other fields."""
    if isinstance(exact, int):
        return BillLine(kind=kind, text=text[:TEXT_MAX], fen=exact, **about)
    fen, of = round_half_away(exact), exact.denominator
    residual = f"{exact.numerator - fen * of}/{of}"  # in lowest terms, as the exact amount is
    return BillLine(kind=kind, text=text[:TEXT_MAX], fen=fen, residual=residual, **about)
