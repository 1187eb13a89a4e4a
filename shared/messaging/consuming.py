"""The consumer of a service's request queue: nameko's, made to drain before it stops and to survive its broker.

nameko's closes the connection while work is in hand: the acknowledgements are lost, and everything is
executed again by the next process. This one first takes no more, then waits until all it has taken is settled.
It must know nothing of requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import eventlet
from amqp.exceptions import AccessRefused, PreconditionFailed
from eventlet.event import Event
from kombu.message import Message
from nameko.messaging import QueueConsumer as NamekoQueueConsumer

from shared.errors import SetupFailed
from shared.messaging.link import BROKER_ERRORS, RECONNECT_MAX_S, RECONNECT_MIN_S

log = logging.getLogger(__name__)

# How soon a consumer of RabbitMQ sees that it shall stop. The in-process broker is told at once.
TICK_S = 0.2


class _StoppedWhileAway(Exception):
    """The service is to stop while the broker is away."""


class QueueConsumer(NamekoQueueConsumer):  # type: ignore[misc]
    """Hands raw messages to `provider.receive(message)` in a thread each, and keeps count of the unsettled."""

    def __init__(self) -> None:
        self._unsettled: set[Message] = set()
        self._stopping: dict[Any, Event] = {}
        self._channel: Any = None
        super().__init__()

    def get_consumers(self, consumer_cls: Any, channel: Any) -> list[Any]:
        # A new connection: whatever was unsettled on the old one, the broker delivers again.
        self._unsettled.clear()
        self._channel = channel
        self._consumers.clear()
        for provider in self._providers - self._stopping.keys():
            consumer = consumer_cls(
                queues=[provider.queue],
                on_message=partial(self._receive, provider),
                on_decode_error=partial(self._receive_unreadable, provider),
                accept=self.accept,
            )
            consumer.qos(prefetch_count=self.prefetch_count)
            self._consumers[provider] = consumer
        return list(self._consumers.values())

    def _receive(self, provider: Any, message: Message) -> None:
        self._unsettled.add(message)
        self.container.spawn_managed_thread(partial(provider.receive, message), identifier="receive")

    def _receive_unreadable(self, provider: Any, message: Message, exc: Exception) -> None:
        """kombu could not even unpack it."""
        self._unsettled.add(message)
        reject = partial(provider.reject, message, f"cannot be unpacked: {exc}")
        self.container.spawn_managed_thread(reject, identifier="reject")

    def _settle(self, message: Message, settle: Callable[[], None]) -> None:
        try:
            # A dead channel settles nothing; its messages come again.
            if message.channel.connection and not message.acknowledged:
                settle()
        except BROKER_ERRORS as exc:
            log.warning("a message could not be settled, it will come again: %s", exc)
        self._unsettled.discard(message)
        if self._stopping and not self._unsettled:
            self._interrupt()

    def ack_message(self, message: Message) -> None:
        self._settle(message, message.ack)

    def requeue_message(self, message: Message) -> None:
        self._settle(message, message.requeue)

    def reject_message(self, message: Message) -> None:
        self._settle(message, message.reject)

    # --- the consuming green thread ------------------------------------------------------------
    def run(self) -> None:
        """Consume until stopped, through any number of lost connections."""
        while not self.should_stop:
            try:
                self.consume()
            except _StoppedWhileAway:
                break
            except BROKER_ERRORS as exc:
                if isinstance(exc, PreconditionFailed | AccessRefused) and not self._consumers_ready.ready():
                    # Trying again will not change the broker's mind; a person must.
                    raise SetupFailed(f"The broker refuses the queue of {self.container.service_name}: {exc}") from exc
                log.warning("%s: lost the broker (%s); reconnecting", self.container.service_name, exc)
                eventlet.sleep(RECONNECT_MIN_S)
        for stopped in self._stopping.values():
            if not stopped.ready():
                stopped.send()

    def consume(self) -> None:
        """Consume over one connection."""
        inproc = self.amqp_uri.startswith("inproc:")
        with self.consumer_context() as (connection, _channel, _consumers):
            while True:
                self.on_iteration()
                if self.should_stop:
                    return
                try:
                    connection.drain_events(timeout=None if inproc else TICK_S)
                except TimeoutError:
                    connection.heartbeat_check()

    @contextmanager
    def establish_connection(self) -> Iterator[Any]:
        # Sooner than kombu's default of 2, 4, 6 ... 30 s.
        with self.create_connection() as connection:
            yield connection.ensure_connection(
                self.on_connection_error,
                max_retries=None,
                interval_start=RECONNECT_MIN_S,
                interval_step=RECONNECT_MIN_S,
                interval_max=RECONNECT_MAX_S,
            )

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Called by kombu after each vain attempt to connect."""
        log.info("%s: no connection to the broker (%s); again in %g s", self.container.service_name, exc, interval)
        if self.should_stop or self._stopping:
            raise _StoppedWhileAway

    def on_iteration(self) -> None:
        for provider, stopped in self._stopping.items():
            consumer = self._consumers.pop(provider, None)
            if consumer is not None:
                consumer.cancel()
            if not self._unsettled and not stopped.ready():
                stopped.send()
        if not self._consumers and not self._unsettled:
            self.should_stop = True

    # --- stopping ------------------------------------------------------------------------------
    def unregister_provider(self, provider: Any) -> None:
        """Returns when the provider's consumer is cancelled and all its messages are settled."""
        if not self._consumers_ready.ready():
            super().unregister_provider(provider)
            return
        stopped = self._stopping.setdefault(provider, Event())
        self._interrupt()
        if not self._gt.dead:
            stopped.wait()
        super(NamekoQueueConsumer, self).unregister_provider(provider)

    def kill(self) -> None:
        self.should_stop = True
        self._interrupt()
        super().kill()

    def _interrupt(self) -> None:
        """End the wait for messages of the in-process broker."""
        interrupt = getattr(getattr(self._channel, "connection", None), "interrupt", None)
        if interrupt is not None:
            interrupt()
