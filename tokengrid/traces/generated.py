"""A trace made from published statistics, for when no file is given: the same seed, the same calls.

Token lengths are log-normal, fitted to mean and median of the Azure 2023 production traces (P. Patel et
al., "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024; the data are at
https://github.com/Azure/AzurePublicDataset, CC BY 4.0): a log-normal's median is e^mu and its
mean e^(mu + sigma²/2), so both are met. Arrivals follow the hours of a carrier's day and week over a
month. It must know nothing of services or prices.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from tokengrid.traces.call import Call
from tokengrid.traces.mooncake import BLOCK_TOKENS

HOUR_MS = 3_600_000
DAYS = 30
NAME = "generated"


class Lengths(NamedTuple):
    """A heavy-tailed distribution of token counts, and the largest count in the trace."""

    median: int
    mean: int
    most: int

    def draw(self, rng: random.Random) -> int:
        sigma = math.sqrt(2 * math.log(self.mean / self.median))
        return min(max(1, round(rng.lognormvariate(math.log(self.median), sigma))), self.most)


class Kind(NamedTuple):
    name: str
    share_percent: int
    input: Lengths
    output: Lengths
    cached_percent: int  # calls whose prompt begins with an earlier one's


# The traces have 19,366 and 8,819 calls. They do not tell what was cached; that prompts repeat a prefix is
# taken from the Mooncake trace (R. Qin et al., FAST 2025), at half of its share, as no conversation is followed here.
KINDS = (
    Kind("conversation", 69, Lengths(1020, 1155, 14_050), Lengths(129, 211, 1_000), 50),
    Kind("coding", 31, Lengths(1500, 2048, 7_437), Lengths(13, 28, 1_899), 30),
)

# Calls by hour of the day in Shanghai, relative: quiet before dawn, busy in the morning, afternoon and evening.
HOURS = (22, 14, 9, 6, 5, 6, 12, 26, 52, 78, 90, 86, 66, 74, 88, 92, 90, 80, 66, 70, 76, 72, 56, 36)
WEEKDAYS = (10, 10, 10, 10, 10, 6, 6)
FIRST_WEEKDAY = 0  # 2026-06-01 is a Monday


def generate(seed: int, calls: int) -> Iterator[Call]:
    """`calls` calls over a month, in the order of their arrival; offsets count from the month's first instant."""
    rng = random.Random(f"tokengrid trace {seed}")
    for at_offset_ms in _arrivals(rng, calls):
        kind = KINDS[0] if rng.randrange(100) < KINDS[0].share_percent else KINDS[1]
        given, output = kind.input.draw(rng), kind.output.draw(rng)
        cached = 0
        if rng.randrange(100) < kind.cached_percent:
            cached = rng.randrange(given // BLOCK_TOKENS + 1) * BLOCK_TOKENS
        yield Call(at_offset_ms, given - cached, cached, output, kind.name)


def _arrivals(rng: random.Random, calls: int) -> list[int]:
    """Independent arrivals with the month's intensity. All integers: the same on every machine."""
    weights = [HOURS[hour] * WEEKDAYS[(FIRST_WEEKDAY + day) % 7] for day in range(DAYS) for hour in range(24)]
    ends = list(accumulate(weights))
    arrivals = []
    for _ in range(calls):
        drawn = rng.randrange(ends[-1] * HOUR_MS)
        hour = bisect_right(ends, drawn // HOUR_MS)
        start = (ends[hour] - weights[hour]) * HOUR_MS
        arrivals.append(hour * HOUR_MS + (drawn - start) // weights[hour])
    return sorted(arrivals)
