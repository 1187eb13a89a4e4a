"""A channel of the in-process broker: the methods kombu calls, named and meant as in AMQP 0-9-1.

`inproc` is the transport it belongs to. It must know nothing of nameko or of any service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from amqp.exceptions import NotFound, RecoverableConnectionError, ResourceLocked
from amqp.protocol import queue_declare_ok_t
from kombu.transport import base

from shared.messaging.inproc_broker import Entry, Exchange, Queue, pattern_of

if TYPE_CHECKING:
    from shared.messaging.inproc import Session


class _Subscription:
    """A consumer of a queue, with its own prefetch window."""

    __slots__ = ("callback", "channel", "no_ack", "prefetch", "queue", "tag", "unacked")

    def __init__(
        self, channel: Channel, queue: Queue, tag: str, callback: Callable[[Message], object], no_ack: bool
    ) -> None:
        self.channel, self.queue, self.tag = channel, queue, tag
        self.callback, self.no_ack = callback, no_ack
        self.prefetch, self.unacked = channel.prefetch, 0

    def may_take(self) -> bool:
        if not self.queue.entries or (self.prefetch and self.unacked >= self.prefetch):
            return False
        return not self.queue.arguments.get("x-single-active-consumer") or self.queue.consumers[0] is self

    def wake(self) -> None:
        self.channel.connection.wake()


class Message(base.Message):
    """A delivery. As over AMQP, `properties` holds what the publisher set, `content_type` among it."""

    def __init__(self, channel: Channel, entry: Entry, tag: int, consumer_tag: str | None) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            channel=channel,
            body=entry.body,
            delivery_tag=tag,
            content_type=entry.properties.get("content_type"),
            content_encoding=entry.properties.get("content_encoding"),
            properties=entry.properties,
            headers=entry.headers,
            postencode="utf-8",
            delivery_info={
                "consumer_tag": consumer_tag,
                "delivery_tag": tag,
                "redelivered": entry.redelivered,
                "exchange": entry.exchange,
                "routing_key": entry.routing_key,
            },
        )


class Channel(base.StdChannel):
    """What kombu calls; the names and parameters are those of AMQP 0-9-1."""

    def __init__(self, session: Session) -> None:
        self.connection: Any = session
        self.broker = session.broker
        self.prefetch = 0
        self.closed = False
        self._tags = count(1)
        self._subscriptions: dict[str, _Subscription] = {}
        self._unacked: dict[int, tuple[Entry, Queue, _Subscription | None]] = {}

    # --- topology ----------------------------------------------------------------------------
    def exchange_declare(self, exchange: str, type: str = "direct", passive: bool = False, **_: Any) -> None:
        if passive and exchange not in self.broker.exchanges:
            raise NotFound(f"NOT_FOUND - no exchange '{exchange}'", (40, 10), "Exchange.declare")
        self.broker.exchanges.setdefault(exchange, Exchange(type or "direct", {}))

    def exchange_delete(self, exchange: str, **_: Any) -> None:
        self.broker.exchanges.pop(exchange, None)

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **_: Any,
    ) -> queue_declare_ok_t:
        name = queue or f"amq.gen-{id(self)}-{next(self._tags)}"
        if name not in self.broker.queues and not passive:
            owner = self.connection if exclusive else None
            self.broker.queues[name] = Queue(name, dict(arguments or {}), auto_delete, owner)
        found = self._queue(name)
        return queue_declare_ok_t(name, len(found.entries), len(found.consumers))

    def _queue(self, name: str) -> Queue:
        found = self.broker.queues.get(name)
        if found is None:
            raise NotFound(f"NOT_FOUND - no queue '{name}'", (50, 10), "Queue.declare")
        if found.owner is not None and found.owner is not self.connection:
            raise ResourceLocked(f"RESOURCE_LOCKED - queue '{name}' belongs to another connection", (50, 10))
        return found

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", **_: Any) -> None:
        if exchange not in self.broker.exchanges:
            raise NotFound(f"NOT_FOUND - no exchange '{exchange}'", (50, 20), "Queue.bind")
        self._queue(queue).bindings.add((exchange, routing_key))
        kind, bindings = self.broker.exchanges[exchange]
        bindings[routing_key, queue] = pattern_of(routing_key) if kind == "topic" else None

    def queue_unbind(self, queue: str, exchange: str, routing_key: str = "", **_: Any) -> None:
        self._queue(queue).bindings.discard((exchange, routing_key))
        if exchange in self.broker.exchanges:
            self.broker.exchanges[exchange].bindings.pop((routing_key, queue), None)

    def queue_purge(self, queue: str, **_: Any) -> int:
        entries = self._queue(queue).entries
        purged = len(entries)
        entries.clear()
        return purged

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: Any) -> int:
        found = self.broker.queues.get(queue)
        if found is None or (if_unused and found.consumers) or (if_empty and found.entries):
            return 0
        deleted = len(found.entries)
        self.broker.delete(found)
        return deleted

    # --- publishing --------------------------------------------------------------------------
    def prepare_message(
        self,
        body: Any,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        named = {"priority": priority, "content_type": content_type, "content_encoding": content_encoding}
        given = {**(properties or {}), **named}
        return body, headers or {}, {name: value for name, value in given.items() if value is not None}

    def basic_publish(
        self,
        message: tuple[Any, dict[str, Any], dict[str, Any]],
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        **_: Any,
    ) -> None:
        if self.closed:
            raise RecoverableConnectionError("the channel is closed")
        body, headers, properties = message
        self.broker.put(Entry(body, headers, properties, exchange or "", routing_key or ""), mandatory)

    # --- consuming ---------------------------------------------------------------------------
    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """As in RabbitMQ: the prefetch of each consumer started on this channel from now on."""
        del prefetch_size, apply_global
        self.prefetch = prefetch_count

    def basic_consume(
        self,
        queue: str,
        no_ack: bool = False,
        callback: Callable[[Message], object] | None = None,
        consumer_tag: str = "",
        **_: Any,
    ) -> str:
        assert callback is not None, "a consumer needs a callback"
        tag = consumer_tag or f"ctag-{next(self._tags)}"
        subscription = _Subscription(self, self._queue(queue), tag, callback, no_ack)
        subscription.queue.consumers.append(subscription)
        self._subscriptions[tag] = subscription
        self.connection.wake()
        return tag

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        subscription = self._subscriptions.pop(consumer_tag, None)
        if subscription is None:
            return
        queue = subscription.queue
        queue.consumers.remove(subscription)
        if queue.auto_delete and not queue.consumers:
            self.broker.delete(queue)
        elif "x-expires" in queue.arguments:
            self.connection.expiring.add(queue.name)
        queue.wake()  # the next single active consumer may have work now

    def deliver_one(self) -> bool:
        """Hand one message to one consumer; False if there is none to hand out."""
        for tag, subscription in self._subscriptions.items():
            if subscription.may_take() and (entry := self.broker.take(subscription.queue)) is not None:
                # Take turns between consumers of one channel.
                self._subscriptions[tag] = self._subscriptions.pop(tag)
                message = self._deliver(entry, subscription.queue, subscription, subscription.no_ack)
                subscription.callback(message)
                return True
        return False

    def _deliver(self, entry: Entry, queue: Queue, subscription: _Subscription | None, no_ack: bool) -> Message:
        delivery_tag = next(self._tags)
        if not no_ack:
            self._unacked[delivery_tag] = (entry, queue, subscription)
            if subscription is not None:
                subscription.unacked += 1
        return Message(self, entry, delivery_tag, None if subscription is None else subscription.tag)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Message | None:
        found = self._queue(queue)
        entry = self.broker.take(found)
        return None if entry is None else self._deliver(entry, found, None, no_ack)

    def message_to_python(self, raw_message: Message) -> Message:
        return raw_message

    def _settle(self, delivery_tag: int, multiple: bool = False) -> Iterator[tuple[Entry, Queue]]:
        tags = [tag for tag in self._unacked if tag <= delivery_tag] if multiple else [delivery_tag]
        for tag in tags:
            if tag in self._unacked:
                entry, queue, subscription = self._unacked.pop(tag)
                if subscription is not None:
                    subscription.unacked -= 1
                    subscription.wake()
                yield entry, queue

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        for _settled in self._settle(delivery_tag, multiple):
            pass

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        for entry, queue in self._settle(delivery_tag):
            if requeue:
                queue.requeue(entry)
            else:
                self.broker.bury(queue, entry, "rejected")

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        # Latest first, each to the head of its queue: the order is the old one again.
        for entry, queue, _subscription in reversed(list(self._unacked.values())):
            queue.requeue(entry)
        self._unacked.clear()
        for tag in list(self._subscriptions):
            self.basic_cancel(tag)
        self.connection.channels.remove(self)
        self.connection = None
