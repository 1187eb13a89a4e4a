"""The audit service's event log, and how far its projections have followed.

Revision ID: 0001
"""

from shared.eventstore.schema import create_event_table, create_position_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_event_table()
    create_position_table()
