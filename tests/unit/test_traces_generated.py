"""The generated trace: near the published statistics, reproducible, spread over a month."""

from __future__ import annotations

from statistics import mean, median

import pytest

from tokengrid.traces import Call, generate
from tokengrid.traces.generated import DAYS, HOUR_MS
from tokengrid.traces.mooncake import BLOCK_TOKENS

CALLS = 20_000


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return list(generate(1, CALLS))


@pytest.mark.parametrize(
    ("kind", "figure", "measure", "published", "percent"),
    [
        ("conversation", "input", median, 1020, 5),
        ("conversation", "input", mean, 1155, 5),
        ("conversation", "output", median, 129, 5),
        ("conversation", "output", mean, 211, 10),  # the longest answers are cut, as in the trace
        ("coding", "input", median, 1500, 5),
        ("coding", "input", mean, 2048, 10),
        ("coding", "output", median, 13, 10),
        ("coding", "output", mean, 28, 10),
    ],
)
def test_token_lengths_are_near_the_published_ones(calls, kind, figure, measure, published, percent) -> None:
    lengths = [
        call.output if figure == "output" else call.input + call.cached_input for call in calls if call.kind == kind
    ]
    assert abs(measure(lengths) - published) * 100 <= published * percent


def test_the_same_seed_gives_the_same_calls(calls) -> None:
    assert list(generate(1, CALLS)) == calls


def test_another_seed_gives_others(calls) -> None:
    assert list(generate(2, CALLS)) != calls


def test_calls_come_in_order_within_the_month(calls) -> None:
    offsets = [call.at_offset_ms for call in calls]
    assert offsets == sorted(offsets)
    assert offsets[0] >= 0
    assert offsets[-1] < DAYS * 24 * HOUR_MS


def test_the_evening_is_busier_than_the_night(calls) -> None:
    hours = [call.at_offset_ms // HOUR_MS % 24 for call in calls]
    assert sum(hour in (20, 21) for hour in hours) > 5 * sum(hour in (3, 4) for hour in hours)


def test_cached_input_is_whole_blocks_of_the_input(calls) -> None:
    cached = [call.cached_input for call in calls if call.cached_input]
    assert len(cached) > CALLS // 10
    assert all(tokens % BLOCK_TOKENS == 0 for tokens in cached)


def test_all_figures_are_whole_numbers(calls) -> None:
    assert {type(value) for call in calls for value in call[:4]} == {int}
