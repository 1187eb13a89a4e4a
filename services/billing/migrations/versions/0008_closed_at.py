"""When an account was closed, by its own time: a month that begins later has no commitment.

Accounts that were followed as closed before were so for longer than any month that is still to be billed.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("closed_us", sa.BigInteger, nullable=False, server_default="0"))
