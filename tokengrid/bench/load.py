"""A lean load generator for nameko RPC over AMQP, the same for every service that is measured.

It makes and takes apart AMQP's frames itself, because client libraries need more time for a call than a good
service: what is measured shall be the service. One connection, some requests in flight, every answer kept and
looked at later. Knows nothing of what is called.
"""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import msgspec

EXCHANGE = b"nameko-rpc"
ANSWER_BOUND_S = 30.0
METHOD, HEADER, BODY, END = 1, 2, 3, b"\xce"
BASIC, PUBLISH, DELIVER = 60, 40, 60
# The properties we send: content type, content encoding, delivery mode (transient), correlation id, reply to.
PROPERTIES = 1 << 15 | 1 << 14 | 1 << 12 | 1 << 10 | 1 << 9
READ = 1 << 18


class Load:
    """Calls of one service, over one connection. `answers`: those of the last run, as they came."""

    def __init__(self, uri: str, service: str) -> None:
        parts = urlsplit(uri)
        self._service = service
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port}", parts.username, parts.password, virtual_host=parts.path[1:]
        )
        self._connection.connect()
        channel = self._connection.channel()
        self._reply_to = uuid.uuid4().hex
        channel.queue_declare(self._reply_to, exclusive=True, auto_delete=True)
        channel.queue_bind(self._reply_to, EXCHANGE.decode(), self._reply_to)
        channel.basic_consume(self._reply_to, no_ack=True)
        # From here on the socket is ours; the library gets it back to close it.
        self._channel = int(channel.channel_id)
        self._body_max = int(self._connection.frame_max) - 8
        self._socket = self._connection.transport.sock
        self._unread = b""
        self._correlation_id = b""
        self._body: list[bytes] = []
        self._missing = 0  # bytes of the body
        self._sent: dict[bytes, float] = {}
        self._latencies: list[float] = []
        self._number = 0
        self.answers: list[bytes] = []

    @staticmethod
    def bodies(arguments: Sequence[dict[str, Any]]) -> list[bytes]:
        """Requests, ready to be sent."""
        return [msgspec.json.encode({"args": [], "kwargs": kwargs}) for kwargs in arguments]

    def run(self, method: str, bodies: Sequence[bytes], in_flight: int) -> list[float]:
        """Send them all, at most `in_flight` unanswered; the latencies in seconds, sorted, when all are answered."""
        self._latencies, self.answers = [], []
        sent = 0
        while sent < len(bodies) or self._sent:
            free = bodies[sent : sent + in_flight - len(self._sent)]
            if free:
                self._send(method, free, time.perf_counter())
                sent += len(free)
            self._read(ANSWER_BOUND_S)
        return sorted(self._latencies)

    def paced(self, method: str, bodies: Sequence[bytes], rate: float) -> list[float]:
        """Send at `rate` per second whatever the answers do; a latency counts from when its request was due."""
        self._latencies, self.answers = [], []
        began = time.perf_counter()
        for number, body in enumerate(bodies):
            due = began + number / rate
            while (wait_s := due - time.perf_counter()) > 0:
                try:
                    self._read(max(wait_s, 0.0001))
                except TimeoutError:
                    break
            self._send(method, [body], due)
        while self._sent:
            self._read(ANSWER_BOUND_S)
        return sorted(self._latencies)

    def results(self) -> list[Any]:
        """What the last run's calls gave, in no order. Raises AssertionError for an answer that is an error."""
        found = []
        for body in self.answers:
            answer = msgspec.json.decode(body)
            assert not answer["error"], answer
            found.append(answer["result"])
        return found

    def _send(self, method: str, bodies: Sequence[bytes], due: float) -> None:
        key = f"{self._service}.{method}".encode()
        publish = self._frame(METHOD, struct.pack("!HHH", BASIC, PUBLISH, 0) + _short(EXCHANGE) + _short(key) + b"\0")
        frames = []
        for body in bodies:
            self._number += 1
            correlation_id = b"%d" % self._number
            header = struct.pack("!HHQH", BASIC, 0, len(body), PROPERTIES)
            texts = _short(b"application/json") + _short(b"utf-8") + b"\1"
            frames += [
                publish,
                self._frame(HEADER, header + texts + _short(correlation_id) + _short(self._reply_to.encode())),
            ]
            frames += [
                self._frame(BODY, body[start : start + self._body_max]) for start in range(0, len(body), self._body_max)
            ]
            self._sent[correlation_id] = due
        self._socket.settimeout(ANSWER_BOUND_S)
        self._socket.sendall(b"".join(frames))

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return struct.pack("!BHI", kind, self._channel, len(payload)) + payload + END

    def _read(self, bound_s: float) -> None:
        """Take what has come; raises TimeoutError when nothing comes within the bound."""
        self._socket.settimeout(bound_s)
        came = self._socket.recv(READ)
        assert came, "the broker has closed the connection"
        data, at = self._unread + came, 0
        while len(data) - at >= 8:
            kind, _, size = struct.unpack_from("!BHI", data, at)
            if len(data) - at < size + 8:
                break
            self._take(kind, data[at + 7 : at + 7 + size])
            at += size + 8
        self._unread = data[at:]

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == METHOD:
            assert struct.unpack_from("!HH", payload) == (BASIC, DELIVER), payload
        elif kind == HEADER:
            self._missing = int.from_bytes(payload[4:12], "big")
            self._correlation_id = _correlation_id(payload)
        elif kind == BODY:
            self._body.append(payload)
            self._missing -= len(payload)
            if not self._missing:
                self._latencies.append(time.perf_counter() - self._sent.pop(self._correlation_id))
                self.answers.append(b"".join(self._body))
                self._body.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.settimeout(ANSWER_BOUND_S)
        self._connection.close()


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _correlation_id(header: bytes) -> bytes:
    """Of the properties in a content header, which come in a fixed order, those that are there."""
    (flags,) = struct.unpack_from("!H", header, 12)
    at = 14
    for bit in (15, 14):  # content type, content encoding
        if flags >> bit & 1:
            at += 1 + header[at]
    if flags >> 13 & 1:  # headers
        at += 4 + int.from_bytes(header[at : at + 4], "big")
    at += (flags >> 12 & 1) + (flags >> 11 & 1)  # delivery mode, priority
    assert flags >> 10 & 1, "an answer without a correlation id"
    return header[at + 1 : at + 1 + header[at]]
