"""The event log in partitions by position (PostgreSQL).

Revision ID: 0003
"""

from shared.eventstore.schema import partition_event_table

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    partition_event_table()
