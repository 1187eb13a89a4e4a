"""Leases: how many calls run at each deployment, and how many tokens the last minute has promised there.

A lease has a time to live: a caller that crashes gives its place back at the expiry. Tokens count in the
minute in which their call was sent. Time comes in as integer milliseconds. It knows nothing of limits:
what a deployment can bear is the catalogue's word.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import NamedTuple

MINUTE_MS = 60_000
BUCKET_MS = 5_000  # the minute moves in such steps, so its memory is twelve counters
SLACK = 1_024  # ended leases that may wait in the heap before it is made anew


class Lease(NamedTuple):
    """One call's place at a deployment."""

    call: str
    deployment: str
    tokens: int
    taken_ms: int
    expires_ms: int


class Minute:
    """Tokens of the last minute."""

    __slots__ = ("_buckets", "_total")

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque()  # [number, tokens]
        self._total = 0

    def add(self, tokens: int, now_ms: int) -> None:
        number = now_ms // BUCKET_MS
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append([number, 0])
            self.total(now_ms)
        self._buckets[-1][1] += tokens
        self._total += tokens

    def correct(self, difference: int, taken_ms: int) -> None:
        """What was promised at `taken_ms` came out otherwise; without effect once that has moved out."""
        number = taken_ms // BUCKET_MS
        for bucket in reversed(self._buckets):
            if bucket[0] == number:
                change = max(difference, -bucket[1])
                bucket[1] += change
                self._total += change
                return

    def total(self, now_ms: int) -> int:
        first = (now_ms - MINUTE_MS) // BUCKET_MS
        while self._buckets and self._buckets[0][0] <= first:
            self._total -= self._buckets.popleft()[1]
        return self._total


class Capacity:
    """All live leases. A call has at most one: a second one ends the first."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._calls: dict[str, int] = {}
        self._minutes: dict[str, Minute] = {}
        self._expiries: list[tuple[int, str]] = []

    # -- what is asked ----------------------------------------------------------------------------
    def calls(self, deployment: str) -> int:
        """How many calls hold a lease there."""
        return self._calls.get(deployment, 0)

    def tokens(self, deployment: str, now_ms: int) -> int:
        """Tokens promised there within the last minute, corrected by what calls reported."""
        minute = self._minutes.get(deployment)
        return minute.total(now_ms) if minute is not None else 0

    def lease(self, call: str) -> Lease | None:
        return self._leases.get(call)

    # -- what happened ----------------------------------------------------------------------------
    def take(self, lease: Lease) -> None:
        """A call got its place, instead of the one it had."""
        self.end(lease.call)
        self._leases[lease.call] = lease
        self._calls[lease.deployment] = self._calls.get(lease.deployment, 0) + 1
        minute = self._minutes.get(lease.deployment)
        if minute is None:
            minute = self._minutes[lease.deployment] = Minute()
        minute.add(lease.tokens, lease.taken_ms)
        heappush(self._expiries, (lease.expires_ms, lease.call))

    def end(self, call: str, used_tokens: int | None = None) -> Lease | None:
        """The call needs its place no longer, having used so many tokens (None: unknown)."""
        lease = self._leases.pop(call, None)
        if lease is None:
            return None
        self._calls[lease.deployment] -= 1
        if used_tokens is not None:
            self._minutes[lease.deployment].correct(used_tokens - lease.tokens, lease.taken_ms)
        if len(self._expiries) > 2 * len(self._leases) + SLACK:
            self._expiries = [(lease.expires_ms, lease.call) for lease in self._leases.values()]
            heapify(self._expiries)
        return lease

    def expire(self, now_ms: int) -> None:
        """Give back what was leased until now or earlier."""
        while self._expiries and self._expiries[0][0] <= now_ms:
            expires_ms, call = heappop(self._expiries)
            lease = self._leases.get(call)
            if lease is not None and lease.expires_ms == expires_ms:
                self.end(call)
