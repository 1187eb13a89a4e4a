"""The table of events as it is read here: in audit's own database, and in snapshots of every service's."""

from __future__ import annotations

import sqlalchemy as sa

from shared.eventstore.schema import EVENTS

log_rows = sa.table(
    EVENTS,
    sa.column("position", sa.BigInteger),
    sa.column("originator_id", sa.Text),
    sa.column("originator_version", sa.BigInteger),
    sa.column("topic", sa.Text),
    sa.column("state", sa.LargeBinary),
    sa.column("request_key", sa.Text),
)
