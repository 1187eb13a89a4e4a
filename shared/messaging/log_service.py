"""`LogService`: what every service with an event log offers to its followers.

A room's service has its application as `app`, whose event log is served; a service without one provides
`log` itself, with `.read(after, limit) -> list[dict]` and `.head() -> int`.
It must know nothing of what the events mean.
"""

from __future__ import annotations

from typing import Any

from nameko.dependency_providers import Config

from shared.contracts.answers import POSITION_MAX
from shared.errors import MalformedCommand
from shared.messaging.rpc import rpc
from shared.messaging.wire import settings_of


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
        return _Pages(self.app.log)

    @rpc
    def events(self, after: int = 0, limit: int = 1000) -> dict[str, Any]:
        """The events behind position `after`, at most `limit` of them, and the log's head:
        `{"head": int, "events": [{"position", "stream", "version", "topic", "state", "trace"}, …]}`.

        `state` is the exact stored JSON text. Raises MalformedCommand for bounds that are no bounds.
        """
        complaints: dict[str, list[str]] = {}
        _bound("after", after, 0, POSITION_MAX, complaints)
        _bound("limit", limit, 1, settings_of(self.config).page_max, complaints)
        if complaints:
            raise MalformedCommand("This is no section of a log.", {"fields": complaints})
        # The head is read last: it is never behind the events in the same answer.
        events = self.log.read(after, limit)
        return {"head": self.log.head(), "events": events}

    @rpc
    def head(self) -> int:
        """The position of the log's latest event; 0 while it is empty."""
        head: int = self.log.head()
        return head

    @rpc
    def ping(self) -> dict[str, str]:
        """`{"service": name}`: the service answers."""
        return {"service": self.name}
