"""List prices in USD from the `genai-prices` package, read offline.

It reads what is installed and never updates it. It knows the package's traps: a default timestamp of
now, a first row that also answers for dates long before it, names that match something else, and
time-of-day rows that shadow the dated rows they do not belong to. To import the package takes a third of a second:
whoever needs a price imports this module then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from importlib.metadata import version

from genai_prices.data import providers as _providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from services.catalog.domain.daytime import Window, shanghai_minutes
from services.catalog.prices import PACKAGE, Extraction, ListPrice, Prices, Wanted
from shared.contracts.base import TOKEN_CLASSES

SOURCE_KEYS = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
}
# Charges that rates by token class cannot express: such a model is left unpriced rather than too cheap.
INEXPRESSIBLE = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")


class Unpriced(Exception):
    """Why a model has no price. Never leaves `extract`, which collects the reasons."""


def extract(wanted: Sequence[Wanted], as_of: datetime) -> Extraction:
    """List prices at `as_of`, which must have a zone. Models that cannot be priced are named, each with the reason."""
    if as_of.tzinfo is None:
        raise ValueError("as_of needs a time zone")
    # A snapshot of our own: one that an update had installed in the process would not be the package's data.
    snapshot = DataSnapshot(providers=_providers, from_auto_update=False)
    prices: dict[str, ListPrice] = {}
    unpriced: dict[str, str] = {}
    for each in wanted:
        try:
            prices[each.model] = list_price(_find(snapshot, each), as_of)
        except Unpriced as reason:
            unpriced[each.model] = str(reason)
    content = _canonical(wanted, as_of, prices, unpriced)
    return Extraction(as_of, prices, unpriced, version(PACKAGE), hashlib.sha256(content).hexdigest())


def _canonical(
    wanted: Sequence[Wanted], as_of: datetime, prices: Mapping[str, ListPrice], unpriced: Mapping[str, str]
) -> bytes:
    """What was read, as canonical JSON: equal for equal prices, wherever and whenever it is read."""

    def shown(p: Prices) -> dict[str, str]:
        return {token_class: str(value) for token_class, value in p._asdict().items()}

    models = {
        each.model: {"provider": each.provider, "source_model": each.source_model}
        | (
            {
                "prices": shown(found.prices),
                "tiers": [[above, shown(p)] for above, p in found.tiers],
                "windows": [[w.from_minute, w.to_minute, shown(w.value)] for w in found.windows],
                "row": found.row,
            }
            if (found := prices.get(each.model)) is not None
            else {"unpriced": unpriced[each.model]}
        )
        for each in wanted
    }
    document = {"as_of": as_of.isoformat(), "models": models}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# --- reading the package ---------------------------------------------------------------------------
def _find(snapshot: DataSnapshot, wanted: Wanted) -> ModelInfo:
    try:
        _, found = snapshot.find_provider_model(wanted.source_model, None, wanted.provider, None)
    except LookupError:
        raise Unpriced(f"{wanted.provider} has no {wanted.source_model}") from None
    # The package matches by prefix and pattern: a new model would silently get an older one's price.
    if found.id.lower() != wanted.source_model.lower():
        raise Unpriced(f"{wanted.provider} has no {wanted.source_model}, only {found.id}, which matches it")
    return found


def list_price(model: ModelInfo, as_of: datetime) -> ListPrice:
    """A model's list price at an instant. Raises Unpriced."""
    rows = [ConditionalPrice(prices=model.prices)] if isinstance(model.prices, ModelPrice) else model.prices
    index = _dated_row(rows, as_of)
    prices, tiers, assumed = _by_class(rows[index].prices)
    windows: list[Window[Prices]] = []
    for row in rows[index + 1 :]:
        # Time-of-day rows belong to the dated row before them. The package lets them shadow every row
        # before, so that they would hold years before they were introduced.
        if not isinstance(row.constraint, TimeOfDateConstraint):
            break
        inside, inside_tiers, _ = _by_class(row.prices)
        if tiers or inside_tiers:
            raise Unpriced("has tiers and time-of-day prices at once")
        start, end = (shanghai_minutes(t) for t in (row.constraint.start_time, row.constraint.end_time))
        # The last active row holds: a later one takes its part away from the earlier ones.
        if any(w.overlaps(start, end) for w in windows):
            raise Unpriced("has overlapping time-of-day prices")
        windows.append(Window(start, end, inside))
    return ListPrice(prices, tiers, tuple(windows), _row_name(rows[index]), assumed)


def _dated_row(rows: Sequence[ConditionalPrice], as_of: datetime) -> int:
    """The last row that has begun; time-of-day rows aside. The package would fall back to the first one."""
    for index in reversed(range(len(rows))):
        constraint = rows[index].constraint
        if constraint is None or (isinstance(constraint, StartDateConstraint) and constraint.active(as_of)):
            return index
    raise Unpriced(f"has no price yet on {as_of.date()}")


def _row_name(row: ConditionalPrice) -> str:
    if isinstance(row.constraint, StartDateConstraint):
        return f"row from {row.constraint.start_date}"
    return "undated row"


def _by_class(row: ModelPrice) -> tuple[Prices, tuple[tuple[int, Prices], ...], tuple[str, ...]]:
    """Prices, tiers, and the classes whose price is assumed to be that of input."""
    stored: dict[str, object] = vars(row)
    for key in INEXPRESSIBLE:
        if stored.get(key) is not None:
            raise Unpriced(f"charges by {key} too")
    for needed in ("input", "output"):
        if stored.get(SOURCE_KEYS[needed]) is None:
            raise Unpriced(f"has no {needed} price")
    found = {name: value for name in TOKEN_CLASSES if (value := stored.get(SOURCE_KEYS[name])) is not None}
    assumed = tuple(name for name in TOKEN_CLASSES if name not in found)
    found |= dict.fromkeys(assumed, found["input"])
    starts = sorted({tier.start for value in found.values() if isinstance(value, TieredPrices) for tier in value.tiers})

    def above(tokens: int) -> Prices:
        return Prices(**{name: _at(value, tokens) for name, value in found.items()})

    # Below the lowest threshold no tier holds; a threshold itself is still below, as the package reads it.
    return above(-1), tuple((start, above(start)) for start in starts), assumed


def _at(value: object, threshold: int) -> Fraction:
    """The price right above `threshold` input tokens."""
    if isinstance(value, TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= threshold]
        return Fraction(reached[-1] if reached else value.base)
    return Fraction(str(value))
