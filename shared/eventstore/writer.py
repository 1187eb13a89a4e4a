"""The one path every command takes: replay or decide, append, answer. A new command is one function.

Commands that wait while a commit runs are gathered into the next one (group commit). Nothing is
answered before it is durable. State in memory is a cache of the log: after any conflict it is
dropped for what was touched and folded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shared.contracts.base import EVENTS, Command, Event, Requested
from shared.errors import Busy, Conflict, IdempotencyConflict, TokengridError
from shared.eventstore.log import EventLog, LoggedEvent, NewEvent

T = TypeVar("T")
C = TypeVar("C", bound=Command)
K = TypeVar("K", bound=Command, contravariant=True)
Answer = dict[str, Any] | TokengridError

CONFLICTS_MAX = 20  # two writers taking turns lose a few; more than this means something is wrong
CATCH_UP_PAGE = 5000


class Room(Protocol[K]):
    """What a service brings: its keys, its decisions and its memory. No I/O but through its log."""

    def prepare(self, commands: Sequence[K]) -> None:
        """Bring into memory what these commands are about."""

    def key(self, command: K) -> str | None:
        """The request key, unique for ever; None if the command's events bring keys of their own."""

    def decide(self, command: K, fingerprint: str) -> list[NewEvent]:
        """What happens, or a TokengridError and nothing. The first event gets the command's key."""

    def evolve(self, stream: str, version: int, event: Event) -> None:
        """Fold one event into memory; streams that are not in memory are ignored."""

    def forget(self, streams: set[str]) -> None:
        """Drop these streams from memory: what was folded there was not stored."""

    def answer(self, command: K, events: Sequence[LoggedEvent], replayed: bool) -> dict[str, Any]:
        """What the caller gets: made of the events alone, so that a replay gets the same."""


class _Slot(Generic[C]):
    """Commands of one caller, and what became of them."""

    __slots__ = ("abandoned", "answers", "commands", "error", "trace")

    def __init__(self, commands: Sequence[C], trace: str | None) -> None:
        self.commands = commands
        self.trace = trace
        self.answers: list[Answer] | None = None
        self.error: Exception | None = None
        self.abandoned = False


class Writer(Generic[C]):
    """Takes commands for one log. Several writers of one log are safe, one is fast."""

    def __init__(
        self,
        log: EventLog,
        room: Room[C],
        *,
        batch_max: int,
        on_commit: Callable[[int], None] = lambda _head: None,
        waiting_max: int = 65_536,
        trace: Callable[[], str | None] = lambda: None,
        position: int = 0,
    ) -> None:
        self.log = log
        self.room = room
        self.position = position
        self.on_commit = on_commit
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._trace = trace
        self._waiting: list[_Slot[C]] = []
        self._waiting_count = 0  # commands in them
        self._unforgotten: set[str] = set()
        self._lock = threading.Lock()

    def submit(self, command: C) -> dict[str, Any]:
        """One command. Raises its refusal."""
        (answer,) = self.execute([command])
        if isinstance(answer, TokengridError):
            raise answer
        return answer

    def execute(self, commands: Sequence[C]) -> list[Answer]:
        """Up to a batch of commands; one answer or refusal each, in the same order, one transaction.

        Whoever gets the lock works for all who wait: their commands ride in the same commit. Past a bound of
        waiting commands it raises Busy at once, having changed nothing.
        """
        if self._waiting and self._waiting_count + len(commands) > self._waiting_max:
            details = {"waiting": self._waiting_count, "limit": self._waiting_max}
            raise Busy(f"{self._waiting_count} commands are waiting already", details)
        slot = _Slot(commands, self._trace())
        self._waiting.append(slot)
        self._waiting_count += len(commands)
        try:
            with self._lock:
                while not self._done(slot):
                    self._work()
        except BaseException:  # this thread is being killed: nobody waits for the answers any more
            slot.abandoned = True
            if slot in self._waiting:
                self._waiting.remove(slot)
                self._waiting_count -= len(slot.commands)
            raise
        if slot.error is not None:
            raise slot.error
        assert slot.answers is not None
        return slot.answers

    def refresh(self) -> int:
        """Fold what other writers appended; the position now reached."""
        return self.ask(lambda: self.position)

    def ask(self, question: Callable[[], T]) -> T:
        """Asks the room's memory when it is as the log is: caught up, with nothing in it that is not stored."""
        with self._lock:
            self._catch_up()
            return question()

    def _work(self) -> None:
        slots: list[_Slot[C]] = []
        size = 0
        while self._waiting and (not slots or size + len(self._waiting[0].commands) <= self._batch_max):
            slots.append(self._waiting.pop(0))
            size += len(slots[-1].commands)
        self._waiting_count -= size
        try:
            self._work_for(slots)
        except BaseException:
            # We are being killed, not those who ride with us: the next of them works for the others. What
            # may have been stored all the same is a replay then.
            left = [slot for slot in slots if not self._done(slot) and not slot.abandoned]
            self._waiting[:0] = left
            self._waiting_count += sum(len(slot.commands) for slot in left)
            raise

    def _work_for(self, slots: Sequence[_Slot[C]]) -> None:
        try:
            answers = self._commit(
                [command for slot in slots for command in slot.commands],
                [slot.trace for slot in slots for _ in slot.commands],
            )
        except Exception as error:  # noqa: BLE001 - it is raised where its commands came from
            if len(slots) == 1 or isinstance(error, TokengridError):
                for slot in slots:
                    slot.error = error
                return
            for slot in slots:  # a fault in one caller's commands is not the others'
                self._work_for([slot])
            return
        for slot in slots:
            slot.answers, answers = answers[: len(slot.commands)], answers[len(slot.commands) :]

    @staticmethod
    def _done(slot: _Slot[C]) -> bool:
        return slot.answers is not None or slot.error is not None

    def _commit(self, commands: Sequence[C], traces: Sequence[str | None]) -> list[Answer]:
        keys = [self.room.key(command) for command in commands]
        prints = [fingerprint(command) for command in commands]
        for _ in range(CONFLICTS_MAX):
            self._catch_up()
            self.room.prepare(commands)
            known = {key: [event] for key, event in self.log.known([key for key in keys if key is not None]).items()}
            touched: set[str] = set()
            try:
                answers, events = self._decide(commands, keys, prints, traces, known, touched)
                if not events:
                    return self._answer(commands, answers, [])
                logged = self.log.append(events, self.position)
            except Conflict:
                self._forget(touched)
                continue
            except BaseException:
                with contextlib.suppress(TokengridError):  # what went wrong first is what is told
                    self._forget(touched)
                raise
            self.position += len(logged)
            self.on_commit(self.position)
            return self._answer(commands, answers, logged)
        raise Conflict("another writer was faster, repeatedly")

    def _decide(
        self,
        commands: Sequence[C],
        keys: Sequence[str | None],
        prints: Sequence[str],
        traces: Sequence[str | None],
        known: dict[str, list[LoggedEvent]],
        touched: set[str],
    ) -> tuple[list[Any], list[NewEvent]]:
        """Per command a refusal, a list of known events, or a slice of the new ones."""
        outcomes: list[Any] = []
        events: list[NewEvent] = []
        here: dict[str, tuple[slice, str]] = {}
        for command, key, print_, trace in zip(commands, keys, prints, traces, strict=True):
            try:
                if key is not None and key in here:
                    taken, first_print = here[key]
                    if first_print != print_:
                        raise IdempotencyConflict("this request_id was used for another command")
                    outcomes.append((taken, True))
                    continue
                if key is not None and key in known:
                    first = known[key][0].event
                    if not isinstance(first, Requested) or first.fingerprint != print_:
                        raise IdempotencyConflict("this request_id was used for another command")
                    outcomes.append((known[key], True))
                    continue
                decided = self.room.decide(command, print_)
            except TokengridError as refusal:
                outcomes.append(refusal)
                continue
            start = len(events)
            for index, new in enumerate(decided):
                events.append(new._replace(key=(new.key or key) if index == 0 else new.key, trace=trace))
                touched.add(new.stream)
                self.room.evolve(new.stream, new.version, new.event)
            outcomes.append((slice(start, len(events)), False))
            if key is not None and decided:
                here[key] = (slice(start, len(events)), print_)
        return outcomes, events

    def _answer(self, commands: Sequence[C], outcomes: list[Any], logged: list[LoggedEvent]) -> list[Answer]:
        answers: list[Answer] = []
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, TokengridError):
                answers.append(outcome)
                continue
            found, replayed = outcome
            events = logged[found] if isinstance(found, slice) else found
            answers.append(self.room.answer(command, events, replayed))
        return answers

    def _forget(self, streams: set[str]) -> None:
        """What the room cannot forget now (it may have to read its log) it must before anything else."""
        self._unforgotten |= streams
        self.room.forget(self._unforgotten)
        self._unforgotten = set()

    def _catch_up(self) -> None:
        if self._unforgotten:
            self._forget(set())
        while page := self.log.read(self.position, CATCH_UP_PAGE):
            for logged in page:
                self.room.evolve(logged.stream, logged.version, logged.event)
            self.position = page[-1].position


def fingerprint(command: Command) -> str:
    """What a command asks for, as 16 hex digits: equal for equal commands, across restarts and releases."""
    content = command.NAME.encode() + b"\n" + msgspec.json.encode(command)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def receipt(events: Sequence[LoggedEvent], replayed: bool) -> dict[str, Any]:
    """The answer to a command that made events: the first event, where it stands in the log, and whether
    it was there before."""
    first = events[0]
    if first.topic in EVENTS:
        # The stored JSON as it stands: a third of the time of decoding the event and taking it apart again.
        fields: dict[str, Any] = msgspec.json.decode(first.state)
    else:  # of an older version: as it reads today
        fields = msgspec.to_builtins(first.event)
    kind = first.topic.split(".", 1)[1].split(":", 1)[0]
    return {"kind": kind, "position": first.position, "version": first.version, "replayed": replayed, **fields}
