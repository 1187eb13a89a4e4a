"""`EventLog`: one service's log of events, as an application of the eventsourcing library.

Positions run 1..n without a gap. `append` either stores all events at the expected place or
raises and stores none; a lost reply to COMMIT is recognised by reading the tail back.

Events that were dropped from the database are read from the archive (`dropped.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.persistence import (
    InfrastructureFactory,
    JSONTranscoder,
    Mapper,
    PersistenceError,
    StoredEvent,
)
from eventsourcing.persistence import IntegrityError as TakenError
from eventsourcing.postgres import PostgresFactory
from eventsourcing.utils import Environment, get_topic

from shared.contracts.base import EVENTS, Event, decode_event, encode_event
from shared.errors import Conflict, Unavailable
from shared.eventstore.dropped import Archived, Past, Row
from shared.eventstore.partitions import EVENTS_EACH, Partition
from shared.eventstore.recorders import NewRow, PostgresLogRecorder, SQLiteLogRecorder

APPEND_ATTEMPTS_MAX = 5  # a database that restarts is back within seconds; longer is Unavailable
APPEND_BACKOFF_S = 0.2
STREAM_PAGE = 5000  # a long stream is folded in sections: memory stays bounded
FAILURES = (PersistenceError, OSError)

T = TypeVar("T")


class NewEvent(msgspec.Struct, gc=False):
    """An event to be stored: its stream, its version there, the request key it uses up, its caller's trace.

    Once it is stored it has its `position` and its `state`, the exact JSON text.
    """

    stream: str
    version: int
    event: Event
    key: str | None = None
    trace: str | None = None
    position: int = 0
    state: bytes = b""

    @property
    def topic(self) -> str:
        return self.event.TOPIC

    @property
    def fields(self) -> dict[str, Any]:
        """The event's fields as plain values."""
        return msgspec.json.decode(self.state)  # type: ignore[no-any-return]

    def logged(self) -> LoggedEvent:
        """Once it is stored, as it would be read from the log, but for reading its text."""
        logged = LoggedEvent(self.position, self.stream, self.version, self.topic, self.state.decode(), self.trace)
        return logged.at_hand(self.event)


class LoggedEvent(NamedTuple):
    """An event as stored. `state` is the exact JSON text."""

    position: int
    stream: str
    version: int
    topic: str
    state: str
    trace: str | None = None

    @property
    def event(self) -> Event:
        return decode_event(self.topic, self.state)

    def at_hand(self, event: Event | None = None) -> LoggedEvent:
        """The same, with its `event` kept: each time it is asked for, it would be read anew."""
        kept = _AtHand(*self)
        kept.kept = event or self.event
        return kept

    @property
    def fields(self) -> dict[str, Any]:
        """The event's fields as plain values, as they read today."""
        if self.topic in EVENTS:
            # The stored JSON as it stands: a third of the time of decoding the event and taking it apart again.
            return msgspec.json.decode(self.state)  # type: ignore[no-any-return]
        return msgspec.to_builtins(self.event)  # type: ignore[no-any-return]


class _AtHand(LoggedEvent):
    kept: Event

    @property
    def event(self) -> Event:
        return self.kept


class JsonMapper(Mapper[str]):
    """Between events and stored records: compact JSON under explicit topics."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        new: NewEvent = domain_event
        return StoredEvent(new.stream, new.version, type(new.event).TOPIC, encode_event(new.event))

    def to_domain_event(self, stored: StoredEvent) -> Any:
        event = decode_event(stored.topic, stored.state)
        return NewEvent(str(stored.originator_id), stored.originator_version, event)


def library_environment(url: str) -> dict[str, str]:
    """The eventsourcing library's configuration for an SQLAlchemy URL."""
    common = {"MAPPER_TOPIC": get_topic(JsonMapper), "ORIGINATOR_ID_TYPE": "text", "CREATE_TABLE": "n"}
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return common | {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": parsed.database or ":memory:",
            "SQLITE_LOCK_TIMEOUT": "10",
            "APPLICATION_RECORDER_TOPIC": get_topic(SQLiteLogRecorder),
        }
    return common | {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parsed.database or "",
        "POSTGRES_HOST": parsed.host or "",
        "POSTGRES_PORT": str(parsed.port or 5432),
        "POSTGRES_USER": parsed.username or "",
        "POSTGRES_PASSWORD": str(parsed.password or ""),
        "POSTGRES_CONNECT_TIMEOUT": "10",
        "POSTGRES_POOL_SIZE": "2",
        "POSTGRES_MAX_OVERFLOW": "8",
        "POSTGRES_PRE_PING": "y",
        "APPLICATION_RECORDER_TOPIC": get_topic(PostgresLogRecorder),
    }


class EventLog(Application[str]):
    """The log behind a service; its tables were made by `database.migrate`. `archived`: where dropped events are;
    `partition`: events in each of PostgreSQL's partitions that are added from now on."""

    name = "events"
    recorder: PostgresLogRecorder | SQLiteLogRecorder

    def __init__(self, url: str, archived: Archived | None = None, partition: int = EVENTS_EACH) -> None:
        self._url = sa.make_url(url)
        super().__init__(library_environment(url))
        self._past = Past(lambda: _asked(self.recorder.dropped), archived)
        if isinstance(self.recorder, PostgresLogRecorder):
            self.recorder.partition = partition

    def construct_factory(self, env: Environment) -> InfrastructureFactory:
        factory = super().construct_factory(env)
        if isinstance(factory, PostgresFactory):
            # What else the URL says (sslmode, options, …), for which the library's configuration has no names.
            factory.datastore.pool.kwargs.update(self._url.query)  # type: ignore[union-attr]
        return factory

    def construct_transcoder(self) -> JSONTranscoder:
        return JSONTranscoder()  # asked for by the library; our mapper encodes by itself

    # Every question raises Unavailable when the database cannot be reached.
    def head(self) -> int:
        """Position of the last event; 0 when there is none."""
        return _asked(self.recorder.max_notification_id) or 0

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        """At most `limit` events with positions above `after`, in order."""
        rows = _asked(self.recorder.select_rows, after, limit)
        return [_logged(row) for row in self._past.page(after, limit, rows)]

    def stream(self, stream: str, after_version: int = 0, limit: int | None = None) -> list[LoggedEvent]:
        """A stream's events with versions above `after_version`, in order, at most `limit` of them."""
        rows = _asked(self.recorder.select_stream, stream, after_version, limit)
        return [_logged(row) for row in self._past.stream(stream, after_version, limit, rows)]

    def whole_stream(self, stream: str, after: int = 0) -> Iterator[LoggedEvent]:
        """All of a stream's events behind version `after`, however many, in order; read in sections."""
        while page := self.stream(stream, after, STREAM_PAGE):
            yield from page
            if len(page) < STREAM_PAGE:
                return
            after = page[-1].version

    def last_version(self, stream: str) -> int:
        """The version of a stream's last event; 0 if it has none."""
        return _asked(self.recorder.select_last_version, stream)

    def streams(self, after: Mapping[str, int], limit: int) -> dict[str, list[LoggedEvent]]:
        """Of several streams at once the events behind a version each, in order, at most `limit` of each."""
        rows: dict[str, list[Row]] = {}
        for row in _asked(self.recorder.select_streams, after, limit) if after else ():
            rows.setdefault(row[1], []).append(row)
        return {s: [_logged(row) for row in self._past.stream(s, after[s], limit, part)] for s, part in rows.items()}

    def known(self, keys: Sequence[str]) -> dict[str, LoggedEvent | Unavailable]:
        """The events that used up these request keys; of those that were dropped and cannot be had now, why not: it
        concerns nobody else."""
        if not keys:
            return {}
        rows, dropped = _asked(self.recorder.select_known, keys)
        found: dict[str, LoggedEvent | Unavailable] = {}
        if dropped:
            try:
                rows |= zip(dropped, self._past.at(list(dropped.values())), strict=True)
            except Unavailable as reason:
                found = dict.fromkeys(dropped, reason)
        return found | {key: _logged((*row[:5], None)) for key, row in rows.items()}

    def event_of(self, key: str) -> LoggedEvent | None:
        """The event that used up a request key; None where there is none. Raises Unavailable as well where it was
        dropped and cannot be had now."""
        found = self.known([key]).get(key)
        if isinstance(found, Unavailable):
            raise found
        return found

    def droppable(self, until: int) -> list[Partition]:
        """The partitions, from the log's beginning on, that hold nothing behind position `until` and not the log's end.
        None in SQLite, which has no partitions."""
        until = min(until, self.head() - 1)
        return [each for each in _asked(self.recorder.partitions) if each.last <= until]

    def drop(self, partition: Partition, archived: tuple[int, str]) -> None:
        """Drop the first partition, whose events are in the archive of this size and root. All or nothing.

        What it takes that this is safe, only the caller can see to. Raises Conflict, Busy (see `partitions.drop`),
        Unavailable.
        """
        assert isinstance(self.recorder, PostgresLogRecorder), "only its logs have partitions"
        _asked(self.recorder.drop, partition, archived)

    def pack(self, events: Sequence[NewEvent], after: int) -> Any:
        """All that can be done beforehand to append `events` behind position `after`: they get their positions, their
        JSON, and the form in which the database takes them."""
        rows: list[NewRow] = []
        for position, new in enumerate(events, start=after + 1):
            event = new.event
            new.position, new.state = position, encode_event(event)
            rows.append((new.stream, new.version, event.TOPIC, new.state, new.key, new.trace))
        return _asked(self.recorder.pack, after + 1, rows)

    def open(self) -> Any:
        """A way into the database, held open for one append; None if there is none to be had now."""
        with contextlib.suppress(*FAILURES):
            return self.recorder.open()
        return None

    def abandon(self, opened: Any) -> None:
        """Give up a way that was held open."""
        if opened is not None:
            opened.abandon()

    def append(self, events: Sequence[NewEvent], after: int, packed: Any = None, opened: Any = None) -> None:
        """Store `events` at positions `after + 1` and on, all or none, durable on return.

        `packed`, `opened`: what `pack` and `open` have made ready for this append.

        Raises Conflict when a position, version or request key is taken (by another writer, or by an
        earlier request), Unavailable when the database cannot be reached. Nothing was stored then.
        """
        packed = self.pack(events, after) if packed is None else packed
        for attempt in range(APPEND_ATTEMPTS_MAX):
            try:
                self.recorder.append_packed(packed, opened if attempt == 0 else None)
                return
            except FAILURES as error:
                taken = isinstance(error, TakenError)
                # The reply to a COMMIT can be lost: only the log itself knows whether we are in it. At the first
                # attempt nothing can have been lost: what stands there is another's, even if it is the very same.
                if not (taken and attempt == 0) and self._is_stored(events, after):
                    return
                if taken:
                    raise Conflict("another writer or an earlier request was there first") from error
                if attempt + 1 == APPEND_ATTEMPTS_MAX:
                    raise Unavailable("the event store cannot be reached") from error
                time.sleep(APPEND_BACKOFF_S * 2**attempt)
        raise AssertionError("unreachable")

    def _is_stored(self, events: Sequence[NewEvent], after: int) -> bool:
        try:
            tail = self.read(after, len(events))
        except Unavailable:
            return False  # not that we know
        logged = [(e.position, e.stream, e.version, e.topic, e.state.decode()) for e in events]
        return [t[:5] for t in tail] == logged


def _asked(question: Callable[..., T], *args: Any) -> T:
    try:
        return question(*args)
    except FAILURES as error:
        raise Unavailable("the event store cannot be reached") from error


def _logged(row: Row) -> LoggedEvent:
    return LoggedEvent(row[0], row[1], row[2], row[3], bytes(row[4]).decode(), row[5])
