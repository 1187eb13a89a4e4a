"""`Intake`: from what a client sent to the writer and back. The same for every room.

A command comes by its method's name with its fields, alone or in a batch; a malformed one is refused
by itself and touches no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from shared.config import Settings
from shared.contracts.base import COMMANDS, Command
from shared.contracts.schema import parse
from shared.errors import LimitExceeded, MalformedCommand, TokengridError
from shared.eventstore.log import LoggedEvent
from shared.eventstore.writer import Writer

C = TypeVar("C", bound=Command)


class Request(NamedTuple):
    """A request as it came: the RPC method's name, the whole JSON body `{"args": [], "kwargs": {…}}`, its trace."""

    method: str
    body: bytes
    trace: str | None = None


def request_fields(body: bytes) -> dict[str, Any]:
    """The keyword arguments in a request's body. Raises MalformedCommand."""
    try:
        fields = msgspec.json.decode(body)["kwargs"]
    except (ValueError, LookupError, TypeError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise MalformedCommand("no readable JSON with kwargs", {"fields": {"_": ["no readable JSON with kwargs"]}})
    return fields


def named(service: str, name: Any, fields: Any) -> Command:
    """The command of `service` that the RPC method `name` takes. Raises MalformedCommand."""
    struct = COMMANDS[service].get(name) if isinstance(name, str) else None
    if struct is None:
        raise MalformedCommand(f"no command {str(name)[:64]!r}", {"fields": {"command": ["unknown command"]}})
    return parse(struct, fields)


def occurred(at: datetime | None, now: datetime, settings: Settings) -> datetime:
    """When a command happened: as stated, or now. Raises MalformedCommand beyond the bounds of the settings."""
    if at is None:
        return now
    oldest = now - timedelta(seconds=settings.backdate_max_s)
    newest = now + timedelta(seconds=settings.future_max_s)
    if not oldest <= at <= newest:
        raise MalformedCommand(
            "occurred_at is out of bounds",
            {"fields": {"occurred_at": [f"must be from {oldest.isoformat()} to {newest.isoformat()}"]}},
        )
    return at.astimezone(UTC)


def shown(logged: LoggedEvent) -> dict[str, Any]:
    """An event as a question about the past gets it: where it stands, its kind, its fields."""
    event = logged.event
    return {
        "position": logged.position,
        "version": logged.version,
        "kind": type(event).__name__,
        **msgspec.to_builtins(event),
    }


class Intake(Generic[C]):
    """Parses for one writer. `read` makes a command of a method's name and fields, or refuses."""

    def __init__(self, writer: Writer[C], read: Callable[[Any, Any], C], batch_max: int) -> None:
        self._writer = writer
        self._read = read
        self._batch_max = batch_max

    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        return self._writer.submit(self._read(name, fields))

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order, one transaction."""
        if not isinstance(commands, list):
            raise MalformedCommand("commands must be a list", {"fields": {"commands": ["must be a list"]}})
        if len(commands) > self._batch_max:
            raise LimitExceeded(f"a batch has at most {self._batch_max} commands", {"limit": self._batch_max})
        answers: list[dict[str, Any] | TokengridError | None] = []
        parsed: list[C] = []
        for fields in commands:
            try:
                parsed.append(self._tagged(fields))
                answers.append(None)
            except TokengridError as refusal:
                answers.append(refusal)
        results = iter(self._writer.execute(parsed) if parsed else [])
        final = [next(results) if answer is None else answer for answer in answers]
        return [{"error": a.as_dict()} if isinstance(a, TokengridError) else {"ok": a} for a in final]

    def serve(self, requests: Sequence[Request]) -> list[bytes | Exception]:
        """Requests of several callers, their commands in one commit: per request the answer as JSON, or its refusal."""
        answers: list[bytes | Exception] = []
        for request in requests:
            try:
                fields = request_fields(request.body)
                if request.method == "execute":
                    answer: Any = self.execute(fields.get("commands"))
                else:
                    answer = self.submit(request.method, fields)
                answers.append(msgspec.json.encode(answer))
            except TokengridError as refusal:
                answers.append(refusal)
        return answers

    def _tagged(self, fields: Any) -> C:
        if not isinstance(fields, dict):
            raise MalformedCommand("a command must be an object", {"fields": {"_": ["must be an object"]}})
        return self._read(fields.get("command", ""), {k: v for k, v in fields.items() if k != "command"})
