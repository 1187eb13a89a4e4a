"""The event log in partitions by position (PostgreSQL).

Revision ID: 0006
"""

from shared.eventstore.schema import partition_event_table

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    partition_event_table()
