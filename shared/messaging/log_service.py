"""`LogService`: what every service with an event log offers to its followers.

A room's service has its application as `app`, the logs of whose shards are served; a service without one
provides `log` itself, with `.read(after, limit) -> list[dict]` and `.head() -> int`.
It must know nothing of what the events mean.
"""

from __future__ import annotations

from typing import Any

from nameko.dependency_providers import Config

from shared.contracts.answers import POSITION_MAX
from shared.errors import MalformedCommand
from shared.messaging.rpc import rpc
from shared.messaging.wire import settings_of

STREAM_NAME_MAX = 500


def _bound(name: str, value: object, least: int, most: int, complaints: dict[str, list[str]]) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        complaints[name] = ["Not a valid integer."]
    elif not least <= value <= most:
        complaints[name] = [f"Must be from {least} to {most}."]


class _Pages:
    """An application's event log in the form that travels."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def read(self, after: int, limit: int) -> list[dict[str, Any]]:
        return [event._asdict() for event in self._log.read(after, limit)]

    def stream(self, stream: str, after: int, limit: int) -> list[dict[str, Any]]:
        return [event._asdict() for event in self._log.stream(stream, after, limit)]

    def head(self) -> int:
        head: int = self._log.head()
        return head


class LogService:
    """Mixin of a nameko service class: its log, in pages."""

    name: str
    app: Any
    config = Config()

    @property
    def log(self) -> Any:
        return _Pages(self.app.shards[0].log)

    def log_of(self, shard: int) -> Any:
        """The log of a shard that there is."""
        return _Pages(self.app.shards[shard].log) if shard else self.log

    @rpc
    def events(self, after: int = 0, limit: int = 1000, shard: int = 0) -> dict[str, Any]:
        """The events behind position `after` of a shard's log, at most `limit` of them, and that log's name and head:
        `{"log": str, "head": int, "events": [{"position", "stream", "version", "topic", "state", "trace"}, …]}`.

        `state` is the exact stored JSON text. Raises MalformedCommand for bounds that are no bounds.
        """
        name = self._section(after, limit, shard)
        log = self.log_of(shard)
        # The head is read first: an answer promises nothing that came after its events. Nor is it behind them.
        head = log.head()
        events = log.read(after, limit)
        if events:
            head = max(head, events[-1]["position"])
        return {"log": name, "head": head, "events": events}

    @rpc
    def stream(self, stream: str, after: int = 0, limit: int = 1000, shard: int = 0) -> dict[str, Any]:
        """As `events`, of one stream of the shard's log, behind the version `after`: `{"log": str, "events": […]}`;
        none for a stream that there is not."""
        if not isinstance(stream, str) or not 0 < len(stream) <= STREAM_NAME_MAX or not stream.isprintable():
            raise MalformedCommand("This is no stream's name.", {"fields": {"stream": ["Not a stream's name."]}})
        name = self._section(after, limit, shard)
        return {"log": name, "events": self.log_of(shard).stream(stream, after, limit)}

    def _section(self, after: object, limit: object, shard: int) -> str:
        """The name of a shard's log. Raises MalformedCommand for bounds that are no bounds."""
        logs = settings_of(self.config).logs(self.name)
        complaints: dict[str, list[str]] = {}
        _bound("after", after, 0, POSITION_MAX, complaints)
        _bound("limit", limit, 1, settings_of(self.config).page_max, complaints)
        _bound("shard", shard, 0, len(logs) - 1, complaints)
        if complaints:
            raise MalformedCommand("This is no section of a log.", {"fields": complaints})
        return logs[shard]

    @rpc
    def head(self, shard: int = 0) -> int:
        """The position of the latest event of a shard's log; 0 while it is empty. Raises MalformedCommand."""
        complaints: dict[str, list[str]] = {}
        _bound("shard", shard, 0, settings_of(self.config).shards(self.name) - 1, complaints)
        if complaints:
            raise MalformedCommand("There is no such shard.", {"fields": complaints})
        head: int = self.log_of(shard).head()
        return head

    @rpc
    def ping(self) -> dict[str, str]:
        """`{"service": name}`: the service answers."""
        return {"service": self.name}
