"""A lean load generator for nameko RPC over AMQP, the same for every service that is measured.

One connection, some requests in flight, every answer looked at. Knows nothing of what is called.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import msgspec

EXCHANGE = "nameko-rpc"
ANSWER_BOUND_S = 30.0


class Load:
    """Calls of one service, over one connection. Raises AssertionError for an answer that is an error."""

    def __init__(self, uri: str, service: str) -> None:
        parts = urlsplit(uri)
        self._service = service
        self._connection = amqp.Connection(
            f"{parts.hostname}:{parts.port}", parts.username, parts.password, virtual_host=parts.path[1:]
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._reply_to = uuid.uuid4().hex
        self._channel.queue_declare(self._reply_to, exclusive=True, auto_delete=True)
        self._channel.queue_bind(self._reply_to, EXCHANGE, self._reply_to)
        self._channel.basic_consume(self._reply_to, no_ack=True, callback=self._answered)
        self._sent: dict[str, float] = {}
        self._latencies: list[float] = []
        self._number = 0
        self.last: Any = None

    @staticmethod
    def bodies(arguments: Sequence[dict[str, Any]]) -> list[bytes]:
        """Requests, ready to be sent."""
        return [msgspec.json.encode({"args": [], "kwargs": kwargs}) for kwargs in arguments]

    def run(self, method: str, bodies: Sequence[bytes], in_flight: int) -> list[float]:
        """Send them all, at most `in_flight` unanswered; the latencies in seconds, sorted, when all are answered."""
        self._latencies = []
        for body in bodies:
            while len(self._sent) >= in_flight:
                self._connection.drain_events(timeout=ANSWER_BOUND_S)
            self._send(method, body, time.perf_counter())
        return self._rest()

    def paced(self, method: str, bodies: Sequence[bytes], rate: float) -> list[float]:
        """Send at `rate` per second whatever the answers do; a latency counts from when its request was due."""
        self._latencies = []
        began = time.perf_counter()
        for number, body in enumerate(bodies):
            due = began + number / rate
            while (wait_s := due - time.perf_counter()) > 0:
                try:
                    self._connection.drain_events(timeout=max(wait_s, 0.0005))
                except TimeoutError:
                    break
            self._send(method, body, due)
        return self._rest()

    def _rest(self) -> list[float]:
        while self._sent:
            self._connection.drain_events(timeout=ANSWER_BOUND_S)
        return sorted(self._latencies)

    def _send(self, method: str, body: bytes, at: float) -> None:
        self._number += 1
        correlation_id = str(self._number)
        message = amqp.Message(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=1,
            reply_to=self._reply_to,
            correlation_id=correlation_id,
        )
        self._sent[correlation_id] = at
        self._channel.basic_publish(message, EXCHANGE, f"{self._service}.{method}")

    def _answered(self, message: Any) -> None:
        self._latencies.append(time.perf_counter() - self._sent.pop(message.properties["correlation_id"]))
        answer = msgspec.json.decode(message.body)
        assert not answer["error"], answer
        self.last = answer["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
