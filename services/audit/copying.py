"""Copies every log into its stream, in rounds. Nothing that refers to an event is in the streams before the event is.

It asks the services for their logs and writes nowhere but into the streams. Of several copiers at once none does harm:
each begins where the streams ended, and readers drop what stands twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pika

from shared.config import Settings
from shared.messaging.streams import Publisher
from shared.telemetry import gauge

# What comes later refers to what is before it: checkpoints to all logs, bills to debits, debits to prices and routes.
ORDER = ("catalog", "routing", "quota", "billing", "audit")
PAGE = 1_000


class Caller(Protocol):
    """What is needed of a client."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


def places(settings: Settings) -> list[tuple[str, str, int]]:
    """Log, service and shard of every log, in the order of copying."""
    return [(log, service, shard) for service in ORDER for shard, log in enumerate(settings.logs(service))]


class Copier:
    """All logs and their streams, over one connection."""

    def __init__(self, connection: pika.BlockingConnection, client: Caller, settings: Settings) -> None:
        self._client = client
        self._places = places(settings)
        self._page = min(PAGE, settings.page_max)
        self._publishers = {log: Publisher(connection, log) for log, _, _ in self._places}

    def copy_round(self, stopping: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Copy every log up to its head as it is now, or until `stopping`, asked before each page; how many events of
        each were copied. Raises what the client and the publishers raise; what was copied until then stays."""
        # Heads are taken in the other order: what is copied later was seen earlier.
        heads = {log: self._client.call(service, "head", shard=shard) for log, service, shard in self._places[::-1]}
        copied: dict[str, int] = {}
        for log, service, shard in self._places:
            publisher = self._publishers[log]
            before = publisher.position
            self._measure(log, heads[log])
            while publisher.position < heads[log]:
                limit = min(self._page, heads[log] - publisher.position)
                answer = self._client.call(service, "events", after=publisher.position, limit=limit, shard=shard)
                if not answer["events"] or stopping():
                    return copied  # what is behind may refer to what is missing
                publisher.publish(answer["events"])
                self._measure(log, heads[log])
            copied[log] = publisher.position - before
        return copied

    def _measure(self, log: str, head: int) -> None:
        gauge("tokengrid.streams.lag", "{event}", "Events of a log that are not in its stream yet.").set(
            max(head - self._publishers[log].position, 0), {"log": log}
        )
