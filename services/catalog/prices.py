"""Rates from list prices in USD (`extraction` reads them): turned into points once and exactly.

It knows nothing of operators' terms: a calibration factor comes as an argument.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from services.catalog.domain.daytime import Window, standard_and_off_peak
from shared.contracts import catalog as c
from shared.contracts.base import Rates
from shared.units import POINTS_PER_FEN, round_half_away

PACKAGE = "genai-prices"
TOKENS_PRICED = 1_000_000  # the package's prices are for a million tokens,
TOKENS_RATED = 1_000  # ours for a thousand


class Wanted(NamedTuple):
    """A model to be priced: its id in our catalogue, and provider and id in the package."""

    model: str
    provider: str
    source_model: str


class Prices(NamedTuple):
    """USD for 1,000,000 tokens, by class. A missing cache price is the input price: nothing is given away."""

    input: Fraction
    cached_input: Fraction
    cache_write: Fraction
    output: Fraction


class ListPrice(NamedTuple):
    """A model's list price at one instant. `tiers`: above so many input tokens; `windows`: parts of the day."""

    prices: Prices
    tiers: tuple[tuple[int, Prices], ...]
    windows: tuple[Window[Prices], ...]
    row: str
    assumed: tuple[str, ...]


class Extraction(NamedTuple):
    """What was read: list prices by our model ids, and why each of the others has none."""

    as_of: datetime
    prices: dict[str, ListPrice]
    unpriced: dict[str, str]
    package_version: str
    content_sha256: str


def rate(usd: Fraction, fen_per_usd: int, calibration: Fraction = Fraction(1)) -> int:
    """Points per 1,000 tokens for `usd` per 1,000,000 tokens: exact, rounded half away from zero once, and at
    least 1 for what is not free."""
    points = usd * fen_per_usd * POINTS_PER_FEN * calibration * TOKENS_RATED / TOKENS_PRICED
    return max(1, round_half_away(points)) if usd > 0 else 0


def rates(prices: Prices, fen_per_usd: int, calibration: Fraction = Fraction(1)) -> Rates:
    """Rates for prices; see `rate`."""
    return Rates(**{name: rate(usd, fen_per_usd, calibration) for name, usd in prices._asdict().items()})


def rate_card(
    operator: str,
    wanted: Wanted,
    extraction: Extraction,
    fen_per_usd: int,
    calibration: Fraction = Fraction(1),
    note: str = "",
) -> c.RateCard:
    """The rate card of a model with a list price; `source` says how it came about. Raises KeyError without one."""
    found = extraction.prices[wanted.model]
    standard, off_peak = standard_and_off_peak(found.prices, found.windows)
    said = [
        f"{PACKAGE} {extraction.package_version}, {wanted.provider}/{wanted.source_model}, {found.row}, "
        f"as of {extraction.as_of.date()}, {fen_per_usd} fen per USD",
        f"factor {calibration}" + (f" ({note})" if note else ""),
    ]
    if found.assumed:
        said.append(f"no list price for {' and '.join(found.assumed)}: the input price")
    return c.RateCard(
        operator=operator,
        model=wanted.model,
        rates=rates(standard, fen_per_usd, calibration),
        tiers=tuple(
            c.Tier(above_input_tokens=above, rates=rates(prices, fen_per_usd, calibration))
            for above, prices in found.tiers
        ),
        off_peak=tuple(
            c.OffPeak(from_minute=w.from_minute, to_minute=w.to_minute, rates=rates(w.value, fen_per_usd, calibration))
            for w in off_peak
        ),
        source="; ".join(said),
    )


def provenance(extraction: Extraction, fen_per_usd: int) -> c.Import:
    """What is recorded of an import, next to the rates made from it."""
    return c.Import(
        package=PACKAGE,
        package_version=extraction.package_version,
        content_sha256=extraction.content_sha256,
        fen_per_usd=fen_per_usd,
        priced=len(extraction.prices),
        unpriced=tuple(sorted(extraction.unpriced)),
    )
