"""A link to the broker: one connection that publishes, and consumes one queue of its own.

Clients and services use it for everything but the request queue: requests, replies and prompts. A green
thread reads; any green thread may publish. A lost connection comes back by itself with a new queue; what
was awaited on the old one is reported by `on_lost`. Nothing is confirmed by the broker: a caller's answer
is the confirmation, its deadline covers the loss, and its request key makes the retry safe. It must know
nothing of RPC.
"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import eventlet
from amqp import spec
from amqp.exceptions import AMQPError
from eventlet import hubs
from eventlet.event import Event
from kombu.connection import Connection
from kombu.exceptions import ChannelError, OperationalError
from kombu.message import Message

from shared.config import Settings
from shared.errors import SetupFailed, Unavailable
from shared.messaging import codec, inproc
from shared.messaging.transport import Transport, json_header, publish_frames

inproc.register()

log = logging.getLogger(__name__)

RPC_EXCHANGE = "nameko-rpc"
PROMPT_EXCHANGE = "tokengrid-prompts"
# Whoever connects first declares both, so that publishing never meets a missing exchange.
_EXCHANGES = ((RPC_EXCHANGE, True), (PROMPT_EXCHANGE, False))

AMQP_SCHEMES = ("amqp:", "amqps:", "pyamqp:")
CONNECT_TIMEOUT_S = 5.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.1, 2.0
CLOSE_TIMEOUT_S = 2.0

# When the connection has gone under them, py-amqp raises AttributeError here and there, and eventlet EOFError.
BROKER_ERRORS = (OSError, AMQPError, OperationalError, AttributeError, EOFError)

Handler = Callable[[Message], None]


class Outgoing(NamedTuple):
    """A message for the RPC exchange, ready to be sent: an answer, or, with the content `header` that it came with,
    a request that is passed on (its body in UTF-8)."""

    routing_key: bytes
    body: bytes
    correlation_id: bytes = b""
    header: bytes = b""
    mandatory: bool = False


def connection_to(settings: Settings, **transport_options: Any) -> Connection:
    """kombu's connection (not yet open) to the broker of these settings."""
    connection = Connection(  # type: ignore[no-untyped-call]
        settings.broker,
        heartbeat=settings.heartbeat_s,
        connect_timeout=CONNECT_TIMEOUT_S,
        transport_options=transport_options,
    )
    if settings.broker.startswith(AMQP_SCHEMES):
        connection.transport_cls = Transport
    return connection


def redacted(uri: str) -> str:
    """A broker's URI without its password."""
    return str(Connection(uri).as_uri())  # type: ignore[no-untyped-call]


class Link:
    """One connection, publishing at once and consuming `queue` for every subscription."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        on_return: Callable[[str, dict[str, Any]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`on_return(routing_key, properties)`: a mandatory message had no queue. `on_lost()`: the connection and
        the queue are gone, with whatever was on its way."""
        if not eventlet.patcher.is_monkey_patched("socket"):
            raise SetupFailed("This process is not cooperative: import shared.messaging.patch before anything else.")
        self.settings, self.name = settings, name
        self.queue = f"tokengrid.{name}.{uuid.uuid4()}"
        self._on_return, self._on_lost = on_return, on_lost
        self._handlers: dict[tuple[str, str], list[Handler]] = {}
        self._connection: Any = None  # kombu's
        self._raw: Any = None  # py-amqp's connection or the in-process session
        self._channel: Any = None
        self._ready = Event()
        self._thread: Any = None
        self._closed = False
        self.trouble = "not connected yet"

    def subscribe(self, exchange: str, routing_key: str, handler: Handler) -> None:
        """Hand messages to `handler` (it must not block). To be called before `start`."""
        self._handlers.setdefault((exchange, routing_key), []).append(handler)

    def start(self) -> None:
        if self._thread is None:
            self._thread = eventlet.spawn(self._run)

    def close(self) -> None:
        """Close the connection; its queue goes with it."""
        if self._closed:
            return
        self._closed = True
        self.trouble = "closed"
        if self._thread is not None:
            self._thread.kill()
        self._drop(polite=True)
        self._wake()

    # --- the reading green thread --------------------------------------------------------------
    def _run(self) -> None:
        pause_s = RECONNECT_MIN_S
        while not self._closed:
            try:
                self._open()
                pause_s = RECONNECT_MIN_S
                self._read()
            except BROKER_ERRORS as exc:
                if self._closed:
                    return
                if self._channel is not None or pause_s == RECONNECT_MIN_S:
                    log.warning("%s: no connection to the broker (%s); reconnecting", self.name, exc)
                self.trouble = f"{type(exc).__name__}: {exc}"
                self._drop()
                eventlet.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, RECONNECT_MAX_S)

    def _open(self) -> None:
        options = {} if self.settings.embedded else {"on_blocked": self._blocked, "on_unblocked": self._wake}
        connection = self._connection = connection_to(self.settings, **options)
        connection.connect()  # type: ignore[no-untyped-call]
        # Resolved once: the property of the same name would reconnect by itself, behind our back.
        self._raw = connection.connection
        channel = connection.transport.create_channel(self._raw)
        for exchange, durable in _EXCHANGES:
            channel.exchange_declare(exchange=exchange, type="topic", durable=durable, auto_delete=False)
        if self._handlers:
            channel.queue_declare(queue=self.queue, durable=False, exclusive=True, auto_delete=True)
            for exchange, routing_key in self._handlers:
                channel.queue_bind(queue=self.queue, exchange=exchange, routing_key=routing_key)
            channel.basic_consume(queue=self.queue, no_ack=True, callback=self._receive)
        if not self.settings.embedded:
            channel.events["basic_return"].add(self._returned)
        self._channel = channel
        self._wake()

    def _read(self) -> None:
        heartbeat_s = self.settings.heartbeat_s
        tick_s = heartbeat_s / 4 if heartbeat_s and not self.settings.embedded else None
        beat_at = monotonic()
        while not self._closed:
            if tick_s is not None and monotonic() >= beat_at:
                # By the clock, not only when idle: a link that only ever receives must send heartbeats too.
                self._connection.transport.heartbeat_check(self._raw, rate=2)
                beat_at = monotonic() + tick_s
            try:
                self._raw.drain_events(timeout=tick_s)
            except TimeoutError:
                continue

    def _receive(self, raw_message: Any) -> None:
        message = self._channel.message_to_python(raw_message)
        info = message.delivery_info
        for handler in self._handlers.get((info["exchange"], info["routing_key"]), ()):
            try:
                handler(message)
            except Exception:  # one bad message must not take the connection with it
                log.exception("%s: a message could not be handled", self.name)

    def _returned(self, _exc: Exception, _exchange: str, routing_key: str, message: Any) -> None:
        if self._on_return is not None:
            self._on_return(routing_key, message.properties)

    def _blocked(self, reason: str) -> None:
        self.trouble = f"the broker refuses publishers for now ({reason})"
        log.warning("%s: %s", self.name, self.trouble)
        self._ready = Event()

    def _wake(self) -> None:
        if not self._ready.ready():
            self._ready.send()

    def _drop(self, polite: bool = False) -> None:
        """Forget the connection; `polite` says goodbye to the broker, for which it must still be working."""
        raw = self._raw
        lost = self._channel is not None
        self._connection = self._raw = self._channel = None
        if self._ready.ready():
            self._ready = Event()
        if raw is not None:
            try:
                with eventlet.Timeout(CLOSE_TIMEOUT_S, False):
                    if polite:
                        raw.close()
                _wake_waiters(raw)
                raw.collect()
            except BROKER_ERRORS:
                log.debug("%s: the connection was gone already", self.name)
        if lost and self._on_lost is not None:
            self._on_lost()

    # --- publishing ----------------------------------------------------------------------------
    def publish(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        *,
        headers: dict[str, Any] | None = None,
        mandatory: bool = False,
        wait_s: float = 0.0,
        **properties: Any,
    ) -> None:
        """Send a transient message, waiting up to `wait_s` for a connection.

        Raises Unavailable if there is none, ChannelError (NO_ROUTE) for a mandatory message without a queue
        if the broker is in this process; over AMQP `on_return` tells it a little later.
        """

        def send(channel: Any) -> None:
            message = channel.prepare_message(
                body,
                content_type=codec.CONTENT_TYPE,
                content_encoding=codec.CONTENT_ENCODING,
                headers=headers,
                properties={"delivery_mode": 1, **properties},
            )
            self._send(channel, message, exchange, routing_key, mandatory)

        self._connected(send, wait_s)

    def publish_all(self, messages: Sequence[Outgoing], *, wait_s: float = 0.0) -> None:
        """Send messages to the RPC exchange, all in one write, waiting up to `wait_s` for a connection.

        Raises Unavailable if there is none. A message that goes nowhere is reported by `on_return` if it is
        mandatory, dropped if it is not.
        """
        send = self._send_each if self.settings.embedded else self._send_frames
        self._connected(partial(send, messages), wait_s)

    def _connected(self, send: Callable[[Any], None], wait_s: float) -> None:
        """Have `send` write to a channel that works. Raises Unavailable when there is none within `wait_s`."""
        until = monotonic() + wait_s
        while True:
            if not self._ready.ready():
                self._ready.wait(max(0.0, until - monotonic()))
            channel = self._channel
            if channel is None or not self._ready.ready():
                if self._closed or monotonic() >= until:
                    raise Unavailable(
                        f"The broker at {redacted(self.settings.broker)} cannot be reached: {self.trouble}"
                    )
                continue
            try:
                send(channel)
            except ChannelError as exc:
                if "NO_ROUTE" in str(exc):
                    raise
                self._failed(channel, exc)
            except BROKER_ERRORS as exc:
                self._failed(channel, exc)
            else:
                return

    def _send(self, channel: Any, message: Any, exchange: str, routing_key: str, mandatory: bool) -> None:
        if self.settings.embedded:
            channel.basic_publish(message, exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        else:
            # Not channel.basic_publish: that one reads from the socket first, which another green thread is doing.
            arguments = (0, exchange, routing_key, mandatory, False)
            channel.send_method(spec.Basic.Publish, "Bssbb", arguments, message)

    def _send_frames(self, messages: Sequence[Outgoing], channel: Any) -> None:
        raw, exchange = self._raw, RPC_EXCHANGE.encode()
        number, room = channel.channel_id, raw.frame_max
        frames = [
            publish_frames(
                number,
                room,
                exchange,
                each.routing_key,
                each.header or json_header(len(each.body), each.correlation_id),
                each.body,
                each.mandatory,
            )
            for each in messages
        ]
        raw.transport.write(b"".join(frames))

    def _send_each(self, messages: Sequence[Outgoing], channel: Any) -> None:
        for each in messages:
            message = channel.prepare_message(
                each.body,
                content_type=codec.CONTENT_TYPE,
                content_encoding=codec.CONTENT_ENCODING,
                properties={"delivery_mode": 1, "correlation_id": each.correlation_id.decode()},
            )
            channel.basic_publish(message, exchange=RPC_EXCHANGE, routing_key=each.routing_key.decode())

    def _failed(self, channel: Any, exc: Exception) -> None:
        """A write failed, perhaps in mid-frame: the connection is of no use any more."""
        self.trouble = f"{type(exc).__name__}: {exc}"
        if channel is self._channel:
            log.warning("%s: lost the broker while publishing (%s); reconnecting", self.name, exc)
            self._drop()  # the reading green thread is woken by an error, and reconnects


def _wake_waiters(raw: Any) -> None:
    """Whoever waits for this socket gets an error before it is closed. Else they would go on waiting for a file
    number that the next pipe or socket may get, and eventlet would refuse that one its own reader."""
    # Not by the property of that name: it would connect one that is closed already.
    sock = getattr(getattr(raw, "_transport", None), "sock", None)
    if sock is not None and sock.fileno() >= 0:
        hubs.notify_opened(sock.fileno())
