"""`Intake`: from what a client sent to the writer and back. The same for every room.

A command comes by its method's name with its fields, alone or in a batch; a malformed one is refused
by itself and touches no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec

from shared.config import Settings
from shared.contracts.base import COMMANDS, Command
from shared.contracts.schema import parse
from shared.errors import LimitExceeded, MalformedCommand, TokengridError
from shared.eventstore.log import LoggedEvent
from shared.eventstore.requests import EXECUTE, Bodies, Request, fields_in
from shared.eventstore.writer import Writer

C = TypeVar("C", bound=Command)


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
    """Parses for one writer.

    `read` makes a command of a method's name and fields, or refuses; `bodies` reads whole requests of a service whose
    requests are served in bulk; `check` refuses a command that is well-formed but not for this writer.
    """

    def __init__(
        self,
        writer: Writer[C],
        read: Callable[[Any, Any], C],
        batch_max: int,
        *,
        bodies: Bodies[C] | None = None,
        check: Callable[[C], None] | None = None,
    ) -> None:
        self._writer = writer
        self._read = read
        self._batch_max = batch_max
        self._bodies = bodies
        self._check = check

    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        answer: dict[str, Any] = _plain(self._writer.submit(self._checked(self._read(name, fields))))
        return answer

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order, one transaction."""
        parsed = self._all_of(commands)
        good = [each for each in parsed if not isinstance(each, TokengridError)]
        outcomes: list[dict[str, Any]] = _plain(_outcomes(parsed, self._writer.execute(good) if good else []))
        return outcomes

    # -- requests of many callers at once -----------------------------------------------------------
    def serve(self, requests: Sequence[Request]) -> list[bytes | Exception]:
        """Requests of several callers, their commands in one commit: per request the answer as JSON, or its refusal.

        More commands than a batch may have are stored in several commits, those of one request always in one.
        """
        asked = [self._asked(request) for request in requests]
        start = size = 0
        for at, each in enumerate(asked):
            if at > start and size + len(each.commands) > self._batch_max:
                self._work(asked[start:at])
                start, size = at, 0
            size += len(each.commands)
        self._work(asked[start:])
        return [each.reply() for each in asked]

    def _work(self, asked: Sequence[_Asked[C]]) -> None:
        commands = [command for each in asked for command in each.commands]
        traces = [each.request.trace for each in asked for _ in each.commands]
        try:
            answers = self._writer.execute(commands, traces) if commands else []
        except Exception as error:  # noqa: BLE001 - it is raised where its commands came from
            if isinstance(error, TokengridError) or len(asked) == 1:
                for each in asked:
                    each.refusal = each.refusal or error
            else:  # a fault in one caller's commands is not the others'
                for each in asked:
                    self._work([each])
            return
        start = 0
        for each in asked:
            each.answers = answers[start : start + len(each.commands)]
            start += len(each.commands)

    def _asked(self, request: Request) -> _Asked[C]:
        asked: _Asked[C] = _Asked(request)
        try:
            good = self._bodies.read(request) if self._bodies is not None else None
            if good is not None and self._check is None and len(good) <= self._batch_max:
                asked.commands = good
            elif request.method == EXECUTE:
                asked.parsed = self._all_of(fields_in(request).get("commands"))
                asked.commands = [each for each in asked.parsed if not isinstance(each, TokengridError)]
            else:
                asked.commands = [self._checked(self._read(request.method, fields_in(request)))]
        except TokengridError as refusal:
            asked.refusal = refusal
        return asked

    # -- one command after the other -------------------------------------------------------------------
    def _all_of(self, commands: Any) -> list[C | TokengridError]:
        """The commands of a batch, each parsed or refused by itself."""
        if not isinstance(commands, list):
            raise MalformedCommand("commands must be a list", {"fields": {"commands": ["must be a list"]}})
        if len(commands) > self._batch_max:
            raise LimitExceeded(f"a batch has at most {self._batch_max} commands", {"limit": self._batch_max})
        parsed: list[C | TokengridError] = []
        for fields in commands:
            try:
                if not isinstance(fields, dict):
                    raise MalformedCommand("a command must be an object", {"fields": {"_": ["must be an object"]}})
                name, rest = fields.get("command", ""), {k: v for k, v in fields.items() if k != "command"}
                parsed.append(self._checked(self._read(name, rest)))
            except TokengridError as refusal:
                parsed.append(refusal)
        return parsed

    def _checked(self, command: C) -> C:
        if self._check is not None:
            self._check(command)
        return command


class _Asked(Generic[C]):
    """A request on its way: its commands that go to the writer, and what is known of its answer."""

    __slots__ = ("answers", "commands", "parsed", "refusal", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.commands: list[C] = []
        self.parsed: list[C | TokengridError] | None = None  # a batch in which something was refused by itself
        self.answers: list[Any] = []
        self.refusal: Exception | None = None

    def reply(self) -> bytes | Exception:
        """The answer as JSON, or the refusal of the whole request."""
        if self.refusal is not None:
            return self.refusal
        if self.request.method == EXECUTE:
            return _encode(_outcomes(self.commands if self.parsed is None else self.parsed, self.answers))
        (answer,) = self.answers
        return answer if isinstance(answer, TokengridError) else _encode(answer)


def _outcomes(parsed: Sequence[Any], answers: Sequence[Any]) -> list[dict[str, Any]]:
    """One `{"ok"}` or `{"error"}` per command; `answers` are of those that were not refused by themselves."""
    if len(answers) != len(parsed):
        answered = iter(answers)
        answers = [each if isinstance(each, TokengridError) else next(answered) for each in parsed]
    return [{"error": a.as_dict()} if isinstance(a, TokengridError) else {"ok": a} for a in answers]


_encode = msgspec.json.Encoder().encode


def _plain(answer: Any) -> Any:
    """As a caller in this process gets it: where a room answers in JSON, its values."""
    return msgspec.json.decode(_encode(answer))
