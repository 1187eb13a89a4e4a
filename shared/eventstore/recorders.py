"""Recorders on the eventsourcing library's extension point: dense positions, request keys, one transaction.

They differ from the library's own in five ways, each for a measured reason (docs/decisions/0002):
positions are assigned by the writer, so a log has no gaps and needs no table lock; request keys
and trace context travel with the events into the same rows; PostgreSQL gets one binary COPY
instead of a pipeline that can deadlock; tables are made by migrations, never here, but for PostgreSQL's partitions.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from eventsourcing.persistence import IntegrityError, Notification, OperationalError, PersistenceError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor, SQLiteDatastore
from psycopg.copy import LibpqWriter

from shared.eventstore.dropped import Dropped, Row
from shared.eventstore.partitions import EVENTS_EACH, Partition, drop, make_room, partitions

COLUMNS = "position, originator_id, originator_version, topic, state, request_key, trace"
FIELDS = "position, originator_id, originator_version, topic, state, trace"
READ = f"SELECT {FIELDS} FROM events"
# In PostgreSQL: of streams whose beginning was dropped, the last event of it as well.
AT_HAND = f"SELECT {FIELDS} FROM events_at_hand"

WHOLE = 1 << 30  # bytes; more than any batch
APPEND_LOCK = 0x61707064

NewRow = tuple[str, int, str, bytes, str | None, str | None]  # as in COLUMNS, without the position


class PostgresLogRecorder(PostgresApplicationRecorder):
    """The log in PostgreSQL."""

    def __init__(self, datastore: PostgresDatastore, **_: object) -> None:
        super().__init__(datastore, events_table_name="events")
        self.sql_create_statements.clear()
        self.partition = EVENTS_EACH
        self._room = 0  # up to here there are partitions

    def make_room(self, position: int) -> None:
        """See to it that the table has a partition for this position."""
        if position > self._room:
            with self.datastore.get_connection() as connection:
                self._room = make_room(connection, position, self.partition)

    def pack(self, first: int, rows: Sequence[NewRow]) -> bytes:
        """All that can be done beforehand to append these rows at position `first` and on."""
        self.make_room(first + len(rows) - 1)
        return packed(first, rows)

    def open(self) -> Copying:
        """A COPY that waits for its rows, so that the rows need wait for nothing but the log's end."""
        return Copying(self.datastore)

    def append_packed(self, whole: bytes, opened: Copying | None = None) -> None:
        """Append what was packed, durable on return. One attempt: the caller decides what a failure means.

        Raises IntegrityError if a position, a stream's version or a request key is taken.
        """
        (opened or self.open()).store(whole)

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:  # noqa: ARG002
        """The library's own door: append at the log's end, wherever that is."""
        room = self._room
        with self.datastore.get_connection() as connection, connection.transaction(), connection.cursor() as cursor:
            first = self._next_position(cursor)
            rows = _rows_of(stored_events)
            self._refuse_taken(cursor, rows)
            if (last := first + len(rows) - 1) > room:  # by our connection: those who wait for us may have all others
                room = make_room(connection, last, self.partition)
            with cursor.copy(COPY) as copy:
                copy.write(packed(first, rows))
        self._room = max(self._room, room)  # not before: it could have been rolled back
        return list(range(first, first + len(stored_events)))

    def _next_position(self, cursor: psycopg.Cursor[psycopg.rows.DictRow]) -> int:
        """Writers that do not know the log's end take turns from here to their commit."""
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (APPEND_LOCK,))
        row = cursor.execute("SELECT coalesce(max(position), 0) + 1 AS next FROM events").fetchone()
        assert row is not None
        return int(row["next"])

    def _refuse_taken(self, cursor: psycopg.Cursor[psycopg.rows.DictRow], rows: Sequence[NewRow]) -> None:
        """A version that stands in another partition. Whoever knows the log's end has folded it; we do not."""
        cursor.execute(
            "SELECT 1 FROM unnest(%s::text[], %s::bigint[]) AS new (stream, version) JOIN events_at_hand e"
            " ON e.originator_id = new.stream AND e.originator_version >= new.version LIMIT 1",
            ([row[0] for row in rows], [row[1] for row in rows]),
        )
        if cursor.fetchone() is not None:
            raise IntegrityError("a version of a stream is taken")

    def select_rows(self, after: int, limit: int) -> list[Row]:
        return self._rows(f"{READ} WHERE position > %s ORDER BY position LIMIT %s", (after, limit))

    def select_stream(self, stream: str, after_version: int, limit: int | None = None) -> list[Row]:
        return self._rows(
            f"{AT_HAND} WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version LIMIT %s",
            (stream, after_version, limit),
        )

    def select_streams(self, after: Mapping[str, int], limit: int) -> list[Row]:
        # Lateral: whatever the planner thinks of the table, it must ask the index once for each stream.
        return self._rows(
            f"SELECT e.* FROM unnest(%s::text[], %s::bigint[]) AS s (stream, after) CROSS JOIN LATERAL ({AT_HAND} WHERE"
            " originator_id = s.stream AND originator_version > s.after ORDER BY originator_version LIMIT %s) AS e",
            (list(after), list(after.values()), limit),
        )

    def select_last_version(self, stream: str) -> int:
        asked = "SELECT coalesce(max(originator_version), 0) FROM events_at_hand WHERE originator_id = %s"
        return int(self._rows(asked, (stream,))[0][0])

    def select_known(self, keys: Sequence[str]) -> tuple[dict[str, Row], dict[str, int]]:
        """The events of these request keys, and the positions of those that were dropped."""
        # Lateral with a limit: an index is asked once for each key, whatever the planner thinks of the table.
        rows = self._rows(
            "SELECT k.position, e.originator_id, e.originator_version, e.topic, e.state, k.request_key"
            f" FROM event_keys k LEFT JOIN LATERAL ({AT_HAND} WHERE position = k.position LIMIT 1) AS e ON true"
            " WHERE k.request_key = ANY(%s)",
            (list(keys),),
        )
        found = {str(row[5]): row for row in rows if row[1] is not None}
        return found, {str(row[5]): row[0] for row in rows if row[1] is None}

    def partitions(self) -> list[Partition]:
        """The table's partitions, in order."""
        with self.datastore.get_connection() as connection:
            return partitions(connection)

    def drop(self, partition: Partition, archived: tuple[int, str]) -> None:
        """As `partitions.drop`."""
        with self.datastore.get_connection() as connection:
            drop(connection, partition, archived)

    def dropped(self) -> Dropped | None:
        """How far events were dropped, and into which archive."""
        rows: list[Any] = self._rows(
            "SELECT last_position, archive_size, archive_root FROM dropped_events ORDER BY 1 DESC LIMIT 1",
            (),
        )
        return Dropped(*rows[0]) if rows else None

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = (start or 1) - 1 if inclusive_of_start else (start or 0)
        rows = self._rows(
            f"{READ} WHERE position > %s AND position <= coalesce(%s::bigint, position)"
            " AND (cardinality(%s::text[]) = 0 OR topic = ANY(%s::text[])) ORDER BY position LIMIT %s",
            (after, stop, list(topics), list(topics), limit),
        )
        return [_notification(row) for row in rows]

    def max_notification_id(self) -> int | None:
        with self.datastore.get_connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT max(position) AS head FROM events")
            row = cursor.fetchone()
            return None if row is None else row["head"]

    def _rows(self, statement: str, params: Sequence[Any]) -> list[Row]:
        with (
            self.datastore.get_connection() as connection,
            connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor,
        ):
            # Planned anew each time: a prepared statement keeps the plan of its first calls, and one made for a log
            # of a few rows reads the whole log for every lookup until the next ANALYZE.
            cursor.execute(statement.encode(), params, prepare=False)
            return cursor.fetchall()


class Copying:
    """One COPY into the log, begun and not ended. One statement is a transaction of its own: no BEGIN, no COMMIT."""

    def __init__(self, datastore: PostgresDatastore) -> None:
        with contextlib.ExitStack() as opening:
            connection = opening.enter_context(datastore.get_connection())
            cursor = opening.enter_context(connection.cursor())
            # The kernel gets all of it before we wait: the database works on one batch while we decide the next.
            writer = LibpqWriter(cursor, flush_threshold=WHOLE)
            self._copy = opening.enter_context(cursor.copy(COPY, writer=writer))
            self._open = opening.pop_all()

    def store(self, whole: bytes) -> None:
        """End it with these rows."""
        with self._open:
            self._copy.write(whole)

    def abandon(self) -> None:
        """End it with nothing."""
        with contextlib.suppress(_Abandoned, PersistenceError), self._open:
            raise _Abandoned


class _Abandoned(Exception):
    """A COPY is ended, its rows will not come."""


class SQLiteLogRecorder(SQLiteApplicationRecorder):
    """The log in an SQLite file."""

    def __init__(self, datastore: SQLiteDatastore, **_: object) -> None:
        super().__init__(datastore, "events")

    def construct_create_table_statements(self) -> list[str]:
        return []

    def pack(self, first: int, rows: Sequence[NewRow]) -> list[tuple[Any, ...]]:
        """As in PostgreSQL."""
        return [(position, *row) for position, row in enumerate(rows, start=first)]

    def open(self) -> None:
        """Nothing to prepare: a file is not far away."""

    def append_packed(self, whole: list[tuple[Any, ...]], opened: None = None) -> None:  # noqa: ARG002
        """As in PostgreSQL."""
        with self.datastore.transaction(commit=True) as c:
            self._insert_rows(c, whole)

    def _insert_rows(self, c: SQLiteCursor, whole: list[tuple[Any, ...]]) -> None:
        c.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", whole)

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:  # noqa: ARG002
        first = (self._max_notification_id(c) or 0) + 1
        self._insert_rows(c, self.pack(first, _rows_of(stored_events)))
        return list(range(first, first + len(stored_events)))

    def select_rows(self, after: int, limit: int) -> list[Row]:
        return self._rows(f"{READ} WHERE position > ? ORDER BY position LIMIT ?", (after, limit))

    def select_stream(self, stream: str, after_version: int, limit: int | None = None) -> list[Row]:
        return self._rows(
            f"{READ} WHERE originator_id = ? AND originator_version > ? ORDER BY originator_version LIMIT ?",
            (stream, after_version, -1 if limit is None else limit),
        )

    def select_streams(self, after: Mapping[str, int], limit: int) -> list[Row]:
        return [row for stream, version in after.items() for row in self.select_stream(stream, version, limit)]

    def select_last_version(self, stream: str) -> int:
        asked = "SELECT coalesce(max(originator_version), 0) FROM events WHERE originator_id = ?"
        return int(self._rows(asked, (stream,))[0][0])

    def select_known(self, keys: Sequence[str]) -> tuple[dict[str, Row], dict[str, int]]:
        found: dict[str, Row] = {}
        for start in range(0, len(keys), 500):  # SQLite bounds the number of parameters
            part = list(keys[start : start + 500])
            marks = ",".join("?" * len(part))
            rows = self._rows(f"{READ.replace(' trace', ' request_key')} WHERE request_key IN ({marks})", part)
            found.update({str(row[5]): row for row in rows})
        return found, {}

    def partitions(self) -> list[Partition]:
        """A file has none: nothing can be dropped."""
        return []

    def dropped(self) -> None:
        """As in PostgreSQL."""

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = (start or 1) - 1 if inclusive_of_start else (start or 0)
        marks = ",".join("?" * len(topics))
        rows = self._rows(
            f"{READ} WHERE position > ? AND position <= coalesce(?, position)"
            + (f" AND topic IN ({marks})" if topics else "")
            + " ORDER BY position LIMIT ?",
            (after, stop, *topics, limit),
        )
        return [_notification(row) for row in rows]

    def _rows(self, statement: str, params: Sequence[Any]) -> list[Row]:
        with self.datastore.transaction(commit=False) as c:
            c.execute(statement, params)
            return [tuple(row) for row in c.fetchall()]


def _rows_of(stored_events: Sequence[StoredEvent]) -> list[NewRow]:
    return [(str(e.originator_id), e.originator_version, e.topic, e.state, None, None) for e in stored_events]


# --- PostgreSQL's binary COPY format: a header, then per row the number of columns and each with its length ----------
COPY = f"COPY events ({COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_begin = struct.Struct("!hiqi").pack  # 7 columns, the position, the length of the stream's name
_version = struct.Struct("!iqi").pack  # the version, the length of the topic
_length = struct.Struct("!i").pack


def packed(first: int, rows: Sequence[NewRow]) -> bytes:
    """All rows in one piece. What a driver would ask about each value we know beforehand."""
    parts = [_HEADER]
    add = parts.append
    for position, (stream, version, topic, state, key, trace) in enumerate(rows, start=first):
        name, kind = stream.encode(), topic.encode()
        add(_begin(7, 8, position, len(name)))
        add(name)
        add(_version(8, version, len(kind)))
        add(kind)
        add(_length(len(state)))
        add(state)
        for text in (key, trace):
            if text is None:
                add(_NULL)
            else:
                raw = text.encode()
                add(_length(len(raw)))
                add(raw)
    add(_TRAILER)
    return b"".join(parts)


def _notification(row: Row) -> Notification:
    return Notification(id=row[0], originator_id=row[1], originator_version=row[2], topic=row[3], state=bytes(row[4]))


__all__ = ["IntegrityError", "OperationalError", "PostgresLogRecorder", "SQLiteLogRecorder"]
