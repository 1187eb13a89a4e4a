"""The state of the in-process broker: exchanges, queues, and what becomes of messages in them.

`inproc` is the kombu transport over it. It must know nothing of kombu, channels or acknowledgements.
"""

from __future__ import annotations

import re
from collections import deque
from time import monotonic, time
from typing import Any, NamedTuple, Protocol

from amqp.exceptions import ChannelError, NotFound


class Consumer(Protocol):
    """Whoever takes messages from a queue."""

    def wake(self) -> None:
        """There may be a message to take."""


class Entry:
    """A message in a queue."""

    __slots__ = ("body", "exchange", "expires_at", "headers", "properties", "redelivered", "routing_key")

    def __init__(self, body: Any, headers: dict[str, Any], properties: dict[str, Any], exchange: str, key: str) -> None:
        self.body, self.headers, self.properties = body, headers, properties
        self.exchange, self.routing_key, self.redelivered = exchange, key, False
        expiration_ms = properties.get("expiration")
        self.expires_at = None if expiration_ms is None else monotonic() + int(expiration_ms) / 1000


class Queue:
    """A queue and its consumers, in the order of their arrival."""

    __slots__ = ("arguments", "auto_delete", "bindings", "consumers", "entries", "name", "owner")

    def __init__(self, name: str, arguments: dict[str, Any], auto_delete: bool, owner: object | None) -> None:
        """`owner`: the only connection that may use it, if it is exclusive."""
        self.name, self.arguments, self.auto_delete, self.owner = name, arguments, auto_delete, owner
        self.entries: deque[Entry] = deque()
        self.consumers: list[Consumer] = []
        self.bindings: set[tuple[str, str]] = set()

    def wake(self) -> None:
        for consumer in self.consumers:
            consumer.wake()

    def requeue(self, entry: Entry) -> None:
        """Back to the head of this very queue."""
        entry.redelivered = True
        self.entries.appendleft(entry)
        self.wake()


class Exchange(NamedTuple):
    kind: str
    bindings: dict[tuple[str, str], re.Pattern[str] | None]  # (routing key, queue) -> pattern, if the key has wildcards


def pattern_of(key: str) -> re.Pattern[str] | None:
    """The pattern of a topic binding, to be matched against "." + routing key: `*` is one word, `#` any
    number of words. None: the key is plain."""
    words = key.split(".")
    if not {"*", "#"} & set(words):
        return None
    return re.compile(
        "".join({"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}.get(word, r"\." + re.escape(word)) for word in words)
    )


class Broker:
    """The state of one virtual host."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}

    def route(self, exchange: str, key: str) -> list[Queue]:
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

    def put(self, entry: Entry, mandatory: bool = False) -> None:
        queues = self.route(entry.exchange, entry.routing_key)
        if mandatory and not queues:
            raise ChannelError(f"NO_ROUTE: no queue for {entry.routing_key!r}", (60, 50), "Basic.return", 312)
        for queue in queues:
            copy = Entry(entry.body, entry.headers, dict(entry.properties), entry.exchange, entry.routing_key)
            queue.entries.append(copy)
            queue.wake()

    def take(self, queue: Queue) -> Entry | None:
        """The queue's next message that has not expired."""
        while queue.entries:
            entry = queue.entries.popleft()
            if entry.expires_at is None or entry.expires_at > monotonic():
                return entry
            self.bury(queue, entry, "expired")
        return None

    def bury(self, queue: Queue, entry: Entry, reason: str) -> None:
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
        self.put(Entry(entry.body, headers, properties, exchange, key))

    def delete(self, queue: Queue) -> None:
        if self.queues.get(queue.name) is queue:
            del self.queues[queue.name]
            for exchange, key in queue.bindings:
                if exchange in self.exchanges:
                    self.exchanges[exchange].bindings.pop((key, queue.name), None)
        queue.entries.clear()
