"""`@follow("catalog")`: apply another service's event log, in order, each event with effect once.

The decorated method takes a page of events and returns the position it has reached. It applies the page and
moves its position in ONE database transaction; asked with an empty page it only tells the position. The
follower pulls the next page from the upstream by RPC, calls the method, and so on; at the head it waits for
a prompt or for `settings.follow_poll_s`. Whatever fails (the upstream, the broker, the method itself), it
asks for the position again and goes on from there, for ever, with pauses that grow to a bound. It must
know nothing of what the events mean.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from eventlet.event import Event
from kombu.message import Message
from nameko.extensions import Entrypoint

from shared import telemetry
from shared.errors import Conflict, TokengridError
from shared.messaging import codec, tracing
from shared.messaging.link import PROMPT_EXCHANGE
from shared.messaging.wire import Wire, settings_of

log = logging.getLogger(__name__)

PAGE_SIZE = 1000
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 5.0


class BrokenLog(Exception):
    """An upstream's answer is not the next section of its log."""


class Stopped(Exception):
    """The service is stopping."""


def check_page(answer: dict[str, Any], position: int) -> tuple[list[dict[str, Any]], int]:
    """Events and head of an answer, which must continue the log after `position` without a gap."""
    head, events = answer["head"], answer["events"]
    positions = [event["position"] for event in events]
    if positions != list(range(position + 1, position + 1 + len(events))):
        raise BrokenLog(f"after position {position} came {positions[:3]} … {positions[-1:]}")
    if head < position:
        raise BrokenLog(f"its head is {head}, but {position} was reached before")
    if not events and head > position:
        raise BrokenLog(f"its head is {head}, but it gives nothing after {position}")
    return events, head


class Follow(Entrypoint):  # type: ignore[misc]
    """The entrypoint behind `@follow(upstream)`."""

    wire = Wire()

    def __init__(self, upstream: str, page_size: int | None = None, poll_s: float | None = None, **kwargs: Any) -> None:
        """`page_size` (events) and `poll_s` (seconds) default to 1,000 and the settings' interval."""
        self.upstream, self._page_size, self._poll_s = upstream, page_size, poll_s
        # nameko must not log what fails here: it is logged once, not at every attempt.
        super().__init__(expected_exceptions=Exception, **kwargs)

    def setup(self) -> None:
        settings = settings_of(self.container.config)
        self.page_size = min(self._page_size or PAGE_SIZE, settings.page_max)
        self.poll_s = self._poll_s or settings.follow_poll_s
        self._stopping = False
        self._hint = 0  # the head of the latest prompt
        self._wakened = Event()
        self._pulling: Any = None
        self._thread: Any = None
        self._trouble_since: float | None = None
        self.wire.setup()
        self.wire.caller.link.subscribe(PROMPT_EXCHANGE, self.upstream, self._prompted)

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier=f"follow {self.upstream}")

    def stop(self) -> None:
        """Finishes the page in hand; drops a pull or a wait."""
        self._stopping = True
        self._wake()
        if self._pulling is not None:
            self._pulling.fail(Stopped())
        if self._thread is not None:
            self._thread.wait()

    def kill(self) -> None:
        if self._thread is not None:
            self._thread.kill()

    # --- waiting -------------------------------------------------------------------------------
    def _prompted(self, message: Message) -> None:
        self._hint = max(self._hint, int(codec.decode(message.body)["head"]))
        self._wake()

    def _wake(self) -> None:
        if not self._wakened.ready():
            self._wakened.send()

    def _sleep(self, seconds: float) -> None:
        if not self._stopping:
            self._wakened = Event()
            self._wakened.wait(seconds)

    def _pause(self, seconds: float) -> None:
        """Not cut short by prompts: trouble does not end because the log grows."""
        until = monotonic() + seconds * random.uniform(0.5, 1.0)
        while not self._stopping and (left := until - monotonic()) > 0:
            self._sleep(left)

    # --- following -----------------------------------------------------------------------------
    def _run(self) -> None:
        position: int | None = None
        pause_s = PAUSE_MIN_S
        while not self._stopping:
            try:
                if position is None:
                    position = self._apply([])
                position, head = self._step(position)
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
            tracing.record_lag(self.container.service_name, self.upstream, max(0, head - position))
            if position >= max(head, self._hint):
                self._sleep(self.poll_s)

    def _step(self, position: int) -> tuple[int, int]:
        """Pull one page and apply it. Returns the position reached and the upstream's head."""
        self._hint = 0  # whatever it hinted at, this pull will see
        answer = self._pull(position)
        events, head = check_page(answer, position)
        if not events or self._stopping:
            return position, head
        reached = self._apply(events)
        if reached <= position:
            raise RuntimeError(f"{self.method_name} was given events after {position} and returned {reached}")
        return reached, head

    def _pull(self, position: int) -> dict[str, Any]:
        arguments = {"after": position, "limit": self.page_size}
        self._pulling = self.wire.caller.submit(self.upstream, "events", arguments)
        try:
            if self._stopping:
                raise Stopped
            answer: dict[str, Any] = self._pulling.result()
        finally:
            self._pulling = None
        return answer

    def _apply(self, events: list[dict[str, Any]]) -> int:
        """Run the method in a worker of its own. Returns the position it returns."""
        done = Event()
        self.container.spawn_worker(self, (events,), {}, handle_result=partial(self._applied, done))
        error, position = done.wait()
        if error is not None:
            raise error
        if not isinstance(position, int) or isinstance(position, bool):
            raise TypeError(f"{self.method_name} returned {position!r} instead of the position it has reached")
        return position

    @staticmethod
    def _applied(done: Event, worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
        del worker_ctx
        done.send((exc_info and exc_info[1], result))
        return result, exc_info

    def describe_span(self, worker_ctx: Any) -> dict[str, Any] | None:
        """A CONSUMER span for a page, linked to the commands that caused its events; none for the question
        after the position."""
        events = worker_ctx.args[0]
        if not events:
            return None
        attributes = {
            "messaging.system": "tokengrid",
            "messaging.operation.type": "process",
            "messaging.destination.name": self.upstream,
            "messaging.batch.message_count": len(events),
        }
        return {
            "name": f"process {self.upstream}",
            "kind": "consumer",
            "attributes": attributes,
            "links": [event.get("trace") for event in events],
        }

    # --- what is said of it ------------------------------------------------------------------------
    def _troubled(self, exc: Exception) -> None:
        if self._trouble_since is None:
            self._trouble_since = monotonic()
            unexpected = not isinstance(exc, TokengridError | BrokenLog)
            log.warning(
                "%s cannot follow %s: %s: %s; trying again until it can",
                self.container.service_name,
                self.upstream,
                telemetry.error_code(exc),
                exc,
                exc_info=exc if unexpected else None,
            )

    def _untroubled(self) -> None:
        if self._trouble_since is not None:
            log.warning(
                "%s follows %s again after %.1f s",
                self.container.service_name,
                self.upstream,
                monotonic() - self._trouble_since,
            )
            self._trouble_since = None


F = TypeVar("F", bound=Callable[..., int])


def follow(upstream: str, page_size: int | None = None, poll_s: float | None = None) -> Callable[[F], F]:
    """Feeds a method of a service with the event log of `upstream`: `page_size` events at most, pulled at
    least every `poll_s` seconds (defaults: 1,000 and the settings' interval)."""
    decorate: Callable[[F], F] = Follow.decorator(upstream, page_size=page_size, poll_s=poll_s)
    return decorate
