"""The in-process broker: a kombu transport `inproc://` with the parts of RabbitMQ that services rely on.

It is event-driven (nothing polls) and keeps RabbitMQ's promises: topic, direct and fanout exchanges,
`mandatory`, a prefetch per consumer, requeueing to the head of the very queue, per-message expiration,
dead-letter exchanges, single active consumers, auto-delete and exclusive queues. Each virtual host
(`inproc://localhost/name`) is a broker of its own. One process, nothing durable.

Two things are simpler than in RabbitMQ: redeclaring a queue keeps its first arguments (as if they were
set by a policy), and a queue with `x-expires` goes with the last connection that consumed it, because in
one process a consumer that is gone does not come back. It must know nothing of nameko or of any service.
"""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from time import monotonic, time
from typing import Any, NamedTuple

from amqp.exceptions import NotFound, RecoverableConnectionError, ResourceLocked
from amqp.protocol import queue_declare_ok_t
from eventlet.event import Event
from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, base


class _Entry:
    """A message in a queue."""

    __slots__ = ("body", "exchange", "expires_at", "headers", "properties", "redelivered", "routing_key")

    def __init__(self, body: Any, headers: dict[str, Any], properties: dict[str, Any], exchange: str, key: str) -> None:
        self.body, self.headers, self.properties = body, headers, properties
        self.exchange, self.routing_key, self.redelivered = exchange, key, False
        expiration_ms = properties.get("expiration")
        self.expires_at = None if expiration_ms is None else monotonic() + int(expiration_ms) / 1000


class _Subscription:
    """A consumer of a queue, with its own prefetch window."""

    __slots__ = ("callback", "channel", "no_ack", "prefetch", "queue", "tag", "unacked")

    def __init__(
        self, channel: Channel, queue: _Queue, tag: str, callback: Callable[[Message], object], no_ack: bool
    ) -> None:
        self.channel, self.queue, self.tag = channel, queue, tag
        self.callback, self.no_ack = callback, no_ack
        self.prefetch, self.unacked = channel.prefetch, 0

    def may_take(self) -> bool:
        if not self.queue.entries or (self.prefetch and self.unacked >= self.prefetch):
            return False
        return not self.queue.arguments.get("x-single-active-consumer") or self.queue.subscriptions[0] is self


class _Queue:
    __slots__ = ("arguments", "auto_delete", "bindings", "entries", "name", "owner", "subscriptions")

    def __init__(self, name: str, arguments: dict[str, Any], auto_delete: bool, owner: Session | None) -> None:
        self.name, self.arguments, self.auto_delete = name, arguments, auto_delete
        self.owner = owner  # the only connection that may use it, if exclusive
        self.entries: deque[_Entry] = deque()
        self.subscriptions: list[_Subscription] = []
        self.bindings: set[tuple[str, str]] = set()

    def wake(self) -> None:
        for subscription in self.subscriptions:
            subscription.channel.connection.wake()


class _Exchange(NamedTuple):
    kind: str
    bindings: dict[tuple[str, str], re.Pattern[str] | None]  # (routing key, queue) -> pattern, if the key has wildcards


def _pattern(key: str) -> re.Pattern[str] | None:
    """`*` is one word, `#` any number of words. None: the key is plain."""
    words = key.split(".")
    if not {"*", "#"} & set(words):
        return None
    parts = "".join({"*": r"\.[^.]+", "#": r"(?:\.[^.]+)*"}.get(word, r"\." + re.escape(word)) for word in words)
    return re.compile(parts)


class Broker:
    """The state of one virtual host."""

    def __init__(self) -> None:
        self.exchanges: dict[str, _Exchange] = {}
        self.queues: dict[str, _Queue] = {}
        self.sessions: set[Session] = set()

    def route(self, exchange: str, key: str) -> list[_Queue]:
        if not exchange:
            return [self.queues[key]] if key in self.queues else []
        if exchange not in self.exchanges:
            raise NotFound(f"NOT_FOUND - no exchange '{exchange}'", (60, 40), "Basic.publish")
        kind, bindings = self.exchanges[exchange]
        dotted = "." + key
        names = {
            queue
            for (bound, queue), pattern in bindings.items()
            if bound == key or kind == "fanout" or (kind == "topic" and pattern and pattern.fullmatch(dotted))
        }
        return [self.queues[name] for name in names]

    def put(self, entry: _Entry, mandatory: bool = False) -> None:
        queues = self.route(entry.exchange, entry.routing_key)
        if mandatory and not queues:
            raise ChannelError(f"NO_ROUTE: no queue for {entry.routing_key!r}", (60, 50), "Basic.return", 312)
        for queue in queues:
            copy = _Entry(entry.body, entry.headers, dict(entry.properties), entry.exchange, entry.routing_key)
            queue.entries.append(copy)
            queue.wake()

    def take(self, queue: _Queue) -> _Entry | None:
        """The queue's next message that has not expired."""
        while queue.entries:
            entry = queue.entries.popleft()
            if entry.expires_at is None or entry.expires_at > monotonic():
                return entry
            self.bury(queue, entry, "expired")
        return None

    def bury(self, queue: _Queue, entry: _Entry, reason: str) -> None:
        """To the dead-letter exchange if the queue has one; otherwise dropped."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None or (exchange and exchange not in self.exchanges):
            return
        death = {
            "queue": queue.name,
            "reason": reason,
            "count": 1,
            "exchange": entry.exchange,
            "routing-keys": [entry.routing_key],
            "time": int(time()),
        }
        headers = {**entry.headers, "x-death": [death, *entry.headers.get("x-death", [])]}
        # It must not expire again where it is kept for people to look at.
        properties = {name: value for name, value in entry.properties.items() if name != "expiration"}
        key = queue.arguments.get("x-dead-letter-routing-key", entry.routing_key)
        self.put(_Entry(entry.body, headers, properties, exchange, key))

    def delete(self, queue: _Queue) -> None:
        if self.queues.get(queue.name) is queue:
            del self.queues[queue.name]
            for exchange, key in queue.bindings:
                if exchange in self.exchanges:
                    self.exchanges[exchange].bindings.pop((key, queue.name), None)
        queue.entries.clear()


class Message(base.Message):  # type: ignore[misc]
    """A delivery. As over AMQP, `properties` holds what the publisher set, `content_type` among it."""

    def __init__(self, channel: Channel, entry: _Entry, tag: int, consumer_tag: str | None) -> None:
        super().__init__(
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


class Channel(base.StdChannel):  # type: ignore[misc]
    """What kombu calls; the names and parameters are those of AMQP 0-9-1."""

    def __init__(self, session: Session) -> None:
        self.connection: Any = session
        self.broker = session.broker
        self.prefetch = 0
        self.closed = False
        self._tags = count(1)
        self._subscriptions: dict[str, _Subscription] = {}
        self._unacked: dict[int, tuple[_Entry, _Queue, _Subscription | None]] = {}

    # --- topology ----------------------------------------------------------------------------
    def exchange_declare(self, exchange: str, type: str = "direct", passive: bool = False, **_: Any) -> None:
        if passive and exchange not in self.broker.exchanges:
            raise NotFound(f"NOT_FOUND - no exchange '{exchange}'", (40, 10), "Exchange.declare")
        self.broker.exchanges.setdefault(exchange, _Exchange(type or "direct", {}))

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
            self.broker.queues[name] = _Queue(name, dict(arguments or {}), auto_delete, owner)
        found = self._queue(name)
        return queue_declare_ok_t(name, len(found.entries), len(found.subscriptions))

    def _queue(self, name: str) -> _Queue:
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
        bindings[routing_key, queue] = _pattern(routing_key) if kind == "topic" else None

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
        if found is None or (if_unused and found.subscriptions) or (if_empty and found.entries):
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
        self.broker.put(_Entry(body, headers, properties, exchange or "", routing_key or ""), mandatory)

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
        subscription.queue.subscriptions.append(subscription)
        self._subscriptions[tag] = subscription
        self.connection.wake()
        return tag

    def basic_cancel(self, consumer_tag: str, **_: Any) -> None:
        subscription = self._subscriptions.pop(consumer_tag, None)
        if subscription is None:
            return
        queue = subscription.queue
        queue.subscriptions.remove(subscription)
        if queue.auto_delete and not queue.subscriptions:
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

    def _deliver(self, entry: _Entry, queue: _Queue, subscription: _Subscription | None, no_ack: bool) -> Message:
        delivery_tag = next(self._tags)
        if not no_ack:
            self._unacked[delivery_tag] = (entry, queue, subscription)
            if subscription is not None:
                subscription.unacked += 1
        return Message(self, entry, delivery_tag, subscription and subscription.tag)

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Message | None:
        found = self._queue(queue)
        entry = self.broker.take(found)
        return None if entry is None else self._deliver(entry, found, None, no_ack)

    def message_to_python(self, raw_message: Message) -> Message:
        return raw_message

    def _settle(self, delivery_tag: int, multiple: bool = False) -> Iterator[tuple[_Entry, _Queue]]:
        tags = [tag for tag in self._unacked if tag <= delivery_tag] if multiple else [delivery_tag]
        for tag in tags:
            if tag in self._unacked:
                entry, queue, subscription = self._unacked.pop(tag)
                if subscription is not None:
                    subscription.unacked -= 1
                    subscription.channel.connection.wake()
                yield entry, queue

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        for _settled in self._settle(delivery_tag, multiple):
            pass

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        for entry, queue in self._settle(delivery_tag):
            if requeue:
                self._requeue(entry, queue)
            else:
                self.broker.bury(queue, entry, "rejected")

    @staticmethod
    def _requeue(entry: _Entry, queue: _Queue) -> None:
        entry.redelivered = True
        queue.entries.appendleft(entry)
        queue.wake()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        # Latest first, each to the head of its queue: the order is the old one again.
        for entry, queue, _subscription in reversed(list(self._unacked.values())):
            self._requeue(entry, queue)
        self._unacked.clear()
        for tag in list(self._subscriptions):
            self.basic_cancel(tag)
        self.connection.channels.remove(self)
        self.connection = None


class Session:
    """What kombu takes for the connection: its channels, and the wait for their messages."""

    def __init__(self, client: Any, broker: Broker) -> None:
        self.client, self.broker = client, broker
        self.channels: list[Channel] = []
        self.expiring: set[str] = set()
        self.closed = False
        self._waiting: Event | None = None
        broker.sessions.add(self)

    def wake(self) -> None:
        """There may be a message to deliver."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.send(False)

    def interrupt(self) -> None:
        """End the present wait for messages at once, as if its time were over."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.send(True)

    def drain_events(self, timeout: float | None = None) -> None:
        """Deliver one message. Raises socket.timeout after `timeout` seconds (0: at once) without one."""
        until = None if timeout is None else monotonic() + timeout
        while not self.closed:
            if any(channel.deliver_one() for channel in self.channels):
                return
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._waiting = waiting = Event()
            interrupted = waiting.wait(left)
            if interrupted or not waiting.ready():
                self._waiting = None
                raise TimeoutError
        raise RecoverableConnectionError("the connection is closed")

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for channel in list(self.channels):
            channel.close()
        for queue in list(self.broker.queues.values()):
            if queue.owner is self or (queue.name in self.expiring and not queue.subscriptions):
                self.broker.delete(queue)
        self.broker.sessions.discard(self)
        self.wake()

    collect = close  # what kombu calls on a connection it has given up


_brokers: dict[str, Broker] = {}


def broker_of(virtual_host: str) -> Broker:
    """The state of a virtual host, made at its first use. For tests and diagnosis."""
    return _brokers.setdefault(virtual_host.strip("/"), Broker())


class Transport(base.Transport):  # type: ignore[misc]
    """kombu's entry to this module."""

    driver_type = driver_name = "inproc"
    # Nothing is worth a retry within one process; it also lets NO_ROUTE reach nameko unwrapped.
    recoverable_connection_errors: tuple[type[Exception], ...] = ()
    recoverable_channel_errors: tuple[type[Exception], ...] = ()

    def driver_version(self) -> str:
        return "1"

    def establish_connection(self) -> Session:
        return Session(self.client, broker_of(self.client.virtual_host or "/"))

    def create_channel(self, connection: Session) -> Channel:
        channel = Channel(connection)
        connection.channels.append(channel)
        return channel

    def drain_events(self, connection: Session, timeout: float | None = None, **_: Any) -> None:
        connection.drain_events(timeout)

    def verify_connection(self, connection: Session) -> bool:
        return not connection.closed

    def close_connection(self, connection: Session) -> None:
        connection.close()


assert socket.timeout is TimeoutError  # what kombu's and nameko's loops expect of drain_events


def register() -> None:
    """Make `inproc://` known to kombu. Repeating it does no harm."""
    TRANSPORT_ALIASES["inproc"] = f"{__name__}:Transport"


def reset() -> None:
    """Close every connection and forget every virtual host. For tests."""
    for broker in _brokers.values():
        for session in list(broker.sessions):
            session.close()
    _brokers.clear()
