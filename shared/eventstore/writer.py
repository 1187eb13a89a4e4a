"""The one path every command takes: decide, append, answer. A new command is one function.

Commands that wait while a batch is at work are gathered into the next one (group commit), and that one is decided
while the last one commits (pipelining). Nothing is answered before it is durable, nor before all that it was judged
by is durable.

State in memory is a cache of the log. A hopeful writer decides on what it has, and the log's unique positions,
versions and request keys refuse it if another writer or an earlier request was there first. Whatever was
decided on something that was not stored is then dropped, folded again from the log and decided anew. So
request keys are only looked up where hope has failed, or where a command is refused: it may be a replay. A writer
that is not hopeful looks first, always: for rooms that remember more than their log says.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from shared.contracts.base import EVENTS, Command
from shared.errors import Busy, Conflict, TokengridError, Unavailable
from shared.eventstore.batch import Batch, Room, Slot, Stored
from shared.eventstore.log import EventLog, LoggedEvent

T = TypeVar("T")
C = TypeVar("C", bound=Command)
Answer = Any  # of the room, or a TokengridError

CONFLICTS_MAX = 20  # two writers taking turns lose a few; more than this means something is wrong
CATCH_UP_PAGE = 5000
FAR = 20_000  # events that nobody should wait for
EVEN_MIN = 64  # fewer commands than this are not divided: a commit costs more than they do
WARY_BATCHES = 64  # after a replay so many batches look their keys up first: those who repeat seldom repeat one


class Writer(Generic[C]):
    """Takes commands for one log. Several writers of one log are safe, one is fast.

    Two locks, taken in this order: `_deciding` guards the room's memory, `_appending` the log's end. Whoever has
    decided takes the second before giving up the first, so batches are stored in the order they were decided in.
    """

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
        forget_all: Callable[[], None] | None = None,
    ) -> None:
        self.log = log
        self.room = room
        self.position = position  # up to here the log is in the room's memory, stored and folded
        self.on_commit = on_commit
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._trace = trace
        self._waiting: list[Slot[C]] = []
        self._waiting_count = 0  # commands in them
        self._under_way = 0  # commands in batches that are not finished
        self._deciding = threading.Lock()
        self._appending = threading.Lock()
        self._decided = position  # as `position`, with what is decided and not stored yet
        self._generation = 0  # how often something decided was not stored
        self._in_doubt = False
        self._doubtful: set[str] = set()  # streams whose state in memory may never have been stored
        self._forget_all = forget_all  # of a hopeful writer's room
        self._wary = 0  # batches that look first

    def submit(self, command: C) -> dict[str, Any]:
        """One command. Raises its refusal."""
        (answer,) = self.execute([command])
        if isinstance(answer, TokengridError):
            raise answer
        return answer  # type: ignore[no-any-return] # what the room makes of it: a mapping, or one in JSON

    def execute(self, commands: Sequence[C], traces: Sequence[str | None] | None = None) -> list[Answer]:
        """Up to a batch of commands; one answer or refusal each, in the same order, one transaction.

        Whoever leads a batch works for all who wait: their commands ride in the same commit. Past a bound of
        waiting commands it raises Busy at once, having changed nothing. `traces`: of each command's caller.
        """
        if self._waiting and self._waiting_count + len(commands) > self._waiting_max:
            details = {"waiting": self._waiting_count, "limit": self._waiting_max}
            raise Busy(f"{self._waiting_count} commands are waiting already", details)
        slot = Slot(commands, [self._trace()] * len(commands) if traces is None else traces)
        self._waiting.append(slot)
        self._waiting_count += len(commands)
        try:
            while not slot.done:
                self._ride(slot)
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

    @property
    def busy(self) -> bool:
        """Whether commands are waiting or at work."""
        return self._waiting_count > 0 or self._under_way > 0

    def refresh(self) -> int:
        """Fold what other writers appended; the position now reached."""
        return self.ask(lambda: self.position)

    def ask(self, question: Callable[[], T]) -> T:
        """Asks the room's memory when it is as the log is: caught up, with nothing in it that is not stored."""
        with self._deciding, self._appending:
            self._recover()
            return question()

    # -- a batch, from its callers to the log and back ---------------------------------------------
    def _ride(self, slot: Slot[C]) -> None:
        """Lead the next batch, or wait for the one that has taken the slot along."""
        with self._deciding:
            batch = slot.batch
            if batch is None and not slot.done:
                leading = self._gather()
                self._guarded(leading, self._prepare)
            else:
                leading = None
        if leading is not None:
            self._guarded(leading, self._store)
        elif batch is not None:
            batch.finished.wait()

    def _guarded(self, batch: Batch[C], work: Callable[[Batch[C]], None]) -> None:
        """If the leader is killed or a fault is met, those who ride along do not suffer for it."""
        if batch.finished.is_set():
            return
        try:
            work(batch)
        except Exception as error:  # noqa: BLE001 - it is raised where its commands came from
            if len(batch.slots) == 1 or isinstance(error, TokengridError):
                batch.fail(error)
            else:  # a fault in one caller's commands is not the others'
                for slot in batch.slots:
                    slot.alone = True
                self._put_back(batch)
            self._finish(batch)
        except BaseException:
            # We are being killed, not those who ride with us: the next of them leads. What may have been
            # stored all the same is a replay then.
            self._put_back(batch)
            self._finish(batch)
            raise

    def _finish(self, batch: Batch[C]) -> None:
        self._under_way -= len(batch.commands)
        batch.finished.set()

    def _gather(self) -> Batch[C]:
        slots: list[Slot[C]] = []
        size = 0
        # Not all that wait at once: two batches of like size keep us and the database busy, a large and a small
        # one make each wait for the other.
        most = min(self._batch_max, max(EVEN_MIN, (self._under_way + self._waiting_count + 1) // 2))
        while self._waiting and (not slots or size + len(self._waiting[0].commands) <= most):
            if slots and (slots[0].alone or self._waiting[0].alone):
                break
            slots.append(self._waiting.pop(0))
            size += len(slots[-1].commands)
        self._waiting_count -= size
        try:
            batch = Batch(slots, self.room)
        except BaseException:
            self._waiting[:0] = slots
            self._waiting_count += size
            raise
        self._under_way += size
        for slot in slots:
            slot.batch = batch
        return batch

    def _put_back(self, batch: Batch[C]) -> None:
        left = [slot for slot in batch.slots if not slot.done and not slot.abandoned]
        for slot in left:
            slot.batch = None
        self._waiting[:0] = left
        self._waiting_count += sum(len(slot.commands) for slot in left)

    def _prepare(self, batch: Batch[C]) -> None:
        """Decide a batch and wait for its turn at the log. Called with `_deciding` held; returns with `_appending`
        held too, and then nothing can come between the batch and the log's end but another writer."""
        while True:
            self._decide(batch)
            with self._doubting(batch):
                self._appending.acquire()
                good = False
                try:
                    good = batch.generation == self._generation and self._holds_good(batch)
                    if good:
                        return
                    self._doubt(batch)
                finally:
                    if not good:
                        self._appending.release()

    def _decide(self, batch: Batch[C]) -> None:
        if batch.tries == CONFLICTS_MAX:
            raise Conflict("another writer was faster, repeatedly")
        with self._doubting(batch):
            wary = self._forget_all is None or batch.tries > 0 or self._wary > 0
            if wary or self._in_doubt:
                with self._appending:  # nothing is on its way to the log
                    self._recover()
            self.room.prepare(batch.commands)
            if wary:
                self._wary = max(0, self._wary - 1)
                batch.known = self.log.known([key for key in batch.keys if key is not None])
            batch.tries += 1
            batch.looked = wary
            batch.after, batch.generation = self._decided, self._generation
            batch.decide()
            if batch.events:
                batch.packed, batch.opened = self.log.pack(batch.events, batch.after), self.log.open()
            self._decided += len(batch.events)

    def _holds_good(self, batch: Batch[C]) -> bool:
        """Whether what the batch decided may be stored and answered. All before it is stored; both locks are held."""
        if refused := batch.refused:
            batch.recognise(self.log.known(refused))
        if batch.events:
            return True  # the log itself refuses it if another writer was faster
        return batch.looked or not self._catch_up()

    def _store(self, batch: Batch[C]) -> None:
        """Append and answer. Called with `_appending` held, which it gives up."""
        while True:
            try:
                with self._doubting(batch):
                    if batch.events:
                        opened, batch.opened = batch.opened, None
                        self.log.append(batch.events, batch.after, batch.packed, opened)
                        self.position += len(batch.events)
            except Conflict:
                self._wary = WARY_BATCHES
            else:
                break
            finally:
                self._appending.release()
            with self._deciding:
                self._prepare(batch)
        time.sleep(0)  # whoever waited for the log's end goes first: the database shall not wait for our answers
        if batch.events:
            self.on_commit(self.position)
        batch.answer()
        self._finish(batch)

    # -- doubt: what was decided on something that was not stored --------------------------------------
    @contextlib.contextmanager
    def _doubting(self, batch: Batch[C]) -> Any:
        try:
            yield
        except BaseException:
            self._doubt(batch)
            raise

    def _doubt(self, batch: Batch[C]) -> None:
        """What this batch did to memory did not happen, nor what was decided on it."""
        self._in_doubt = True
        self._generation += 1
        self._doubtful |= batch.touched
        opened, batch.opened = batch.opened, None
        self.log.abandon(opened)  # last: it waits for the database, and whoever waits can be killed

    def _recover(self) -> None:
        """Memory as the log is. Called with both locks held: nothing is on its way to the log."""
        if self._in_doubt:
            self.room.forget(self._doubtful)
            self._doubtful = set()
            self._decided = self.position
        self._catch_up()
        self._in_doubt = False

    def _catch_up(self) -> bool:
        """Fold what other writers appended; whether there was anything. Called with both locks held."""
        began = self.position
        while page := self._next_page():
            for logged in page:
                self.room.evolve(logged.stream, logged.version, logged.event)
            self.position = self._decided = page[-1].position
            if self._forget_all is not None and len(page) == CATCH_UP_PAGE:
                head = self.log.head()
                if head - self.position > FAR:  # a process that has long stood by: it is quicker to begin anew
                    self._forget_all()
                    self.position = self._decided = head
        return self.position > began

    def _next_page(self) -> list[LoggedEvent]:
        try:
            return self.log.read(self.position, CATCH_UP_PAGE)
        except Unavailable as error:
            if self._forget_all is None or "dropped" not in error.details:
                raise
            # It stood by for so long that what it has not folded is gone from the database, and it has no archive.
            self._forget_all()
            self.position = self._decided = self.log.head()
            return []


def receipt(events: Sequence[Stored], replayed: bool) -> dict[str, Any]:
    """The answer to a command that made events: the first event, where it stands in the log, and whether
    it was there before."""
    first = events[0]
    return {
        "kind": _kind(first.topic),
        "position": first.position,
        "version": first.version,
        "replayed": replayed,
        **first.fields,
    }


def receipt_json(lead: str, events: Sequence[Stored], replayed: bool) -> msgspec.Raw:
    """As `receipt`, in JSON, with the stored text as it stands. `lead`: fields that come first, each with a comma."""
    first = events[0]
    state = first.state
    if isinstance(first, LoggedEvent):
        state = (first.state if first.topic in EVENTS else msgspec.json.encode(first.event).decode()).encode()
    head = (
        f'{{{lead}"kind":"{_kind(first.topic)}","position":{first.position},"version":{first.version},'
        f'"replayed":{"true" if replayed else "false"},'
    )
    return msgspec.Raw(head.encode() + state[1:])  # type: ignore[operator]


@functools.cache
def _kind(topic: str) -> str:
    return topic.split(".", 1)[1].split(":", 1)[0]
