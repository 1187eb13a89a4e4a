"""Into how many shards the deployment is split, as it was at this database's first start.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "sharding",
        sa.Column("shard", sa.Integer, nullable=False, primary_key=True, autoincrement=False),
        sa.Column("shards", sa.Integer, nullable=False),
    )
