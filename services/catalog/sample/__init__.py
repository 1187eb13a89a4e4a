"""The sample catalogue: real models, list prices, hubs and public offers, ready to publish.

Whatever is assumed and not published by anyone says so in `source` or in a comment of its file. The same
instant gives the same publication on every machine: nothing here reads a clock or the net.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any

import msgspec
import yaml

from services.catalog.files import Imported, load_catalogue
from services.catalog.prices import Extraction, Wanted, provenance, rate_card, rates
from shared.clock import SHANGHAI
from shared.contracts import catalog as c

FOLDER = Path(__file__).parent
AS_OF = datetime(2026, 11, 1, 12, tzinfo=UTC)  # the day of the list prices
FEN_PER_USD = 712

# Rates are list prices times one factor per operator, so that models keep their proportions. At 712 fen a dollar the
# list price of Kimi-K2.5, 0.6 USD for a million input tokens, is 1,068 points for 1,000 tokens.
REFERENCE = Fraction(1000, 1068)
CALIBRATION: dict[str, tuple[Fraction, str]] = {
    "shanghai-telecom": (REFERENCE, "Kimi-K2.5 input = 1 point a token, as offered"),
    "shanghai-mobile": (REFERENCE, "Kimi-K2.5 input = 1 point a token, 400,000 points a yuan"),
    "shanghai-unicom": (Fraction(1), "no rate published: list price as it is"),
}

# Wholesale by token where a model is dear enough to be settled by itself: this share of the reference rates.
OWN_TARIFF_MODELS = ("kimi-k3", "deepseek-v4-pro")
OWN_TARIFF_SHARE = {
    "shanghai-telecom": Fraction(7, 10),
    "shanghai-mobile": Fraction(1, 2),
    "shanghai-unicom": Fraction(7, 10),
}

# Round trip: light in fibre makes 200 km in a millisecond, a cable is half as long again as the great
# circle, there and back; 2 ms for the equipment in between.
EARTH_RADIUS_KM = 6371
FIBRE_KM_PER_MS = 200
DETOUR = 1.5
EQUIPMENT_MS = 2

# Capacity of a deployment: (list price in USD per million input tokens below which, tokens a minute, calls at once).
CAPACITY = ((Fraction("0.3"), 12_000_000, 600), (Fraction(10**6), 4_000_000, 200))


def sample_publication(effective_from: datetime) -> dict[str, Any]:
    """The arguments of `catalog.publish` for the whole sample, as plain JSON values.

    It takes effect at the midnight in Shanghai at or before `effective_from`: tariffs hold from midnight on.
    Raises ValueError without a time zone.
    """
    if effective_from.tzinfo is None:
        raise ValueError("effective_from needs a time zone")
    local = effective_from.astimezone(SHANGHAI)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
    catalogue, imported = _sample()
    content = msgspec.json.encode([catalogue, imported])
    return {
        "request_id": f"sample-{local:%Y-%m-%d}-{hashlib.sha256(content).hexdigest()[:12]}",
        "effective_from": midnight.isoformat(),
        "catalogue": msgspec.to_builtins(catalogue),
        "imported": msgspec.to_builtins(imported),
    }


def sample_catalogue() -> c.Catalogue:
    """The whole sample."""
    return _sample()[0]


def import_prices(as_of: datetime) -> tuple[c.Catalogue, Imported]:
    """Rate cards of the sample's models by the list prices at an instant, each operator's by its factor, and where they
    came from. Models without a price are named there. Raises ValueError without a time zone."""
    extraction = _extracted(as_of)
    found = provenance(extraction, FEN_PER_USD)
    imported = Imported(
        package=found.package,
        package_version=found.package_version,
        content_sha256=found.content_sha256,
        as_of=as_of,
        fen_per_usd=FEN_PER_USD,
        priced=found.priced,
        unpriced=dict(sorted(extraction.unpriced.items())),
    )
    return c.Catalogue(rate_cards=_rate_cards(extraction)), imported


@cache
def _sample() -> tuple[c.Catalogue, c.Import]:
    network = load_catalogue(FOLDER / "network.yaml")
    offers = load_catalogue(FOLDER / "offers.yaml")
    extraction = _extracted(AS_OF)
    models = tuple(_model(each) for each in _read("models.yaml"))
    catalogue = c.Catalogue(
        operators=network.operators,
        regions=_regions(),
        models=models,
        rate_cards=_rate_cards(extraction),
        plans=offers.plans,
        data_centres=network.data_centres,
        deployments=_deployments(models, network.data_centres, extraction),
        tariffs=network.tariffs + _own_tariffs(network.operators, extraction),
        policies=network.policies,
    )
    return catalogue, provenance(extraction, FEN_PER_USD)


@cache
def _wanted() -> tuple[Wanted, ...]:
    listed: list[dict[str, Any]] = _read("models.yaml")
    return tuple(Wanted(each["model"], *each["source"].split("/", 1)) for each in listed)


def _extracted(as_of: datetime) -> Extraction:
    from services.catalog.extraction import extract  # here, since most commands need no price and would wait for it

    return extract(_wanted(), as_of)


def _rate_cards(extraction: Extraction) -> tuple[c.RateCard, ...]:
    return tuple(
        rate_card(operator, each, extraction, FEN_PER_USD, factor, note)
        for operator, (factor, note) in CALIBRATION.items()
        for each in _wanted()
        if each.model in extraction.prices
    )


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


def _model(listed: dict[str, Any]) -> c.Model:
    fields = {name: value for name, value in listed.items() if name != "source"}
    return msgspec.convert({**fields, "provider": listed["source"].split("/", 1)[0]}, c.Model)


# --- distances ---------------------------------------------------------------------------------------
def _regions() -> tuple[c.Region, ...]:
    places: list[dict[str, Any]] = _read("places.yaml")
    return tuple(
        c.Region(
            region=here["region"],
            name=here["name"],
            latency_ms={there["region"]: _round_trip_ms(here, there) for there in places},
        )
        for here in places
    )


def _round_trip_ms(here: dict[str, Any], there: dict[str, Any]) -> int:
    return round(2 * _great_circle_km(here, there) * DETOUR / FIBRE_KM_PER_MS) + EQUIPMENT_MS


def _great_circle_km(here: dict[str, Any], there: dict[str, Any]) -> float:
    north, east, north_there, east_there = (
        radians(degrees) for degrees in (here["north"], here["east"], there["north"], there["east"])
    )
    half = sin((north_there - north) / 2) ** 2 + cos(north) * cos(north_there) * sin((east_there - east) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(half))


# --- where models run, and what operators charge each other -------------------------------------------
def _deployments(
    models: tuple[c.Model, ...], centres: tuple[c.DataCentre, ...], extraction: Extraction
) -> tuple[c.Deployment, ...]:
    """Each model at five to two data centres, those at the head of the list at more; all data centres in turn. The
    stride takes neighbours in the list, which one operator runs, apart."""
    found: list[c.Deployment] = []
    for n, model in enumerate(models):
        price = extraction.prices[model.model].prices.input
        _, tokens_per_minute, concurrent_calls = next(each for each in CAPACITY if price < each[0])
        for m in range(5 - n // len(centres) % 4):
            centre = centres[(n + 3 * m) % len(centres)]
            found.append(
                c.Deployment(
                    deployment=f"{model.model}-{centre.data_centre}",
                    model=model.model,
                    data_centre=centre.data_centre,
                    operator=centre.operator,
                    tokens_per_minute=tokens_per_minute,
                    concurrent_calls=concurrent_calls,
                )
            )
    return tuple(found)


def _own_tariffs(operators: tuple[c.Operator, ...], extraction: Extraction) -> tuple[c.Tariff, ...]:
    return tuple(
        c.Tariff(
            home=home.operator,
            serving=serving.operator,
            model=model,
            rates=rates(extraction.prices[model].prices, FEN_PER_USD, REFERENCE * OWN_TARIFF_SHARE[home.operator]),
        )
        for home in operators
        for serving in operators
        if home != serving
        for model in OWN_TARIFF_MODELS
    )
