"""One deployment's health: a circuit that opens on failures, and a moving percentile of the time to first token.

Fed by what callers report; time comes in as integer milliseconds. It knows nothing of the catalogue, of
capacity or of storage. Memory is bounded by the constants below, however many calls are reported.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Literal, NamedTuple

from shared.contracts.routing import Outcome

State = Literal["closed", "open", "half-open"]


class Rules(NamedTuple):
    """When a circuit opens and for how long."""

    failures_max: int = 5  # in a row: a dead deployment is out after five calls, whatever came before
    samples_min: int = 20  # below this an error share says little
    error_share_percent: int = 50
    window_ms: int = 60_000
    bucket_ms: int = 5_000  # the window moves in such steps, so its memory is twelve counters
    cooldown_ms: int = 5_000
    cooldown_max_ms: int = 300_000
    relapse_ms: int = 600_000  # opening again so soon after a recovery goes on with a longer cool-down
    probe_ms: int = 30_000  # a probe that is not reported by then is given up, and another one may go
    throttled_ms: int = 5_000  # for so long after a 429 a deployment counts as fully loaded


RULES = Rules()
TTFT_SAMPLES_MAX = 64
TTFT_SAMPLES_MIN = 5
TTFT_AGE_MAX_MS = 300_000  # a deployment that was slow once is not avoided for ever: what is old is forgotten
TTFT_MAX_MS = 600_000
TTFT_PERCENTILE = 90


class Ttft:
    """The latest times to first token, and their percentile (nearest rank)."""

    __slots__ = ("_latest", "_ordered")

    def __init__(self) -> None:
        self._latest: deque[tuple[int, int]] = deque()
        self._ordered: list[int] = []

    def add(self, ttft_ms: int, now_ms: int) -> None:
        ttft_ms = min(ttft_ms, TTFT_MAX_MS)
        if len(self._latest) == TTFT_SAMPLES_MAX:
            self._drop_oldest()
        self._latest.append((now_ms, ttft_ms))
        insort(self._ordered, ttft_ms)

    def percentile(self, now_ms: int, percent: int = TTFT_PERCENTILE) -> int | None:
        """Milliseconds; None with too few samples that are recent enough."""
        while self._latest and self._latest[0][0] <= now_ms - TTFT_AGE_MAX_MS:
            self._drop_oldest()
        count = len(self._ordered)
        if count < TTFT_SAMPLES_MIN:
            return None
        return self._ordered[(percent * count + 99) // 100 - 1]

    def _drop_oldest(self) -> None:
        _, ttft_ms = self._latest.popleft()
        del self._ordered[bisect_left(self._ordered, ttft_ms)]


class Health:
    """A deployment's circuit and time to first token.

    closed → open: `failures_max` errors in a row, or an error share of the moving window. open → half-open:
    after the cool-down. half-open: one call at a time goes through as a probe; its success closes the circuit,
    its error opens it again with twice the cool-down. What other calls report meanwhile began before, and
    says nothing about now. Throttled (429) and cancelled calls are neither success nor failure.
    """

    __slots__ = (
        "_buckets",
        "_closed_ms",
        "_level",
        "_open_until_ms",
        "_probe",
        "_probe_until_ms",
        "_rules",
        "_throttled_until_ms",
        "consecutive_failures",
        "ttft",
    )

    def __init__(self, rules: Rules = RULES) -> None:
        self.ttft = Ttft()
        self.consecutive_failures = 0
        self._rules = rules
        self._buckets: deque[list[int]] = deque()  # [number, calls, errors]
        self._open_until_ms: int | None = None  # None: closed
        self._closed_ms: int | None = None  # when it last recovered
        self._level = 0  # how often the cool-down has been doubled
        self._probe: str | None = None
        self._probe_until_ms = 0
        self._throttled_until_ms = 0

    # -- what is asked ----------------------------------------------------------------------------
    def state(self, now_ms: int) -> State:
        if self._open_until_ms is None:
            return "closed"
        return "open" if now_ms < self._open_until_ms else "half-open"

    def admits(self, now_ms: int) -> bool:
        """Whether a call may go there now: closed, or half-open with no probe under way."""
        if self._open_until_ms is None:
            return True
        return now_ms >= self._open_until_ms and (self._probe is None or now_ms >= self._probe_until_ms)

    def throttled(self, now_ms: int) -> bool:
        return now_ms < self._throttled_until_ms

    def open_until_ms(self) -> int | None:
        """The end of the cool-down; None while closed."""
        return self._open_until_ms

    def error_share_percent(self, now_ms: int) -> int:
        """Of the calls that succeeded or failed within the window, rounded down; 0 when there were none."""
        calls, errors = self._window(now_ms)
        return errors * 100 // calls if calls else 0

    # -- what happened ----------------------------------------------------------------------------
    def routed(self, call: str, now_ms: int, lease_until_ms: int) -> None:
        """A call was sent there; through a half-open circuit it goes as the probe."""
        if self._open_until_ms is not None and self.admits(now_ms):
            self._probe = call
            self._probe_until_ms = min(lease_until_ms, now_ms + self._rules.probe_ms)

    def withdrawn(self, call: str) -> None:
        """The call was not sent there after all; were it the probe, another may go."""
        if self._probe == call:
            self._probe = None

    def observe(self, call: str, outcome: Outcome, now_ms: int, ttft_ms: int | None = None) -> None:
        """How a call went."""
        if outcome == "throttled":
            self._throttled_until_ms = max(self._throttled_until_ms, now_ms + self._rules.throttled_ms)
        if outcome == "ok" and ttft_ms is not None:
            self.ttft.add(ttft_ms, now_ms)
        if self._open_until_ms is not None:
            if call == self._probe:
                self._probe = None
                self._probed(outcome, now_ms)
        elif outcome == "ok":
            self.consecutive_failures = 0
            self._count(now_ms, 0)
        elif outcome == "error":
            self.consecutive_failures += 1
            self._count(now_ms, 1)
            if self._failing(now_ms):
                relapsed = self._closed_ms is not None and now_ms - self._closed_ms < self._rules.relapse_ms
                self._open(now_ms, self._level + 1 if relapsed else 0)

    def _probed(self, outcome: Outcome, now_ms: int) -> None:
        if outcome == "ok":
            self._open_until_ms = None
            self._closed_ms = now_ms
            self.consecutive_failures = 0
            self._buckets.clear()
        elif outcome == "error":
            self.consecutive_failures += 1
            self._open(now_ms, self._level + 1)

    def _failing(self, now_ms: int) -> bool:
        if self.consecutive_failures >= self._rules.failures_max:
            return True
        calls, errors = self._window(now_ms)
        return calls >= self._rules.samples_min and errors * 100 >= calls * self._rules.error_share_percent

    def _open(self, now_ms: int, level: int) -> None:
        self._level = min(level, 16)  # far beyond the longest cool-down; keeps the shift small
        self._open_until_ms = now_ms + min(self._rules.cooldown_ms << self._level, self._rules.cooldown_max_ms)
        self._probe = None

    def _count(self, now_ms: int, errors: int) -> None:
        number = now_ms // self._rules.bucket_ms
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append([number, 0, 0])
            self._trim(now_ms)
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += errors

    def _window(self, now_ms: int) -> tuple[int, int]:
        self._trim(now_ms)
        return sum(b[1] for b in self._buckets), sum(b[2] for b in self._buckets)

    def _trim(self, now_ms: int) -> None:
        first = (now_ms - self._rules.window_ms) // self._rules.bucket_ms
        while self._buckets and self._buckets[0][0] <= first:
            self._buckets.popleft()
