"""List prices into rates: exact, rounded once, and none of the source's traps.

What the source itself says is asked of it here by its own means, at explicit instants.
"""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction

import genai_prices.data_snapshot as source
import pytest
from genai_prices import Usage as SourceUsage
from genai_prices import calc_price
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from genai_prices.types import Tier as SourceTier
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.daytime import Window, covered, shanghai_minutes, standard_and_off_peak
from services.catalog.extraction import SOURCE_KEYS, Unpriced, extract, list_price
from services.catalog.prices import Wanted, provenance, rate, rate_card
from services.catalog.sample import AS_OF, FEN_PER_USD
from shared.catalogue.view import applicable_rates
from shared.contracts.base import Rates, Usage
from shared.units import POINTS_PER_FEN, points
from tests.folders import REFERENCE

KIMI = Wanted("kimi-k2.5", "moonshotai", "kimi-k2.5")
V4_PRO = Wanted("deepseek-v4-pro", "deepseek", "deepseek-v4-pro")
FLASH = Wanted("deepseek-flash", "deepseek", "deepseek-flash")
REASONER = Wanted("deepseek-reasoner", "deepseek", "deepseek-reasoner")
M3 = Wanted("minimax-m3", "minimax", "minimax-m3")
QWEN = Wanted("qwen-plus", "openrouter", "qwen/qwen-plus")

CUT = REFERENCE / "data" / "prices" / "model_prices_genai_prices_0.2.3.csv"


def model(*rows: ConditionalPrice) -> ModelInfo:
    return ModelInfo(id="x", match=ClauseEquals("x"), prices=list(rows))


def usd(input_mtok: str, **more: Decimal | TieredPrices) -> ModelPrice:
    return ModelPrice(**{"input_mtok": Decimal(input_mtok), "output_mtok": Decimal(9), **more})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- arithmetic -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("dollars", "fen", "factor", "expected"),
    [
        ("0.6", 712, "1", 1068),  # 0.6 USD = 427.2 fen = 1,068,000 points for a million tokens
        ("0.6", 712, "250/267", 1000),
        ("0.0028", 712, "1", 5),  # 4.984
        ("0.001", 200, "1", 1),  # a half goes away from zero: 0.5
        ("0.003", 200, "1", 2),  # 1.5
        ("0.0001", 712, "1", 1),  # 0.178, and not for nothing
        ("0", 712, "1", 0),  # what is free stays free
    ],
)
def test_dollars_become_points(dollars: str, fen: int, factor: str, expected: int) -> None:
    assert rate(Fraction(dollars), fen, Fraction(factor)) == expected


@given(
    st.fractions(min_value=0, max_value=100, max_denominator=10**6),
    st.integers(1, 2000),
    st.fractions(min_value=Fraction(1, 10), max_value=10, max_denominator=1000),
)
def test_a_rate_is_never_more_than_half_a_point_off_nor_zero(dollars: Fraction, fen: int, factor: Fraction) -> None:
    exact = dollars * fen * 2500 * factor / 1000
    found = rate(dollars, fen, factor)
    assert (found > 0) == (dollars > 0)
    assert abs(found - exact) <= Fraction(1, 2) or (found == 1 and exact < 1)


# --- against the source itself ------------------------------------------------------------------------
@pytest.mark.parametrize("wanted", [KIMI, V4_PRO, FLASH, REASONER, M3, QWEN], ids=lambda w: w.model)
@pytest.mark.parametrize("hour", [0, 2, 5, 8, 12, 17, 23])
@pytest.mark.parametrize("input_tokens", [1000, 512_000, 512_001])
def test_a_calls_price_is_the_sources_own(wanted: Wanted, hour: int, input_tokens: int) -> None:
    instant = AS_OF.replace(hour=hour)
    usage = Usage(input=input_tokens - 400, cached_input=400, output=700)
    theirs = calc_price(
        SourceUsage(input_tokens=input_tokens, cache_read_tokens=400, output_tokens=700),
        wanted.source_model,
        provider_id=wanted.provider,
        genai_request_timestamp=instant,
    ).total_price
    # A factor of 10,000 makes every rate whole, so that nothing is rounded.
    card = rate_card("o", wanted, extract([wanted], instant), 400, Fraction(10_000))
    ours = points(applicable_rates(card, usage, instant).price(usage))
    assert ours == Fraction(theirs) * 400 * POINTS_PER_FEN * 10_000


def tiered(cell: str) -> dict[int, Fraction]:
    """A price of the cut, such as `0.3 | >512000: 0.6`, by the input tokens above which it holds."""
    base, *tiers = cell.split(" | >")
    above = (tier.split(": ") for tier in tiers)
    return {0: Fraction(base)} | {int(tokens): Fraction(price) for tokens, price in above}


@pytest.mark.skipif(not CUT.exists(), reason=f"no reference data at {CUT}: set TOKENGRID_REFERENCE")
def test_prices_are_those_of_the_independent_cut() -> None:
    with CUT.open() as file:
        rows = [row for row in csv.DictReader(file) if row["input_mtok"]]
    assert len(rows) > 60
    assert sum(row["tiered"] == "True" for row in rows) >= 10
    found = extract([Wanted(f"m{n}", row["provider"], row["matched_id"]) for n, row in enumerate(rows)], AS_OF)
    assert not found.unpriced
    for n, row in enumerate(rows):
        # The cut was made at noon, UTC: off-peak where a model has such prices.
        listed = found.prices[f"m{n}"]
        noon = [w.value for w in listed.windows if 20 * 60 in covered(w.from_minute, w.to_minute)]
        here = {0: noon[0] if noon else listed.prices} | dict(listed.tiers)
        for token_class, column in SOURCE_KEYS.items():
            for above, price in tiered(row[column] or row["input_mtok"]).items():
                assert getattr(here[above], token_class) == price, (row, token_class, above)


# --- its traps ----------------------------------------------------------------------------------------
def test_the_instant_is_always_stated() -> None:
    with pytest.raises(ValueError, match="time zone"):
        extract([KIMI], datetime(2026, 11, 1))  # noqa: DTZ001


def test_a_dated_row_holds_from_its_day_on() -> None:
    before = extract([V4_PRO], at("2026-08-16T23:59:59")).prices[V4_PRO.model]
    after = extract([V4_PRO], at("2026-08-17T00:00:00")).prices[V4_PRO.model]
    assert (before.prices.input, before.row) == (Fraction("0.435"), "undated row")
    assert (after.prices.input, after.row) == (Fraction("0.66"), "row from 2026-08-17")


def test_an_undated_row_that_answers_for_any_day_says_so_in_the_rate_cards_source() -> None:
    early = rate_card("o", V4_PRO, extract([V4_PRO], at("2026-08-16T23:59:59")), 712)
    assert "deepseek/deepseek-v4-pro, undated row, as of 2026-08-16, 712 fen per USD" in early.source


def test_hours_do_not_shadow_the_rows_before_their_own() -> None:
    # The source would charge the peak price of August at 02:00 of any day in its past.
    early = at("2026-06-18T02:00:00")
    theirs = calc_price(
        SourceUsage(input_tokens=10**6), "deepseek-v4-pro", provider_id="deepseek", genai_request_timestamp=early
    )
    assert theirs.total_price == Decimal("1.32")
    ours = extract([V4_PRO], early).prices[V4_PRO.model]
    assert (ours.prices.input, ours.windows) == (Fraction("0.435"), ())


def test_a_date_before_the_first_row_has_no_price() -> None:
    late = model(ConditionalPrice(StartDateConstraint(date(2026, 9, 1)), prices=usd("3")))
    assert late.get_prices(at("2020-01-01T00:00:00")).input_mtok == 3  # the trap
    with pytest.raises(Unpriced, match="no price yet on 2026-08-31"):
        list_price(late, at("2026-08-31T23:00:00"))
    assert list_price(late, at("2026-09-01T00:00:00")).prices.input == 3


def test_a_name_that_merely_matches_is_another_model() -> None:
    ghost = Wanted("kimi-k2.5-next", "moonshotai", "kimi-k2.5-next")
    found = extract([ghost, Wanted("none", "moonshotai", "none"), Wanted("x", "nobody", "x"), KIMI], AS_OF)
    assert found.unpriced == {
        "kimi-k2.5-next": "moonshotai has no kimi-k2.5-next, only kimi-k2.5, which matches it",
        "none": "moonshotai has no none",
        "x": "nobody has no x",
    }
    assert provenance(found, 712).unpriced == ("kimi-k2.5-next", "none", "x")


def test_an_update_in_this_process_changes_nothing() -> None:
    before = extract([KIMI], AS_OF)
    source.set_custom_snapshot(source.DataSnapshot(providers=[], from_auto_update=True))
    try:
        assert extract([KIMI], AS_OF) == before
    finally:
        source.set_custom_snapshot(None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ModelPrice(output_mtok=Decimal(1)), "has no input price"),
        (ModelPrice(input_mtok=Decimal(1)), "has no output price"),
        (usd("1", requests_kcount=Decimal(5)), "charges by requests_kcount too"),
        (usd("1", output_reasoning_mtok=Decimal(5)), "charges by output_reasoning_mtok too"),
        (usd("1", output_citation_mtok=Decimal(5)), "charges by output_citation_mtok too"),
    ],
)
def test_what_rates_cannot_express_stays_unpriced(row: ModelPrice, reason: str) -> None:
    with pytest.raises(Unpriced, match=reason):
        list_price(model(ConditionalPrice(prices=row)), AS_OF)


# --- cache, tiers, hours ----------------------------------------------------------------------------------
def test_a_missing_cache_price_is_the_input_price_and_says_so() -> None:
    card = rate_card("o", KIMI, extract([KIMI], AS_OF), 712)
    assert card.rates == Rates(input=1068, cached_input=178, cache_write=1068, output=5340)
    assert "no list price for cache_write: the input price" in card.source


def test_tiers_come_with_every_class() -> None:
    tiered = TieredPrices(Decimal(2), [SourceTier(100, Decimal(4)), SourceTier(200, Decimal(6))])
    row = ConditionalPrice(prices=usd("1", output_mtok=tiered, cache_read_mtok=Decimal("0.5")))
    found = list_price(model(row), AS_OF)
    assert [(above, p.input, p.cached_input, p.output) for above, p in found.tiers] == [
        (100, Fraction(1), Fraction(1, 2), Fraction(4)),
        (200, Fraction(1), Fraction(1, 2), Fraction(6)),
    ]
    assert found.prices.output == 2


def test_peak_hours_become_the_standard_and_the_rest_is_off_peak() -> None:
    card = rate_card("o", FLASH, extract([FLASH], AS_OF), 1000, Fraction(2))
    # 01:00 to 04:00 and 06:00 to 10:00 in UTC are dearer: 9 to 12 and 14 to 18 o'clock in Shanghai.
    assert card.rates.input == 1500
    assert [(p.from_minute, p.to_minute, p.rates.input) for p in card.off_peak] == [(720, 840, 750), (1080, 540, 750)]


@pytest.mark.parametrize(
    ("utc", "minutes"),
    [(time(16, 0), 0), (time(16, 30), 30), (time(0, 30), 510), (time(15, 59, tzinfo=UTC), 1439)],
)
def test_times_of_day_become_shanghais(utc: time, minutes: int) -> None:
    assert shanghai_minutes(utc) == minutes


@pytest.mark.parametrize(
    ("windows", "standard", "off_peak"),
    [
        ([], 5, []),
        ([(0, 60, 3)], 5, [(0, 60, 3)]),  # cheaper: as it stands
        ([(60, 120, 9)], 9, [(120, 60, 5)]),  # dearer: the rest, over midnight
        ([(1380, 60, 9)], 9, [(60, 1380, 5)]),
        ([(0, 60, 9)], 9, [(60, 1440, 5)]),
        ([(0, 60, 9), (60, 1440, 9)], 9, []),  # all day
        ([(0, 60, 9), (120, 180, 8)], 5, [(0, 60, 9), (120, 180, 8)]),  # two different: as they stand
    ],
)
def test_off_peak_is_the_cheaper_part(
    windows: list[tuple[int, int, int]], standard: int, off_peak: list[tuple[int, int, int]]
) -> None:
    found, parts = standard_and_off_peak((5,), [Window(a, b, (v,)) for a, b, v in windows])
    assert (found, [(w.from_minute, w.to_minute, *w.value) for w in parts]) == ((standard,), off_peak)


def test_tiers_and_hours_at_once_stay_unpriced() -> None:
    tiered = TieredPrices(Decimal(1), [SourceTier(100, Decimal(2))])
    night = ConditionalPrice(TimeOfDateConstraint(time(16), time(0)), prices=usd("1"))
    with pytest.raises(Unpriced, match="tiers and time-of-day prices at once"):
        list_price(model(ConditionalPrice(prices=usd("1", output_mtok=tiered)), night), AS_OF)


# --- provenance -----------------------------------------------------------------------------------------
def test_the_hash_is_of_what_was_read_and_of_nothing_else() -> None:
    first = extract([KIMI, M3], AS_OF)
    assert extract([KIMI, M3], AS_OF).content_sha256 == first.content_sha256
    assert extract([M3, KIMI], AS_OF).content_sha256 == first.content_sha256
    assert extract([KIMI], AS_OF).content_sha256 != first.content_sha256
    assert extract([KIMI, M3], AS_OF - timedelta(days=1)).content_sha256 != first.content_sha256
    assert provenance(first, FEN_PER_USD).package_version == "0.2.3"
