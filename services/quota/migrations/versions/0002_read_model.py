"""The copy of the catalogue, and the read model: accounts, grants, reservations.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

from shared.catalogue.copy import create_catalogue_table

revision = "0002"
down_revision = "0001"


def _amount(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _key() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False, primary_key=True) for name in ("operator", "account")]


def upgrade() -> None:
    create_catalogue_table()
    op.create_table(
        "accounts",
        *_key(),
        sa.Column("status", sa.Text, nullable=False),
        _amount("version"),
        _amount("credit_limit"),
        _amount("overdrawn"),
    )
    op.create_table(
        "grants",
        *_key(),
        sa.Column("name", sa.Text, nullable=False, primary_key=True),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("ended", sa.Boolean, nullable=False, server_default=sa.false()),
        *(_amount(name) for name in ("granted", "reserved", "debited", "reversed", "expired", "voided")),
    )
    op.create_index("grants_due", "grants", ["expires_at"])
    op.create_table(
        "reservations",
        *_key(),
        sa.Column("name", sa.Text, nullable=False, primary_key=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("reservations_due", "reservations", ["expires_at"])
