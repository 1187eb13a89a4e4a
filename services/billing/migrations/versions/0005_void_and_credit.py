"""Bills that are void, what a bill took of the account's credits and knew of our own log, and the credits themselves.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False, primary_key=True)


def _number(name: str, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, primary_key=key, autoincrement=False)


def upgrade() -> None:
    for name in ("credit_fen", "billing_position", "void", "void_position"):
        op.add_column("bills", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    # A period may be billed to an account again once its bill is void; the void ones are few.
    op.drop_index("bills_of_account", "bills")
    stands, void = sa.text("void = 0"), sa.text("void = 1")
    op.create_index(
        "bills_of_account",
        "bills",
        ["operator", "account", "period"],
        unique=True,
        sqlite_where=stands,
        postgresql_where=stands,
    )
    op.create_index("bills_void", "bills", ["operator", "period", "account"], sqlite_where=void, postgresql_where=void)
    op.create_table(
        "credits",
        _name("operator"),
        _name("account"),
        _number("position", key=True),
        _number("fen"),
        sqlite_with_rowid=False,
    )
