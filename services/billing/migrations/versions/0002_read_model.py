"""The copy of the catalogue, and the read model: accounts, grants, usage, wholesale; bills, notes, statements.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

from shared.catalogue.copy import create_catalogue_table

revision = "0002"
down_revision = "0001"

# Names sort by code point in both databases: accounts are billed in that order.
NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _name(name: str, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False, primary_key=key)


def _number(name: str, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, primary_key=key, autoincrement=False)


def _sums() -> list[sa.Column[int]]:
    return [_number(name) for name in ("calls", "input", "cached_input", "cache_write", "output", "amount")]


def upgrade() -> None:
    create_catalogue_table()
    op.create_table(
        "accounts",
        _name("operator", key=True),
        _name("account", key=True),
        _number("position"),
        sa.Column("opened_at", sa.Text, nullable=False),
        _number("opened_us"),
        _name("plan"),
        _number("credit_limit"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "grants",
        _name("operator", key=True),
        _name("account", key=True),
        _number("position", key=True),
        _name("period"),
        _number("at_us"),
        sa.Column("source", sa.Text, nullable=False),
        _number("amount"),
        _number("price_fen"),
        _name("plan"),
        _number("plan_version"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage",
        *(_name(name, key=True) for name in ("operator", "account", "period", "model", "rate_card")),
        *(_name(name, key=True) for name in ("serving_operator", "day")),
        _number("segment", key=True),
        *_sums(),
        _number("charged"),
        sa.Column("trace", sa.Text),
        sqlite_with_rowid=False,
    )
    # What came late is looked for by position, and is little.
    late = sa.text("segment > 0")
    op.create_index("usage_late", "usage", ["account", "segment"], sqlite_where=late, postgresql_where=late)
    op.create_table(
        "wholesale",
        *(_name(name, key=True) for name in ("period", "home", "serving", "model", "day")),
        _number("segment", key=True),
        *_sums(),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "periods",
        _name("operator", key=True),
        _name("period", key=True),
        _number("on_time"),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "bills",
        _name("number", key=True),
        _name("operator"),
        _name("account"),
        _name("period"),
        _number("serial"),
        _number("position"),
        _number("version"),
        sa.Column("issued_at", sa.Text, nullable=False),
        *(_number(name) for name in ("total_fen", "vat_fen", "paid_fen", "credited_fen", "quota_position")),
        sa.Column("sha256", sa.Text, nullable=False),
    )
    op.create_index("bills_of_account", "bills", ["operator", "account", "period"], unique=True)
    op.create_index("bills_of_period", "bills", ["operator", "period", "account"])
    op.create_index("bills_serial", "bills", ["operator", "serial"], unique=True)
    op.create_table(
        "credit_notes",
        _name("number", key=True),
        _name("operator"),
        _number("serial"),
        _name("bill_number"),
        _number("fen"),
    )
    op.create_index("credit_notes_serial", "credit_notes", ["operator", "serial"], unique=True)
    op.create_table(
        "statements",
        *(_name(name, key=True) for name in ("period", "home", "serving")),
        _number("position"),
        _number("net_fen"),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
