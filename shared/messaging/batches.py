"""Requests that wait, and green threads that serve them many at a time: group commit, seen from the broker.

Whoever comes while a batch is at work rides in the next one, and that one may begin while the last one commits.
It must know nothing of queues or of what is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Generic, TypeVar

import eventlet

from shared.errors import Busy
from shared.eventstore.requests import Request
from shared.messaging.transport import Delivery

Answer = bytes | Exception
T = TypeVar("T")

# Two batches: one is decided while the other commits.
IN_FLIGHT = 2
BATCH_MAX = 512
EVEN_MIN = 64  # fewer requests than this are not divided: a commit costs more than they do
BATCH_BYTES = 4 << 20
# Of bodies that wait. With those in hand it bounds a process's memory, however large a request is.
WAITING_BYTES = 128 << 20


class Waiting:
    """A request and whoever waits for its answer: the sender of a delivery, or this process itself."""

    __slots__ = ("answered", "at", "delivery", "request")

    def __init__(
        self, request: Request, delivery: Delivery | None = None, answered: Callable[[Answer], None] | None = None
    ) -> None:
        self.request, self.delivery, self.answered = request, delivery, answered
        self.at = monotonic()


class Batches:
    """The requests for one shard."""

    def __init__(
        self, serve: Callable[[list[Waiting]], None], spawn: Callable[[Callable[[], None]], object], waiting_max: int
    ) -> None:
        """`serve` answers a batch and raises nothing; `spawn` starts a green thread."""
        self._serve, self._spawn, self._waiting_max = serve, spawn, waiting_max
        self._waiting: deque[Waiting] = deque()
        self._bytes = 0
        self._at_work = 0
        self._under_way = 0  # requests in batches at work

    def add(self, waiting: Waiting) -> None:
        """Have it served. Raises Busy at once when too many wait already; does not wait."""
        if self._waiting and (len(self._waiting) >= self._waiting_max or self._bytes > WAITING_BYTES):
            details = {"waiting": len(self._waiting), "limit": self._waiting_max}
            raise Busy(f"{len(self._waiting)} requests are waiting already", details)
        self._waiting.append(waiting)
        self._bytes += len(waiting.request.body)
        if self._at_work < IN_FLIGHT:
            self._at_work += 1
            self._spawn(self._work)

    def _work(self) -> None:
        try:
            while self._waiting:
                batch = self._next()
                self._under_way += len(batch)
                try:
                    self._serve(batch)
                finally:
                    self._under_way -= len(batch)
                eventlet.sleep(0)  # let others have a turn, and what has come be read: it makes the next batch larger
        finally:
            self._at_work -= 1

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        # Not all that wait at once: of two batches of like size one is decided while the other commits.
        most = min(BATCH_MAX, max(EVEN_MIN, (self._under_way + len(self._waiting) + 1) // 2))
        while self._waiting and len(batch) < most:
            body_size = len(self._waiting[0].request.body)
            if batch and size + body_size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
            size += body_size
        self._bytes -= size
        return batch


class Together(Generic[T]):
    """Does at once, in a green thread, what is asked one by one."""

    def __init__(self, work: Callable[[Sequence[T]], None], spawn: Callable[[Callable[[], None]], object]) -> None:
        """`work` may wait, and raises nothing."""
        self._work, self._spawn = work, spawn
        self._items: list[T] = []
        self._running: Any = None

    def add(self, item: T) -> None:
        self._items.append(item)
        if self._running is None:
            self._running = True
            self._spawn(self._run)

    def _run(self) -> None:
        try:
            while self._items:
                items, self._items = self._items, []
                self._work(items)
        finally:
            self._running = None
