"""Copies of logs in RabbitMQ streams: sections of many events a message, in log order, one stream for each log.

Over AMQP 0.9.1 a stream knows no publisher and drops no duplicate. So a publisher finds in the stream itself how far it
had come, and begins behind that: what it sends twice stands there twice, and readers drop it by its position. Nothing
can be missing between two sections. It must not know what the events mean.

pika blocks: one connection belongs to one process that does nothing else meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from shared.errors import AuditFailed, MalformedCommand, SetupFailed, Unavailable

PREFIX = "tokengrid.log."
EVENTS_MAX = 1_000  # of one section
BYTES_MAX = 1_000_000  # of one section, unless a single event is larger
POSITION_MAX = 2**63 - 1
PREFETCH = 200  # messages, which are up to a megabyte each
SOCKET_TIMEOUT_S = 10.0
BLOCKED_TIMEOUT_S = 30.0  # a broker that takes nothing (its disk is full) is as good as none
ANSWER_S = 15.0  # a stream that has a message gives it within this time
EMPTY_S = 2.0  # one that has none by its own (late) count says nothing for so long
QUIET_S = 0.3  # the last messages of a stream come together
POLL_S = 0.05
BACK = 64  # messages that are looked through at once for the last section
NOT_FOUND = 404
DOWN = "is down"  # a 404 as well: the stream exists, and comes back a moment after its broker

Offset = int | str | datetime
FAILURES = (AMQPError, OSError)


class Copied(msgspec.Struct, array_like=True, frozen=True):
    """One event, as its log has it. `state` is the exact stored JSON text."""

    position: int
    stream: str
    version: int
    topic: str
    state: str


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Neighbouring events of a log."""

    log: str
    events: list[Copied]


class Message(NamedTuple):
    """A message of a stream and its place there, counted from 0."""

    offset: int
    body: bytes


def queue_of(log: str) -> str:
    """The stream that a log is copied into."""
    return PREFIX + log


def encode_sections(log: str, events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, bytes]]:
    """The messages for a page of a log, each with the position it ends with: as few as the bounds of one allow."""
    section: list[Copied] = []
    size = 0
    for e in events:
        copied = Copied(e["position"], e["stream"], e["version"], e["topic"], e["state"])
        if section and (len(section) == EVENTS_MAX or size + len(copied.state) > BYTES_MAX):
            yield section[-1].position, msgspec.json.encode(Section(log, section))
            section, size = [], 0
        section.append(copied)
        size += len(copied.state)
    if section:
        yield section[-1].position, msgspec.json.encode(Section(log, section))


def decode_section(log: str, message: Message) -> list[Copied]:
    """The events of a message. Raises AuditFailed for anything but a section of this log."""
    where = f"message {message.offset} of the stream {queue_of(log)}"
    try:
        section = msgspec.json.decode(message.body, type=Section)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuditFailed(f"{where} is no section of a log: {error}") from None
    if section.log != log:
        raise AuditFailed(f"{where} is of another log: {section.log[:100]!r}")
    events = section.events
    if not events or not 0 < events[0].position <= POSITION_MAX - len(events):
        raise AuditFailed(f"{where} has no events, or positions that no log has")
    if any(e.position != position for position, e in enumerate(events, start=events[0].position)):
        raise AuditFailed(f"{where}: its positions are not in order")
    return events


@contextmanager
def connected(uri: str) -> Iterator[pika.BlockingConnection]:
    """A connection to RabbitMQ. Raises SetupFailed where no RabbitMQ is the broker, Unavailable if it cannot be
    reached or is lost on the way."""
    if not uri.startswith(("amqp://", "amqps://")):
        raise SetupFailed(
            "Streams need RabbitMQ, and the embedded services have none: start `tokengrid up`, or give its address."
        )
    try:
        parameters = pika.URLParameters(uri)
        parameters.socket_timeout = SOCKET_TIMEOUT_S
        parameters.blocked_connection_timeout = BLOCKED_TIMEOUT_S
        connection = pika.BlockingConnection(parameters)
    except (ValueError, TypeError):
        raise SetupFailed("This is no address of a broker: write amqp://user:password@host:port/vhost.") from None
    except FAILURES as error:
        raise Unavailable(f"RabbitMQ cannot be reached: {type(error).__name__}") from None
    try:
        yield connection
    except FAILURES as error:
        raise Unavailable(f"the connection to RabbitMQ was lost: {error!r:.300}") from None
    finally:
        if connection.is_open:
            connection.close()


class Publisher:
    """Writes a log's sections into its stream, each confirmed. Raises pika's errors: see `connected`."""

    def __init__(self, connection: pika.BlockingConnection, log: str) -> None:
        """Makes the stream if there is none, and finds how far it has come."""
        self.log = log
        is_new = _is_missing(connection, log)
        self._channel = connection.channel()
        self._channel.queue_declare(queue_of(log), durable=True, arguments={"x-queue-type": "stream"})
        self._channel.confirm_delivery()
        self.position = 0 if is_new else last_position(connection, log)

    def publish(self, events: Sequence[Mapping[str, Any]]) -> int:
        """Copy a page; returns the position that is confirmed then. What is in the stream already is left out; raises
        Unavailable if the broker does not confirm, and AuditFailed for a page that does not continue the log."""
        fresh = [e for e in events if e["position"] > self.position]
        for due, e in enumerate(fresh, start=self.position + 1):
            if e["position"] != due:
                raise AuditFailed(f"{self.log} goes on with {e['position']} behind {due - 1}: nothing is copied")
        for position, body in encode_sections(self.log, fresh):
            properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
            try:
                self._channel.basic_publish("", queue_of(self.log), body, properties, mandatory=True)
            except (NackError, UnroutableError) as error:
                raise Unavailable(f"RabbitMQ did not take a section of {self.log}: {type(error).__name__}") from None
            self.position = position
        return self.position


class Reader:
    """Messages of a stream, from a place on."""

    def __init__(self, connection: pika.BlockingConnection, log: str, offset: Offset = "first") -> None:
        """`offset`: `first`, `last` (the last ones that came together), a message's number, or a time.

        Raises MalformedCommand where there is no such stream.
        """
        self._connection = connection
        self._came: deque[Message] = deque()
        self._channel: BlockingChannel = connection.channel()
        self._channel.basic_qos(prefetch_count=PREFETCH)
        try:
            self.count = self._channel.queue_declare(queue_of(log), passive=True).method.message_count
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND and DOWN not in error.reply_text:
                raise MalformedCommand(f"RabbitMQ has no stream {queue_of(log)}") from None
            raise
        self._channel.basic_consume(queue_of(log), self._take, arguments={"x-stream-offset": offset})

    def next(self, wait_s: float) -> Message | None:
        """The next message; none if it does not come within so many seconds."""
        until = time.monotonic() + wait_s
        while not self._came:
            if (left := until - time.monotonic()) <= 0:
                return None
            self._connection.process_data_events(time_limit=min(left, POLL_S))
        return self._came.popleft()

    def close(self) -> None:
        """Take no more. pika's own way would reject what has come and was not looked at, upon which RabbitMQ, whose
        streams know no rejection, drops the whole connection: so the channel below it is closed."""
        if not self._channel.is_open:
            return
        self._channel._impl.close()
        until = time.monotonic() + ANSWER_S
        while not self._channel.is_closed:
            if time.monotonic() > until:
                raise Unavailable("RabbitMQ does not close a channel")
            self._connection.process_data_events(time_limit=POLL_S)

    def _take(self, channel: BlockingChannel, method: Any, properties: Any, body: bytes) -> None:
        self._came.append(Message(int((properties.headers or {})["x-stream-offset"]), body))
        channel.basic_ack(method.delivery_tag)


@contextmanager
def reading(connection: pika.BlockingConnection, log: str, offset: Offset = "first") -> Iterator[Reader]:
    """A reader, closed again."""
    reader = Reader(connection, log, offset)
    try:
        yield reader
    finally:
        reader.close()


def _is_missing(connection: pika.BlockingConnection, log: str) -> bool:
    channel = connection.channel()
    try:
        channel.queue_declare(queue_of(log), passive=True)
    except ChannelClosedByBroker as error:
        return error.reply_code == NOT_FOUND and DOWN not in error.reply_text
    channel.close()
    return False


def tail(connection: pika.BlockingConnection, log: str) -> list[Message]:
    """The messages at a stream's end, in order, at least one; none if it is empty. What is written meanwhile may be
    among them or not."""
    with reading(connection, log, "last") as reader:
        found = reader.next(ANSWER_S if reader.count else EMPTY_S)
        messages = []
        while found is not None:
            messages.append(found)
            found = reader.next(QUIET_S)
    return messages


def last_position(connection: pika.BlockingConnection, log: str) -> int:
    """The position up to which a stream has the log, 0 if it has nothing; passes over what is no section of the log."""
    messages = tail(connection, log)
    while messages:
        for message in reversed(messages):
            try:
                return decode_section(log, message)[-1].position
            except AuditFailed:
                continue
        first = messages[0].offset
        messages = _before(connection, log, first) if first else []
    return 0


def _before(connection: pika.BlockingConnection, log: str, offset: int) -> list[Message]:
    """Messages in front of one, in order."""
    found = []
    with reading(connection, log, max(offset - BACK, 0)) as reader:
        while (message := reader.next(ANSWER_S)) is not None and message.offset < offset:
            found.append(message)
    return found
