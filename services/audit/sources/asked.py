"""The two questions that a source of logs answers, and what is refused. No I/O here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from shared.errors import MalformedCommand

SERVICES = ("catalog", "quota", "routing", "billing", "audit")
POSITION_MAX = 2**63 - 1
LIMIT_MAX = 100_000
EVENT = ("position", "stream", "version", "topic", "state")


class Source(ABC):
    """Logs, and nothing else."""

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        """`head`: a position; `events`: `{"log", "head", "events": [{"position", "stream", "version", "topic",
        "state"}, …]}` behind `after`, at most `limit`. Raises MalformedCommand for any other question."""
        if service not in SERVICES or method not in ("head", "events"):
            raise MalformedCommand(f"Logs alone are read here: they do not answer {service}.{method}.")
        shard = _whole("shard", asked.get("shard", 0), 0, POSITION_MAX)
        log = self.log_of(service, shard)
        head = self.head(log)
        if method == "head":
            return head
        after = _whole("after", asked.get("after", 0), 0, POSITION_MAX)
        limit = _whole("limit", asked.get("limit", 1_000), 1, LIMIT_MAX)
        rows = self.events(log, after, limit) if after < head else []
        return {"log": log, "head": head, "events": [dict(zip(EVENT, row, strict=True)) for row in rows]}

    @abstractmethod
    def log_of(self, service: str, shard: int) -> str:
        """The name of a shard's log. Raises MalformedCommand if there is none."""

    @abstractmethod
    def head(self, log: str) -> int:
        """How long the log is."""

    @abstractmethod
    def events(self, log: str, after: int, limit: int) -> Sequence[tuple[int, str, int, str, str]]:
        """Position, stream, version, topic, state."""


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise MalformedCommand(f"{name} must be a whole number from {least} to {most}.")
    return value


def no_such_shard(service: str, shard: int) -> MalformedCommand:
    return MalformedCommand(f"There is no log of shard {shard} of {service}.")
