"""The event log in partitions by position (PostgreSQL).

Revision ID: 0002
"""

from shared.eventstore.schema import partition_event_table

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    partition_event_table()
