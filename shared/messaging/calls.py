"""The calls over one link: requests out, answers matched to them, deadlines kept.

`client` offers this to people and services. It must know nothing of what is called.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import eventlet
from eventlet.event import Event
from kombu.exceptions import ChannelError
from kombu.message import Message
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from shared.config import Settings
from shared.errors import DeadlineExceeded, TokengridError, Unavailable
from shared.messaging import codec, tracing
from shared.messaging.known_errors import error_from_wire, error_to_wire
from shared.messaging.link import RPC_EXCHANGE, Link, Outgoing

log = logging.getLogger(__name__)

# How long a call waits for a lost connection to come back: longer than a blip, shorter than a restart.
# Callers who want to outlast a restart ask for retries.
PATIENCE_S = 2.0
RETRY_PAUSE_MIN_S, RETRY_PAUSE_MAX_S = 0.05, 2.0


class Pending:
    """A request on its way."""

    __slots__ = ("__weakref__", "_answered", "_forget", "_span", "deadline_s", "method", "sent_at", "service")

    def __init__(self, service: str, method: str, deadline_s: float, forget: Callable[[], object]) -> None:
        """`forget` is called when the wait has ended without an answer."""
        self._forget = forget
        self.service, self.method, self.deadline_s = service, method, deadline_s
        self.sent_at = monotonic()
        self._answered = Event()
        self._span = tracing.client_span(service, method)

    @property
    def answered(self) -> bool:
        return bool(self._answered.ready())

    def result(self, deadline_s: float | None = None) -> Any:
        """The answer. Waits `deadline_s` seconds from now (default: what is left of the settings' deadline
        since the request was sent). Raises the service's error, or DeadlineExceeded."""
        wait_s = self.sent_at + self.deadline_s - monotonic() if deadline_s is None else deadline_s
        if not self._answered.ready():
            self._answered.wait(max(0.0, wait_s))
        if not self._answered.ready():
            waited_s = round(monotonic() - self.sent_at, 3)
            self.fail(
                DeadlineExceeded(
                    f"No answer from {self.service}.{self.method} within {waited_s:g} s.",
                    {"service": self.service, "method": self.method},
                )
            )
        return self._answered.wait()

    def answer(self, body: dict[str, Any]) -> None:
        carried = body.get("error")
        if carried:
            self.fail(error_from_wire(carried))
        elif not self._answered.ready():
            self._answered.send(body.get("result"))
            tracing.end_client_span(self, self._span, None)

    def fail(self, error: Exception) -> None:
        """End the wait with an error; what comes later is ignored."""
        if not self._answered.ready():
            self._forget()
            self._answered.send_exception(error)
            tracing.end_client_span(self, self._span, error)

    @property
    def span(self) -> Any:
        return self._span


class Caller:
    """The calls over one link: matches answers to requests."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.link = Link(settings, name, on_return=self._returned, on_lost=self._lost)
        self._reply_to = str(uuid.uuid4())
        self._ids = count(1)
        # Weak: a request whose `result` nobody will ever ask for is forgotten by itself.
        self._pending: WeakValueDictionary[str, Pending] = WeakValueDictionary()
        self.link.subscribe(RPC_EXCHANGE, self._reply_to, self._replied)

    def submit(
        self,
        service: str,
        method: str,
        kwargs: dict[str, Any],
        deadline_s: float | None = None,
        headers: dict[str, Any] | None = None,
    ) -> Pending:
        """Send a request. Raises Unavailable if the broker cannot be reached or has no such service."""
        deadline_s = self.settings.deadline_s if deadline_s is None else deadline_s
        body = codec.encode({"args": (), "kwargs": kwargs})
        correlation_id = f"{self._reply_to}:{next(self._ids)}"
        pending = Pending(service, method, deadline_s, lambda: self._pending.pop(correlation_id, None))
        self._pending[correlation_id] = pending
        carried = dict(headers or {})
        tracing.inject(pending.span, carried)
        try:
            self.link.publish(
                body,
                RPC_EXCHANGE,
                f"{service}.{method}",
                headers=carried,
                mandatory=True,
                wait_s=min(PATIENCE_S, deadline_s),
                reply_to=self._reply_to,
                correlation_id=correlation_id,
                expiration=str(max(1, int(deadline_s * 1000))),
            )
        except ChannelError:
            pending.fail(_unknown(service))
            pending.result()
        except Unavailable as exc:
            pending.fail(exc)
            raise
        return pending

    def call(
        self,
        service: str,
        method: str,
        kwargs: dict[str, Any],
        deadline_s: float | None = None,
        retries: int = 0,
        headers: dict[str, Any] | None = None,
    ) -> Any:
        def attempt() -> Any:
            return self.submit(service, method, kwargs, deadline_s, headers).result()

        if not retries:
            return attempt()
        return Retrying(
            stop=stop_after_attempt(1 + retries),
            wait=wait_random_exponential(multiplier=RETRY_PAUSE_MIN_S, max=RETRY_PAUSE_MAX_S),
            retry=retry_if_exception(lambda exc: isinstance(exc, TokengridError) and exc.retryable),
            sleep=eventlet.sleep,
            reraise=True,
        )(attempt)

    def _replied(self, message: Message) -> None:
        pending = self._pending.pop(str(message.properties.get("correlation_id")), None)
        if pending is None:
            return
        try:
            pending.answer(codec.decode(message.body))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with an answer, its caller must hear of it
            pending.fail(Unavailable(f"The answer of {pending.service}.{pending.method} cannot be read: {exc}"))

    def _returned(self, routing_key: str, properties: dict[str, Any]) -> None:
        reply_to, correlation_id = str(properties.get("reply_to", "")), str(properties.get("correlation_id", ""))
        if reply_to != self._reply_to:  # a request of somebody else, which we passed on
            service = routing_key.rpartition(".")[0]
            answer = codec.encode({"result": None, "error": error_to_wire(_unknown(service))})
            # In a thread of its own: the one that reads must not wait.
            eventlet.spawn(self._answer, Outgoing(reply_to.encode(), answer, correlation_id.encode()))
            return
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            pending.fail(_unknown(pending.service))

    def _answer(self, answer: Outgoing) -> None:
        try:
            self.link.publish_all([answer])
        except Unavailable as exc:
            log.warning("an answer was dropped: %s", exc)

    def _lost(self) -> None:
        pending, self._pending = list(self._pending.values()), WeakValueDictionary()
        for each in pending:
            each.fail(Unavailable(f"The broker was lost while {each.service}.{each.method} was awaited."))

    @property
    def pending_count(self) -> int:
        return len(self._pending)


def _unknown(service: str) -> Unavailable:
    return Unavailable(f"No service {service!r} is known to the broker.", {"service": service})
