"""Whose call each call of a trace is, and what will befall it. Pure: decided by the seed and the call's index alone."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, islice
from typing import NamedTuple

from tokengrid.demo.subscribers import Subscriber
from tokengrid.traces import Call

# Of a thousand calls, how many …
FAILS = 30  # … meet a deployment that fails
FAILS_AGAIN = 200  # … of those, also fail where they are sent next
THROTTLED = 10  # … are sent on because the deployment has too much to do
CANCELLED = 10  # … are given up by their user before the first token
CRASHES = 8  # … are never settled, for their caller died
LATE = 4  # … are settled only after their hold had ended
REVERSED = 3  # … are given back, whole or in part, as goodwill
PARTIAL = 300  # … take what the account can still pay
STREAMS = 400  # … charge as they go, of those with output enough

STREAM_TOKENS_MIN = 120
PARTS_MAX = 4
TTFT_BASE_MS, TTFT_PER_TOKEN_US, OUTPUT_TOKEN_MS = 180, 90, 18
CODING_PREFERENCE = 4  # how much likelier a coding plan makes the call of a coding trace


class Planned(NamedTuple):
    """A call as it will be attempted: by whom, when, and with which mishaps."""

    name: str  # everywhere: the reservation's, the routing's and the debit's call id; ordered by time
    number: int
    subscriber: Subscriber
    at: datetime
    model: str
    input: int
    cached_input: int
    output: int
    ttft_ms: int
    duration_ms: int
    failures: int = 0
    throttled: bool = False
    cancelled: bool = False
    crashes: bool = False
    late: bool = False
    accept_partial: bool = False
    parts: int = 1
    reversed_percent: int = 0

    @property
    def ends_at(self) -> datetime:
        return self.at + timedelta(milliseconds=self.duration_ms)


class Traffic:
    """Plans the calls of a trace, one by one, for a month. `beyond`: calls left out because they came after it."""

    def __init__(
        self, people: Sequence[Subscriber], seed: int, start: datetime, end: datetime, prefix: str = ""
    ) -> None:
        """`prefix`: of the calls' names."""
        self._prefix = prefix
        self._people, self._seed, self._start, self._end = people, seed, start, end
        self._weights = {
            kind: list(accumulate(p.activity * (CODING_PREFERENCE if kind == p.kind else 1) for p in people))
            for kind in ("", "conversation", "coding")
        }
        self.beyond = 0

    def plan(self, calls: Iterable[Call], count: int | None = None) -> Iterator[Planned]:
        """At most `count` calls, in the trace's order."""
        for index, call in enumerate(islice(calls, count)):
            at = self._start + timedelta(milliseconds=call.at_offset_ms)
            if at >= self._end:
                self.beyond += 1
                continue
            yield self._planned(index, at, call)

    def _planned(self, index: int, at: datetime, call: Call) -> Planned:
        rng = random.Random(f"tokengrid call {self._seed} {index}")
        (subscriber,) = rng.choices(self._people, cum_weights=self._weights[call.kind])

        def befalls(per_thousand: int) -> bool:
            return rng.randrange(1000) < per_thousand

        ttft_ms = TTFT_BASE_MS + (call.input * TTFT_PER_TOKEN_US) // 1000 + rng.randrange(120)
        return Planned(
            name=f"{self._prefix}call-{index:09d}",
            number=index,
            subscriber=subscriber,
            at=at,
            model=rng.choice(subscriber.models),
            input=call.input,
            cached_input=call.cached_input,
            output=call.output,
            ttft_ms=ttft_ms,
            duration_ms=ttft_ms + call.output * OUTPUT_TOKEN_MS,
            failures=1 + befalls(FAILS_AGAIN) if befalls(FAILS) else 0,
            throttled=befalls(THROTTLED),
            cancelled=befalls(CANCELLED),
            crashes=befalls(CRASHES),
            late=befalls(LATE),
            accept_partial=befalls(PARTIAL),
            parts=rng.randint(2, PARTS_MAX) if befalls(STREAMS) and call.output >= STREAM_TOKENS_MIN else 1,
            reversed_percent=rng.choice((25, 50, 100)) if befalls(REVERSED) else 0,
        )
