"""`@follow("catalog")`: apply another service's event log, in order, each event with effect once.

The decorated method takes a page of events and returns the position it has reached. It applies the page and
moves its position in ONE database transaction; asked with an empty page it only tells the position. The
follower pulls the next page from the upstream by RPC, calls the method, and so on; at the head it waits for
a prompt or for `settings.follow_poll_s`. Whatever fails (the upstream, the broker, the method itself), it
asks for the position again and goes on from there, for ever, with pauses that grow to a bound.

An upstream with several shards has as many logs. Each is followed by itself, side by side with the others, and
the method is told which by `shard`. A service's own log is read where it is, without the broker. It must know
nothing of what the events mean.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import eventlet
from eventlet.event import Event
from kombu.message import Message
from nameko.extensions import Entrypoint

from shared import telemetry
from shared.errors import Conflict, TokengridError
from shared.messaging import codec, tracing
from shared.messaging.hosting import Hosted
from shared.messaging.link import PROMPT_EXCHANGE
from shared.messaging.wire import Wire, settings_of

log = logging.getLogger(__name__)

PAGE_SIZE = 1000
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 5.0
# After a page of our own log, so many events a second: what comes faster is gathered into pages worth the while.
OWN_PACE, OWN_PAUSE_MAX_S, OWN_LOOK_S = 5000.0, 1.0, 0.02


class BrokenLog(Exception):
    """An upstream's answer is not the next section of its log."""


class Stopped(Exception):
    """The service is stopping."""


def check_page(answer: dict[str, Any], position: int, log_name: str = "") -> tuple[list[dict[str, Any]], int]:
    """Events and head of an answer, which must continue the log of this name after `position` without a gap."""
    head, events = answer["head"], answer["events"]
    if (found := answer.get("log", log_name)) != log_name:
        raise BrokenLog(f"it is the log {found}, not {log_name}: the number of shards is not the upstream's")
    positions = [event["position"] for event in events]
    if positions != list(range(position + 1, position + 1 + len(events))):
        raise BrokenLog(f"after position {position} came {positions[:3]} … {positions[-1:]}")
    if head < position:
        raise BrokenLog(f"its head is {head}, but {position} was reached before")
    if not events and head > position:
        raise BrokenLog(f"its head is {head}, but it gives nothing after {position}")
    return events, head


class Follow(Entrypoint):  # type: ignore[misc]
    """The entrypoint behind `@follow(upstream)`: one green thread for each log of the upstream."""

    wire = Wire()

    def __init__(self, upstream: str, page_size: int | None = None, poll_s: float | None = None, **kwargs: Any) -> None:
        """`page_size` (events) and `poll_s` (seconds) default to 1,000 and the settings' interval. A page larger than
        one answer of the upstream may be is gathered from several: the further behind, the larger the page."""
        self.upstream, self._page_size, self._poll_s = upstream, page_size, poll_s
        # nameko must not log what fails here: it is logged once, not at every attempt.
        super().__init__(expected_exceptions=Exception, **kwargs)

    def setup(self) -> None:
        settings = settings_of(self.container.config)
        self.page_size = self._page_size or min(PAGE_SIZE, settings.page_max)
        self.section_size = min(self.page_size, settings.page_max)  # of one answer
        self.poll_s = self._poll_s or settings.follow_poll_s
        self.stopping = False
        self.wire.setup()
        names = settings.logs(self.upstream)
        self.logs = [FollowedLog(self, name, shard, single=len(names) == 1) for shard, name in enumerate(names)]
        for each in self.logs:
            self.wire.caller.link.subscribe(PROMPT_EXCHANGE, each.name, each.prompted)

    def start(self) -> None:
        for each in self.logs:
            each.start()

    def stop(self) -> None:
        """Finishes the pages in hand; drops pulls and waits."""
        self.stopping = True
        for each in self.logs:
            each.interrupt()
        for each in self.logs:
            each.wait()

    def kill(self) -> None:
        for each in self.logs:
            each.kill()

    def own(self, shard: int) -> Any:
        """The application of the log, if it is this very service's; None for another's."""
        if self.upstream != self.container.service_name:
            return None
        hosted = [each for each in self.container.dependencies if isinstance(each, Hosted)]
        return hosted[0].application.shards[shard] if hosted and hosted[0].application else None

    def describe_span(self, worker_ctx: Any) -> dict[str, Any] | None:
        """A CONSUMER span for a page, linked to the commands that caused its events; none for the question
        after the position."""
        events = worker_ctx.args[0]
        if not events:
            return None
        name = self.logs[worker_ctx.kwargs.get("shard", 0)].name
        attributes = {
            "messaging.system": "tokengrid",
            "messaging.operation.type": "process",
            "messaging.destination.name": name,
            "messaging.batch.message_count": len(events),
        }
        return {
            "name": f"process {name}",
            "kind": "consumer",
            "attributes": attributes,
            "links": [event["trace"] if isinstance(event, dict) else event.trace for event in events],
        }


class FollowedLog:
    """One log that a `Follow` follows: its position, its prompts, its troubles."""

    def __init__(self, follow: Follow, name: str, shard: int, single: bool) -> None:
        """`shard` is told to the method and to the upstream, unless the upstream has a `single` log."""
        self.name = name
        self.hint = 0  # the head of the latest prompt
        self._follow = follow
        self._container = follow.container
        self._shard = {} if single else {"shard": shard}
        self._number = shard
        self._own: Any = None
        self._wakened = Event()
        self._pulling: Any = None
        self._thread: Any = None
        self._trouble_since: float | None = None

    def start(self) -> None:
        self._own = self._follow.own(self._number)
        self._thread = self._container.spawn_managed_thread(self._run, identifier=f"follow {self.name}")

    def interrupt(self) -> None:
        """Drop a pull or a wait; a page in hand is finished."""
        self._wake()
        if self._pulling is not None:
            self._pulling.fail(Stopped())

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.wait()

    def kill(self) -> None:
        if self._thread is not None:
            self._thread.kill()

    # --- waiting -------------------------------------------------------------------------------
    def prompted(self, message: Message) -> None:
        self.hint = max(self.hint, int(codec.decode(message.body)["head"]))
        self._wake()

    def _wake(self) -> None:
        if not self._wakened.ready():
            self._wakened.send()

    def _sleep(self, seconds: float) -> None:
        if not self._follow.stopping:
            self._wakened = Event()
            self._wakened.wait(seconds)

    def _pause(self, seconds: float) -> None:
        """Not cut short by prompts: trouble does not end because the log grows."""
        until = monotonic() + seconds * random.uniform(0.5, 1.0)
        while not self._follow.stopping and (left := until - monotonic()) > 0:
            self._sleep(left)

    def _gather(self, seconds: float) -> None:
        """While commands keep our own service busy: the larger a page of theirs, the fewer rows are written twice."""
        until = monotonic() + seconds
        while not self._follow.stopping and self._own.busy and monotonic() < until:
            eventlet.sleep(OWN_LOOK_S)

    # --- following -----------------------------------------------------------------------------
    def _run(self) -> None:
        position: int | None = None
        pause_s = PAUSE_MIN_S
        while not self._follow.stopping:
            try:
                if position is None:
                    position = self._apply([])
                reached, head = self._step(position)
                events, position = reached - position, reached
            except Stopped:
                return
            except Conflict:
                # Another replica was faster. It is a race to lose now and then, not a trouble.
                position = None
                self._pause(PAUSE_MIN_S)
                continue
            except Exception as exc:  # noqa: BLE001 - a follower never dies: its service would stop learning
                position = None
                self._troubled(exc)
                self._pause(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
                continue
            self._untroubled()
            pause_s = PAUSE_MIN_S
            tracing.record_lag(self._container.service_name, self.name, max(0, head - position))
            if position >= max(head, self.hint):
                self._sleep(self._follow.poll_s)
                if self._own is not None:
                    self._gather(min(OWN_PAUSE_MAX_S, events / OWN_PACE))

    def _step(self, position: int) -> tuple[int, int]:
        """Pull a page and apply it. Returns the position reached and the upstream's head."""
        self.hint = 0  # whatever it hinted at, this pull will see
        if self._own is None:
            events, head = self._gathered(position)
        else:
            events, head = self._read(position)
        if not events or self._follow.stopping:
            return position, head
        reached = self._apply(events)
        if reached <= position:
            raise RuntimeError(f"{self._follow.method_name} was given events after {position} and returned {reached}")
        return reached, head

    def _gathered(self, position: int) -> tuple[list[dict[str, Any]], int]:
        """The upstream's events up to its head, at most a page of them, in as many sections as it takes; its head."""
        page: list[dict[str, Any]] = []
        while True:
            reached = position + len(page)
            limit = min(self._follow.section_size, self._follow.page_size - len(page))
            events, head = check_page(self._pull(reached, limit), reached, self.name)
            page += events
            if len(page) >= self._follow.page_size or reached + len(events) >= head:
                return page, head

    def _read(self, position: int) -> tuple[list[Any], int]:
        """The next page of our own log: no broker between us and it."""
        page: list[Any] = []
        reached = position
        while len(page) < self._follow.page_size:
            part = self._own.log.read(reached, self._follow.section_size)
            page += part
            if len(part) < self._follow.section_size:
                return page, page[-1].position if page else position  # that was all there is
            reached = page[-1].position
        return page, reached + 1

    def _pull(self, position: int, limit: int) -> dict[str, Any]:
        arguments = {"after": position, "limit": limit, **self._shard}
        self._pulling = self._follow.wire.caller.submit(self._follow.upstream, "events", arguments)
        try:
            if self._follow.stopping:
                raise Stopped
            answer: dict[str, Any] = self._pulling.result()
        finally:
            self._pulling = None
        return answer

    def _apply(self, events: list[Any]) -> int:
        """Run the method in a worker of its own. Returns the position it returns."""
        done = Event()
        handle_result = partial(self._applied, done)
        self._container.spawn_worker(self._follow, (events,), dict(self._shard), handle_result=handle_result)
        error, position = done.wait()
        if error is not None:
            raise error
        if not isinstance(position, int) or isinstance(position, bool):
            method = self._follow.method_name
            raise TypeError(f"{method} returned {position!r} instead of the position it has reached")
        return position

    @staticmethod
    def _applied(done: Event, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        del worker_ctx
        done.send((exc_info and exc_info[1], result))
        return result, exc_info

    # --- what is said of it ------------------------------------------------------------------------
    def _troubled(self, exc: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = monotonic()
            unexpected = not isinstance(exc, TokengridError | BrokenLog)
            log.warning(
                "%s cannot follow %s: %s: %s; trying again until it can",
                self._container.service_name,
                self.name,
                telemetry.error_code(exc),
                exc,
                exc_info=exc if unexpected else None,
            )

    def _untroubled(self) -> None:
        if self._trouble_since is not None:
            log.warning(
                "%s follows %s again after %.1f s",
                self._container.service_name,
                self.name,
                monotonic() - self._trouble_since,
            )
            self._trouble_since = None


F = TypeVar("F", bound=Callable[..., int])


def follow(upstream: str, page_size: int | None = None, poll_s: float | None = None) -> Callable[[F], F]:
    """Feeds a method of a service with the event log of `upstream`: `page_size` events at most, if need be from
    several answers, pulled at least every `poll_s` seconds (defaults: 1,000 and the settings' interval). Where the
    upstream has several shards, the method gets `shard` besides the page."""
    decorate: Callable[[F], F] = Follow.decorator(upstream, page_size=page_size, poll_s=poll_s)
    return decorate
