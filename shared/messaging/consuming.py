"""The consumer of a service's request queue: nameko's, made to drain before it stops and to survive its broker.

nameko's closes the connection while work is in hand: the acknowledgements are lost, and everything is
executed again by the next process. This one first takes no more, then waits until all it has taken is settled.
It must know nothing of requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

import eventlet
from amqp.exceptions import AccessRefused, PreconditionFailed
from eventlet.event import Event
from kombu.message import Message
from nameko.messaging import QueueConsumer as NamekoQueueConsumer

from shared.errors import SetupFailed
from shared.messaging.acks import Acks
from shared.messaging.link import BROKER_ERRORS, RECONNECT_MAX_S, RECONNECT_MIN_S, connection_to
from shared.messaging.transport import Delivery
from shared.messaging.wire import settings_of

log = logging.getLogger(__name__)

# How soon a consumer of RabbitMQ sees that it shall stop. The in-process broker is told at once.
TICK_S = 0.2


class _StoppedWhileAway(Exception):
    """The service is to stop while the broker is away."""


def message_tag(message: Message | Delivery) -> int:
    """Its number on its channel."""
    tag: int = message.tag if isinstance(message, Delivery) else message.delivery_tag
    return tag


class QueueConsumer(NamekoQueueConsumer):  # type: ignore[misc]
    """Hands messages to its providers, and keeps count of the unsettled.

    A provider has a `queue`, a `prefetch`, and a `delay_s` after which it wants to consume. It is told when it is
    `connected()`. Of each message it is asked whether it can `take(delivery)`, at once and without waiting; what it
    does not take is given to `receive(message)` in a thread of its own, or to `reject(message, reason)`.
    """

    def __init__(self) -> None:
        self._stopping: dict[Any, Event] = {}
        self._channel: Any = None
        self._acks = Acks(None)
        self._due: dict[Any, float] = {}  # providers that do not consume yet, and since when they want to
        super().__init__()

    def get_consumers(self, consumer_cls: Any, channel: Any) -> list[Any]:
        # A new connection: whatever was unsettled on the old one, the broker delivers again.
        providers = self._providers - self._stopping.keys()
        prefetch = max((provider.prefetch for provider in providers), default=self.prefetch_count)
        # What is held back counts as unsettled at the broker: it must leave most of the window free.
        self._acks = Acks(channel, held_max=prefetch // 8 if prefetch > self.prefetch_count else 0)
        self._channel = channel
        self._consumers.clear()
        self._due.clear()
        now = monotonic()
        for provider in providers:
            provider.connected()
            consumer = consumer_cls(
                queues=[provider.queue],
                on_message=partial(self._receive, provider),
                on_decode_error=partial(self._receive_unreadable, provider),
                accept=self.accept,
            )
            consumer.qos(prefetch_count=prefetch)
            self._consumers[provider] = consumer
            if provider.delay_s:
                self._due[provider] = now + provider.delay_s
        return [consumer for provider, consumer in self._consumers.items() if provider not in self._due]

    def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **kwargs: Any) -> None:
        for provider in self._consumers.keys() - self._due.keys():
            self._offer(provider)
        super().on_consume_ready(connection, channel, consumers, **kwargs)

    def _consume_due(self) -> None:
        for provider in [provider for provider, due in self._due.items() if due <= monotonic()]:
            del self._due[provider]
            self._consumers[provider].consume()
            self._offer(provider)

    def _offer(self, provider: Any) -> None:
        """From now on deliveries come straight from the frames, where the transport can."""
        takers = getattr(self._channel.connection, "takers", None)
        if takers is not None:
            for tag in self._consumers[provider]._active_tags.values():
                takers[tag.encode()] = partial(self._take, provider)

    def _take(self, provider: Any, delivery: Delivery) -> bool:
        delivery.channel = self._channel
        if not provider.take(delivery):
            return False
        self._acks.delivered(delivery.tag)
        return True

    def _receive(self, provider: Any, message: Message) -> None:
        if not self._take(provider, Delivery.of(message)):
            self._acks.delivered(message.delivery_tag)
            self.container.spawn_managed_thread(partial(provider.receive, message), identifier="receive")

    def _receive_unreadable(self, provider: Any, message: Message, exc: Exception) -> None:
        """kombu could not even unpack it."""
        self._acks.delivered(message.delivery_tag)
        reject = partial(provider.reject, message, f"cannot be unpacked: {exc}")
        self.container.spawn_managed_thread(reject, identifier="reject")

    # --- settling ------------------------------------------------------------------------------
    def ack_message(self, message: Message) -> None:
        self.settle([message])

    def settle(self, messages: Iterable[Message | Delivery]) -> None:
        """Acknowledge messages. A dead channel settles nothing; its messages come again."""
        tags = [message_tag(each) for each in messages if each.channel is self._channel]
        self._settle(partial(self._acks.settle, tags))

    def requeue_message(self, message: Message | Delivery) -> None:
        self._refuse(message, requeue=True)

    def reject_message(self, message: Message | Delivery) -> None:
        self._refuse(message, requeue=False)

    def _refuse(self, message: Message | Delivery, requeue: bool) -> None:
        tag = message_tag(message)
        if message.channel is self._channel and self._acks.refused(tag):
            self._settle(partial(self._channel.basic_reject, tag, requeue=requeue))

    def _settle(self, settle: Callable[[], None]) -> None:
        try:
            if self._channel.connection:
                settle()
        except BROKER_ERRORS as exc:
            log.warning("messages could not be settled, they will come again: %s", exc)
        if self._stopping and not self._acks.unsettled:
            self._interrupt()

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
        beat_s = settings_of(self.container.config).heartbeat_s / 4
        with self.consumer_context() as (connection, _channel, _consumers):
            beat_at = monotonic()
            while True:
                self.on_iteration()
                if self.should_stop:
                    return
                with suppress(TimeoutError):
                    connection.drain_events(timeout=None if inproc else TICK_S)
                if beat_s and not inproc and monotonic() >= beat_at:
                    # By the clock: one that is never idle must send heartbeats too.
                    connection.heartbeat_check()
                    beat_at = monotonic() + beat_s

    def create_connection(self) -> Any:
        return connection_to(settings_of(self.container.config))

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
            self._due.pop(provider, None)
            if not self._acks.unsettled and not stopped.ready():
                stopped.send()
        if not self._consumers and not self._acks.unsettled:
            self.should_stop = True
        elif self._due:
            self._consume_due()

    # --- stopping ------------------------------------------------------------------------------
    def unregister_provider(self, provider: Any) -> None:
        """Returns when the provider's consumer is cancelled and all its messages are settled."""
        if not self._consumers_ready.ready():
            if not self._last_provider_unregistered.ready():
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
