"""The tables that every service's database has, as alembic operations for its first migration.

Positions are 1..n without a gap: the writer assigns them, the primary key fences a second writer.
UPDATE and DELETE are refused by the database itself, on both databases.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

EVENTS = "events"
POSITIONS = "followed"


def create_event_table() -> None:
    """The log: one row an event, never changed, never deleted."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in _POSTGRESQL:
            op.execute(statement)
    else:
        for statement in _SQLITE:
            op.execute(statement)


def partition_event_table() -> None:
    """On PostgreSQL, make the log a table in partitions by position, whose request keys stand beside it for good.

    What is there becomes the first partition; SQLite's log is a file, and stays as it is.
    """
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")  # nobody appends meanwhile
    last = op.get_bind().execute(sa.text("SELECT coalesce(max(position), 0) FROM events")).scalar_one()
    for statement in _PARTITIONED:
        op.execute(statement)
    if last:
        op.execute(f"ALTER TABLE events ATTACH PARTITION events_from_1 FOR VALUES FROM (1) TO ({int(last) + 1})")
    else:
        op.execute("DROP TABLE events_from_1")


def create_position_table() -> None:
    """How far each projection of this database has followed its upstream."""
    op.create_table(
        POSITIONS,
        sa.Column("projection", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )


_READABLE = """CREATE VIEW readable_events AS
    SELECT position, originator_id AS stream, originator_version AS version, topic,
           convert_from(state, 'UTF8')::jsonb AS state, request_key FROM events"""

_POSTGRESQL = (
    """CREATE TABLE events (
        position bigint PRIMARY KEY CHECK (position > 0),
        originator_id text NOT NULL,
        originator_version bigint NOT NULL,
        topic text NOT NULL,
        state bytea NOT NULL,
        request_key text,
        trace text)""",
    "CREATE UNIQUE INDEX events_stream ON events (originator_id, originator_version)",
    # Absent keys are most of some logs; an index that leaves them out stays small.
    "CREATE UNIQUE INDEX events_request_key ON events (request_key) WHERE request_key IS NOT NULL",
    """CREATE FUNCTION events_are_immutable() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
            RAISE EXCEPTION 'events are immutable: % refused', TG_OP USING ERRCODE = 'restrict_violation';
        END $$""",
    """CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events
        FOR EACH ROW EXECUTE FUNCTION events_are_immutable()""",
    """CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()""",
    _READABLE,
)

# Partitions are added by the writer (`partitions.py`). The triggers that refuse changes to rows come to each with the
# table's own; those against TRUNCATE do not.
_PARTITIONED = (
    "DROP VIEW readable_events",
    "ALTER TABLE events RENAME TO events_from_1",
    "ALTER INDEX events_pkey RENAME TO events_from_1_pkey",
    "ALTER INDEX events_stream RENAME TO events_from_1_stream",
    "DROP TRIGGER events_no_change ON events_from_1",
    "CREATE TABLE events (LIKE events_from_1 INCLUDING CONSTRAINTS) PARTITION BY RANGE (position)",
    "ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (position)",
    """CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events
        FOR EACH ROW EXECUTE FUNCTION events_are_immutable()""",
    """CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()""",
    "CREATE TABLE event_keys (request_key text PRIMARY KEY, position bigint NOT NULL)",
    "INSERT INTO event_keys SELECT request_key, position FROM events_from_1 WHERE request_key IS NOT NULL",
    "DROP INDEX events_request_key",
    """CREATE FUNCTION keep_event_keys() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
            INSERT INTO event_keys SELECT request_key, position FROM appended WHERE request_key IS NOT NULL;
            RETURN NULL;
        END $$""",
    """CREATE TRIGGER events_keys AFTER INSERT ON events REFERENCING NEW TABLE AS appended
        FOR EACH STATEMENT EXECUTE FUNCTION keep_event_keys()""",
    """CREATE TRIGGER events_keys AFTER INSERT ON events_from_1 REFERENCING NEW TABLE AS appended
        FOR EACH STATEMENT EXECUTE FUNCTION keep_event_keys()""",
    """CREATE TRIGGER event_keys_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON event_keys
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()""",
    # Of streams whose beginning was dropped: the last event of it.
    """CREATE TABLE carried_events (
        originator_id text PRIMARY KEY,
        position bigint NOT NULL,
        originator_version bigint NOT NULL,
        topic text NOT NULL,
        state bytea NOT NULL,
        trace text)""",
    "CREATE UNIQUE INDEX carried_events_position ON carried_events (position)",
    """CREATE FUNCTION carried_events_move_on() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN
            IF TG_OP = 'UPDATE' AND NEW.originator_id = OLD.originator_id
                AND NEW.originator_version > OLD.originator_version THEN RETURN NEW; END IF;
            RAISE EXCEPTION 'events are immutable: % refused', TG_OP USING ERRCODE = 'restrict_violation';
        END $$""",
    """CREATE TRIGGER carried_events_no_change BEFORE UPDATE OR DELETE ON carried_events
        FOR EACH ROW EXECUTE FUNCTION carried_events_move_on()""",
    """CREATE TRIGGER carried_events_no_truncate BEFORE TRUNCATE ON carried_events
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()""",
    """CREATE TABLE dropped_events (
        first_position bigint PRIMARY KEY,
        last_position bigint NOT NULL,
        archive_size bigint NOT NULL,
        archive_root text NOT NULL,
        dropped_at timestamptz NOT NULL DEFAULT now())""",
    """CREATE TRIGGER dropped_events_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON dropped_events
        FOR EACH STATEMENT EXECUTE FUNCTION events_are_immutable()""",
    # A stream's events without a gap at their end.
    """CREATE VIEW events_at_hand AS
        SELECT position, originator_id, originator_version, topic, state, trace FROM events
        UNION ALL SELECT position, originator_id, originator_version, topic, state, trace FROM carried_events""",
    _READABLE,
)

_SQLITE = (
    """CREATE TABLE events (
        position INTEGER PRIMARY KEY CHECK (position > 0),
        originator_id TEXT NOT NULL,
        originator_version INTEGER NOT NULL,
        topic TEXT NOT NULL,
        state BLOB NOT NULL,
        request_key TEXT,
        trace TEXT)""",
    "CREATE UNIQUE INDEX events_stream ON events (originator_id, originator_version)",
    "CREATE UNIQUE INDEX events_request_key ON events (request_key) WHERE request_key IS NOT NULL",
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are immutable: UPDATE refused'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are immutable: DELETE refused'); END""",
    # REPLACE deletes without firing the trigger above; refusing a taken position closes that door.
    """CREATE TRIGGER events_no_replace BEFORE INSERT ON events
        WHEN EXISTS (SELECT 1 FROM events WHERE position = NEW.position)
          OR EXISTS (SELECT 1 FROM events WHERE request_key = NEW.request_key)
          OR EXISTS (SELECT 1 FROM events WHERE originator_id = NEW.originator_id
                     AND originator_version = NEW.originator_version)
        BEGIN SELECT RAISE(ABORT, 'UNIQUE constraint failed: events'); END""",
    """CREATE VIEW readable_events AS
        SELECT position, originator_id AS stream, originator_version AS version, topic,
               CAST(state AS TEXT) AS state, request_key FROM events""",
)
