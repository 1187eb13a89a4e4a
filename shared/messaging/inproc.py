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

import socket
from time import monotonic
from typing import Any

from amqp.exceptions import RecoverableConnectionError
from eventlet.event import Event
from kombu.transport import TRANSPORT_ALIASES, base

from shared.messaging.inproc_broker import Broker
from shared.messaging.inproc_channel import Channel


class Session:
    """What kombu takes for the connection: its channels, and the wait for their messages."""

    def __init__(self, client: Any, broker: Broker) -> None:
        self.client, self.broker = client, broker
        self.channels: list[Channel] = []
        self.expiring: set[str] = set()
        self.closed = False
        self._waiting: Event | None = None
        self._interrupted = False
        _sessions.add(self)

    def wake(self) -> None:
        """There may be a message to deliver."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.send()

    def interrupt(self) -> None:
        """End the present wait for messages at once (or the next one), as if its time were over."""
        self._interrupted = True
        self.wake()

    def drain_events(self, timeout: float | None = None) -> None:
        """Deliver one message. Raises socket.timeout after `timeout` seconds (0: at once) without one."""
        until = None if timeout is None else monotonic() + timeout
        while not self.closed:
            if any(channel.deliver_one() for channel in self.channels):
                return
            left = None if until is None else until - monotonic()
            if self._interrupted or (left is not None and left <= 0):
                self._interrupted = False
                raise TimeoutError
            self._waiting = Event()
            self._waiting.wait(left)
        raise RecoverableConnectionError("the connection is closed")

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for channel in list(self.channels):
            channel.close()
        for queue in list(self.broker.queues.values()):
            if queue.owner is self or (queue.name in self.expiring and not queue.consumers):
                self.broker.delete(queue)
        _sessions.discard(self)
        self.wake()

    collect = close  # what kombu calls on a connection it has given up


_brokers: dict[str, Broker] = {}
_sessions: set[Session] = set()


def broker_of(virtual_host: str) -> Broker:
    """The state of a virtual host, made at its first use. For tests and diagnosis."""
    return _brokers.setdefault(virtual_host.strip("/"), Broker())


class Transport(base.Transport):
    """kombu's entry to this module."""

    client: Any

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
    for session in list(_sessions):
        session.close()
    _brokers.clear()
