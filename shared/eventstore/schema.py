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


def create_position_table() -> None:
    """How far each projection of this database has followed its upstream."""
    op.create_table(
        POSITIONS,
        sa.Column("projection", sa.Text, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
    )


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
    """CREATE VIEW readable_events AS
        SELECT position, originator_id AS stream, originator_version AS version, topic,
               convert_from(state, 'UTF8')::jsonb AS state, request_key FROM events""",
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
