"""The event log in partitions by position (PostgreSQL).

Revision ID: 0007
"""

from shared.eventstore.schema import partition_event_table

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    partition_event_table()
