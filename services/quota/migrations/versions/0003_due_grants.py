"""When a grant is due to be swept, kept apart from its expiry: empty for grants that are used up.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("grants", sa.Column("due_at", sa.DateTime(timezone=True)))
    op.execute(
        """UPDATE grants SET due_at = CASE WHEN ended THEN '1970-01-01 00:00:00.000000' ELSE expires_at END
           WHERE granted - debited + reversed - expired - voided > 0"""
        if op.get_bind().dialect.name == "sqlite"
        else """UPDATE grants SET due_at = CASE WHEN ended THEN timestamptz '1970-01-01 00:00:00Z' ELSE expires_at END
                WHERE granted - debited + reversed - expired - voided > 0"""
    )
    op.drop_index("grants_due", "grants")
    op.create_index("grants_due", "grants", ["due_at"])
