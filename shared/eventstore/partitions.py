"""PostgreSQL's event table in partitions by position: room at its end, and letting go of its beginning.

What a partition cannot enforce for the whole log stands beside it. `event_keys` holds every request key for good, also
of events that were dropped. A stream's versions are unique within a partition only; across partitions the position
is the fence, as whoever appends at a position has folded all before it. Of the streams in a dropped partition the last
event is carried forward, so that every stream's end stays known. Must not know where dropped events can be read.
"""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from shared.errors import Busy, Conflict

EVENTS_EACH = 1_000_000  # less than a gigabyte of debits; a question about a stream asks an index in each
ROOM_LOCK, DROP_LOCK = 0x726F6F6D, 0x64726F70  # of whoever adds, and whoever drops a partition
# A batch that is not stored yet holds the table, and asks it more: we must not wait for it for long.
ALONE_TIMEOUT_MS, ALONE_TRIES, ALONE_PAUSE_S = 100, 50, 0.1

_BOUNDS = re.compile(r"FOR VALUES FROM \('(\d+)'\) TO \('(\d+)'\)\Z", re.ASCII)

Connection = psycopg.Connection[Any]


class Partition(NamedTuple):
    """A table that holds the events at the positions `first` to `last`."""

    table: str
    first: int
    last: int


def partitions(connection: Connection) -> list[Partition]:
    """All of them, in the order of their positions; without those that somebody drops while we ask."""
    found = connection.execute(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'events'::regclass"
    ).fetchall()
    made = []
    for row in found:
        table, bounds = row.values() if isinstance(row, dict) else row
        if bounds is None:  # dropped since our snapshot, which still lists it
            continue
        match = _BOUNDS.match(bounds)
        assert match is not None, f"{table} is no partition of ours: {bounds}"
        made.append(Partition(table, int(match[1]), int(match[2]) - 1))
    return sorted(made, key=lambda each: each.first)


def make_room(connection: Connection, position: int, each: int = EVENTS_EACH) -> int:
    """See to it that there is a partition for this position; the last position for which there is one then.

    Nobody who reads or appends waits for it.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (ROOM_LOCK,))
        there = partitions(connection)
        last = there[-1].last if there else _dropped_up_to(connection)
        while last < position:
            _add(connection, last + 1, last + each)
            last += each
    return last


def _add(connection: Connection, first: int, last: int) -> None:
    name = f"events_from_{first}"
    names = {"table": sql.Identifier(name), "stream": sql.Identifier(f"{name}_stream")}
    bounds = {"first": sql.Literal(first), "end": sql.Literal(last + 1)}
    # Made apart and attached: a table that is born as a partition locks out whoever reads the log.
    for statement in (
        "CREATE TABLE {table} (LIKE events INCLUDING ALL)",
        "CREATE UNIQUE INDEX {stream} ON {table} (originator_id, originator_version)",
        "CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()",
        # For whoever appends here and not to the whole table, whose trigger is another.
        "CREATE TRIGGER events_keys AFTER INSERT ON {table} REFERENCING NEW TABLE AS appended"
        " FOR EACH STATEMENT EXECUTE FUNCTION keep_event_keys()",
        "ALTER TABLE events ATTACH PARTITION {table} FOR VALUES FROM ({first}) TO ({end})",
    ):
        connection.execute(sql.SQL(statement).format(**names, **bounds))


def _dropped_up_to(connection: Connection) -> int:
    row = connection.execute("SELECT coalesce(max(last_position), 0) AS last FROM dropped_events").fetchone()
    assert row is not None
    return int(row["last"] if isinstance(row, dict) else row[0])


def drop(connection: Connection, partition: Partition, archived: tuple[int, str]) -> None:
    """Drop the log's first partition, all or nothing, durable on return.

    `archived`: size and root of the archive that has its events; whoever reads them there can tell it from another.
    Raises Conflict when it is not the first, or the last that holds events, or a key of its events is not where keys
    are kept; Busy when somebody uses the table for too long.
    """
    table = sql.Identifier(partition.table)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (DROP_LOCK,))
        if partitions(connection)[:1] != [partition]:
            raise Conflict(f"{partition.table} is not the first partition of the log")
        if connection.execute("SELECT 1 FROM events WHERE position > %s LIMIT 1", (partition.last,)).rowcount != 1:
            raise Conflict(f"{partition.table} is the last partition with events: the log's end stays")
        if connection.execute(_KEYLESS.format(table=table)).rowcount:
            raise Conflict(f"a request key of {partition.table} is missing: its event could happen twice")
        connection.execute(_CARRY.format(table=table))
        connection.execute(
            "INSERT INTO dropped_events (first_position, last_position, archive_size, archive_root)"
            " VALUES (%s, %s, %s, %s)",
            (partition.first, partition.last, *archived),
        )
        _alone(connection)
        connection.execute(sql.SQL("ALTER TABLE events DETACH PARTITION {}").format(table))
        connection.execute(sql.SQL("DROP TABLE {}").format(table))


def _alone(connection: Connection) -> None:
    """Nobody else uses the log from here to the end of the transaction."""
    for attempt in range(1, ALONE_TRIES + 1):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = {ALONE_TIMEOUT_MS}".encode())
                connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            return
        except psycopg.errors.LockNotAvailable as error:
            if attempt == ALONE_TRIES:
                raise Busy("the event table is in use; nothing was dropped, try again") from error
            time.sleep(ALONE_PAUSE_S)


_KEYLESS = sql.SQL(
    """SELECT 1 FROM {table} AS e WHERE request_key IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM event_keys k WHERE k.request_key = e.request_key AND k.position = e.position) LIMIT 1"""
)
# Of each stream its last event there, in the place of an earlier one that was carried.
_CARRY = sql.SQL(
    """INSERT INTO carried_events (originator_id, position, originator_version, topic, state, trace)
    SELECT originator_id, position, originator_version, topic, state, trace FROM {table}
    JOIN (SELECT originator_id, max(originator_version) AS originator_version FROM {table} GROUP BY 1) AS ends
        USING (originator_id, originator_version)
    ON CONFLICT (originator_id) DO UPDATE SET position = excluded.position,
        originator_version = excluded.originator_version, topic = excluded.topic, state = excluded.state,
        trace = excluded.trace"""
)
