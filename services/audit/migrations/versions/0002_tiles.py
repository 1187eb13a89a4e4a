"""The Merkle trees of the followed logs, as tiles of 256 hashes.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tiles",
        sa.Column("log", sa.Text, nullable=False, primary_key=True),
        sa.Column("level", sa.Integer, nullable=False, primary_key=True, autoincrement=False),
        sa.Column("index", sa.BigInteger, nullable=False, primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )
