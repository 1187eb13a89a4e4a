"""The gateway: lives many calls at once, and packs what they ask into batches.

Time goes in ticks. In a tick every call in flight asks its next thing; all that is asked of a service
travels as one `execute`, in the order in which it happened; the answers take every call a step further.
An account's calls come one after the other, or at once where they overlapped. So the same calls make the
same batches, whatever the machine. It must not know what a call asks.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from shared.contracts.base import Command
from shared.messaging.client import Client
from tokengrid.demo.life import Answer, Ask, End, due_at, life
from tokengrid.demo.traffic import Planned
from tokengrid.following import RETRIES, await_followed

OnEnd = Callable[[Planned, End], None]

WINDOW = 4_000  # calls read ahead of the trace: an account's calls wait for each other
IN_FLIGHT_MAX = 1_000
BATCH_MAX = 2_000  # commands in one message: some 100 ms of work
SWEEP_TICKS = 25
SWEEP_INTERVAL = timedelta(minutes=15)


class Flight:
    """A call in flight: what it has asked, and the answers it has."""

    __slots__ = ("answers", "asks", "call", "life", "number")

    def __init__(self, call: Planned, number: int) -> None:
        """`number`: of its take-off, the order among equals."""
        self.call, self.number = call, number
        self.life = life(call)
        self._asks(next(self.life))

    def _asks(self, asks: list[Ask]) -> None:
        self.asks = asks
        self.answers: list[Answer | None] = [None] * len(asks)

    def step(self) -> End | None:
        """Go on if everything asked is answered; the call's end, if this was it."""
        answers = [answer for answer in self.answers if answer is not None]
        if len(answers) < len(self.asks):
            return None
        try:
            self._asks(self.life.send(answers))
        except StopIteration as stop:
            end: End = stop.value
            return end
        return None


def execute(client: Client, service: str, commands: Sequence[Command]) -> list[Answer]:
    """The answers to commands, in their order, in as many batches as it takes. Raises what outlasts the retries."""
    answers: list[Answer] = []
    for start in range(0, len(commands), BATCH_MAX):
        batch = [{"command": c.NAME, **msgspec.to_builtins(c)} for c in commands[start : start + BATCH_MAX]]
        answers += client.call(service, "execute", retries=RETRIES, commands=batch)
    return answers


class Sweeper:
    """Lets quota expire what is due, as its own timer would, but at moments that depend on the calls alone."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.expired: Counter[str] = Counter()

    def sweep(self, until: datetime) -> None:
        """Expire everything that was due by `until`."""
        while True:
            await_followed(self._client, "quota", "quota")  # what is due is read from its read model
            answer = self._client.call("quota", "sweep", until=until.isoformat(), retries=RETRIES)
            expired = {key: answer[key] for key in ("expired_reservations", "expired_grants")}
            self.expired.update(expired)
            if not answer["remaining"] or not any(expired.values()):
                return


class Gateway:
    """Replays calls. `commands`: how many were sent, by service; `refusals`: by error code."""

    def __init__(self, client: Client, sweeper: Sweeper, on_time: Callable[[datetime], None]) -> None:
        """`on_time` hears how far the demo's time has come, before anything of that time is sent."""
        self._client, self._sweeper, self._on_time = client, sweeper, on_time
        self._waiting: dict[tuple[str, str], deque[Planned]] = {}
        self._waiting_count = 0
        self._ready: list[tuple[int, tuple[str, str]]] = []  # accounts with nothing in flight, by their next call
        self._flying: Counter[tuple[str, str]] = Counter()
        self._swept: datetime | None = None
        self.commands: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.ticks = 0
        self._started = 0

    def replay(self, calls: Iterator[Planned], on_end: OnEnd) -> None:
        """Live every call to its end; `on_end` is told each one's."""
        flights: list[Flight] = []
        unread = True
        while True:
            unread = unread and self._read_ahead(calls)
            flights += self._start(IN_FLIGHT_MAX - len(flights))
            if not flights:
                return
            self._sweep_if_due(flights)
            # Quota first: a call that has its hold is routed in the same tick.
            flights = self._step("quota", flights, on_end)
            flights = self._step("routing", flights, on_end)
            self.ticks += 1

    # --- which calls fly ---------------------------------------------------------------------------
    def _read_ahead(self, calls: Iterator[Planned]) -> bool:
        while self._waiting_count < WINDOW:
            call = next(calls, None)
            if call is None:
                return False
            account = (call.subscriber.operator, call.subscriber.account)
            queue = self._waiting.setdefault(account, deque())
            queue.append(call)
            self._waiting_count += 1
            if len(queue) == 1 and not self._flying[account]:
                heapq.heappush(self._ready, (call.number, account))
        return True

    def _start(self, count: int) -> list[Flight]:
        """The earliest calls of accounts with nothing in flight, each with those that overlapped it."""
        started: list[Flight] = []
        while self._ready and len(started) < count:
            _, account = heapq.heappop(self._ready)
            queue = self._waiting[account]
            together = [queue.popleft()]
            while queue and queue[0].at < min(call.ends_at for call in together):
                together.append(queue.popleft())
            if not queue:
                del self._waiting[account]
            self._waiting_count -= len(together)
            self._flying[account] += len(together)
            for call in together:
                self._started += 1
                started.append(Flight(call, self._started))
        return started

    def _land(self, call: Planned) -> None:
        account = (call.subscriber.operator, call.subscriber.account)
        self._flying[account] -= 1
        if not self._flying[account]:
            del self._flying[account]
            if account in self._waiting:
                heapq.heappush(self._ready, (self._waiting[account][0].number, account))

    # --- a step of all of them -----------------------------------------------------------------------
    def _step(self, service: str, flights: list[Flight], on_end: OnEnd) -> list[Flight]:
        """Have everything answered that is asked of a service, in the order in which it happened; who still flies."""
        asked = [
            (due_at(ask), flight.number, place, flight)
            for flight in flights
            for place, ask in enumerate(flight.asks)
            if ask.service == service
        ]
        if not asked:
            return flights
        asked.sort(key=lambda one: one[:3])
        self._on_time(asked[-1][0])
        answers = execute(self._client, service, [flight.asks[place].command for _, _, place, flight in asked])
        for (_, _, place, flight), answer in zip(asked, answers, strict=True):
            flight.answers[place] = answer
        self.commands[service] += len(asked)
        self.refusals.update(answer["error"]["code"] for answer in answers if "error" in answer)
        going = []
        for flight in flights:
            end = flight.step()
            if end is None:
                going.append(flight)
            else:
                self._land(flight.call)
                on_end(flight.call, end)
        return going

    def _sweep_if_due(self, flights: Sequence[Flight]) -> None:
        """All that is before the earliest call still to be ended can expire."""
        if self.ticks % SWEEP_TICKS:
            return
        earliest = min(flight.call.at for flight in flights)
        horizon = min(earliest, self._waiting[self._ready[0][1]][0].at) if self._ready else earliest
        if self._swept is None:
            self._swept = horizon
        elif horizon - self._swept >= SWEEP_INTERVAL:
            self._sweeper.sweep(horizon)
            self._swept = horizon
