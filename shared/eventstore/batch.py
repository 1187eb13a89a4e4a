"""A batch: commands of one or more callers on their way through the writer, and what became of each.

It decides with the room's help and remembers how far each command came. It knows nothing of locks or commits.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shared.contracts.base import Command, Event, Requested
from shared.errors import IdempotencyConflict, TokengridError, Unavailable
from shared.eventstore.log import LoggedEvent, NewEvent

C = TypeVar("C", bound=Command)
K = TypeVar("K", bound=Command, contravariant=True)


Stored = LoggedEvent | NewEvent  # as read from the log, or as just stored there


class Room(Protocol[K]):
    """What a service brings: its keys, its decisions and its memory. No I/O but through its log."""

    def prepare(self, commands: Sequence[K]) -> None:
        """Bring into memory what these commands are about. What the batch before this one was about must stay
        there: it may not be stored yet."""

    def key(self, command: K) -> str | None:
        """The request key, unique for ever; None if the command's events bring keys of their own."""

    def decide(self, command: K, fingerprint: str) -> list[NewEvent]:
        """What happens, or a TokengridError and nothing. The first event gets the command's key."""

    def evolve(self, stream: str, version: int, event: Event) -> None:
        """Fold one event into memory; streams that are not in memory are ignored."""

    def forget(self, streams: set[str]) -> None:
        """Drop these streams from memory: what was folded there was not stored."""

    def answer(self, command: K, events: Sequence[Stored], replayed: bool) -> Any:
        """What the caller gets: made of the events alone, so that a replay gets the same."""


class Slot(Generic[C]):
    """Commands of one caller, and what became of them."""

    __slots__ = ("abandoned", "alone", "answers", "batch", "commands", "error", "traces")

    def __init__(self, commands: Sequence[C], traces: Sequence[str | None]) -> None:
        self.commands = commands
        self.traces = traces
        self.answers: list[Any] | None = None
        self.error: Exception | None = None
        self.batch: Batch[C] | None = None  # the one it rides in
        self.abandoned = False  # its caller was killed
        self.alone = False  # it shared a batch with a fault: not again

    @property
    def done(self) -> bool:
        return self.answers is not None or self.error is not None


class Known(msgspec.Struct, gc=False):
    """A command that was there before: the event it made then."""

    event: LoggedEvent


class Made(msgspec.Struct, gc=False):
    """A command that made the batch's events from `start` to before `stop`; `repeated`: an earlier one did."""

    start: int
    stop: int
    repeated: bool = False


class Batch(Generic[C]):
    """Commands that are decided together and stored in one commit."""

    def __init__(self, slots: list[Slot[C]], room: Room[C]) -> None:
        self.slots = slots
        self.room = room
        self.finished = threading.Event()
        self.commands: list[C] = [command for slot in slots for command in slot.commands]
        self.traces = [trace for slot in slots for trace in slot.traces]
        self.keys = [room.key(command) for command in self.commands]
        self.prints = [fingerprint(command) for command in self.commands]
        self.known: dict[str, LoggedEvent | Unavailable] = {}  # request keys that are used up, as far as looked up
        self.after = 0  # the position behind which its events belong
        self.generation = 0
        self.tries = 0
        self.looked = False  # it was decided on all that was stored by then
        self.outcomes: list[TokengridError | Known | Made] = []
        self.events: list[NewEvent] = []
        self.packed: Any = None  # they, as the log takes them
        self.opened: Any = None  # a way into the log, held open for them

    def decide(self) -> None:
        """Decide every command anew, in order, folding what happens into the room's memory."""
        outcomes: list[TokengridError | Known | Made] = []
        events: list[NewEvent] = []
        self.outcomes, self.events = outcomes, events
        here: dict[str | None, tuple[Made, str]] = {}
        decide, evolve, known = self.room.decide, self.room.evolve, self.known
        start = 0
        for command, key, print_, trace in zip(self.commands, self.keys, self.prints, self.traces, strict=True):
            try:
                if key in here:
                    made, first_print = here[key]
                    _refuse_other(first_print, print_)
                    outcomes.append(Made(made.start, made.stop, repeated=True))
                    continue
                if key is not None and key in known:
                    outcomes.append(_replay(known[key], print_))
                    continue
                decided = decide(command, print_)
            except TokengridError as refusal:
                outcomes.append(refusal)
                continue
            events += decided
            for new in decided:
                new.trace = trace
                evolve(new.stream, new.version, new.event)
            made = Made(start, len(events))
            outcomes.append(made)
            if decided and key is not None:
                here[key] = made, print_
                decided[0].key = key
            start = made.stop

    @property
    def touched(self) -> set[str]:
        """The streams that it changed in memory."""
        return {new.stream for new in self.events}

    @property
    def refused(self) -> list[str]:
        """Request keys of what was refused, not known to be replays."""
        return [
            key
            for key, outcome in zip(self.keys, self.outcomes, strict=True)
            if key is not None and isinstance(outcome, TokengridError) and key not in self.known
        ]

    def recognise(self, known: dict[str, LoggedEvent | Unavailable]) -> None:
        """Some of the refused turn out to have been there before: then that is their answer, not the refusal."""
        self.known.update(known)
        for index, key in enumerate(self.keys):
            if key in known and isinstance(self.outcomes[index], TokengridError):
                try:
                    self.outcomes[index] = _replay(known[key], self.prints[index])
                except TokengridError as conflict:
                    self.outcomes[index] = conflict

    def answer(self) -> None:
        """Tell every caller; the batch's events are stored."""
        answers: list[Any] = []
        events = self.events
        answer = self.room.answer
        for command, outcome in zip(self.commands, self.outcomes, strict=True):
            if isinstance(outcome, Made):
                answers.append(answer(command, events[outcome.start : outcome.stop], outcome.repeated))
            elif isinstance(outcome, Known):
                answers.append(answer(command, [outcome.event], True))
            else:
                answers.append(outcome)
        start = 0
        for slot in self.slots:
            slot.answers = answers[start : start + len(slot.commands)]
            start += len(slot.commands)

    def fail(self, error: Exception) -> None:
        """Tell every caller that it was all in vain."""
        for slot in self.slots:
            slot.error = error


def _replay(event: LoggedEvent | Unavailable, print_: str) -> Known:
    if isinstance(event, Unavailable):
        raise event
    first = event.event
    _refuse_other(first.fingerprint if isinstance(first, Requested) else "", print_)
    return Known(event)


def _refuse_other(first_print: str, print_: str) -> None:
    if first_print != print_:
        raise IdempotencyConflict("this request_id was used for another command")


_encode = msgspec.json.Encoder().encode


def fingerprint(command: Command) -> str:
    """What a command asks for, as 16 hex digits: equal for equal commands, across restarts and releases."""
    return hashlib.blake2b(command.NAME.encode() + b"\n" + _encode(command), digest_size=8).hexdigest()
