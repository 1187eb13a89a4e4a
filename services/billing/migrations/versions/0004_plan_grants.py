"""What subscriptions and plans need to know: whose accounts, closed since when, what grants are called, how they ended.

Of accounts and grants followed before, the subscriber and the name are empty and no end is known.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _name(name: str, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False, primary_key=key)


def _number(name: str, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, primary_key=key, autoincrement=False)


def upgrade() -> None:
    op.add_column("accounts", sa.Column("subscriber", NAME, nullable=False, server_default=""))
    op.add_column("accounts", sa.Column("closed", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("grants", sa.Column("name", NAME, nullable=False, server_default=""))
    op.create_table(
        "endings",
        _name("operator", key=True),
        _name("account", key=True),
        _number("position", key=True),
        _name("grant"),
        sa.Column("kind", sa.Text, nullable=False),
        _number("at_us"),
        _number("amount"),
        sqlite_with_rowid=False,
    )
    op.create_index("endings_of_grant", "endings", ["operator", "account", "grant"])
    if op.get_bind().dialect.name == "postgresql":
        # A page of events changes most rows of a day, all in one transaction: with room for their new versions beside
        # them no index has to learn where they are, which halves the cost of a row.
        op.execute("ALTER TABLE usage SET (fillfactor = 50)")
