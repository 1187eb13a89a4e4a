"""What subscriptions charge, what of them is due, and what is ordered from quota and not settled yet.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _name(name: str, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False, primary_key=key)


def _number(name: str, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, primary_key=key, autoincrement=False)


def upgrade() -> None:
    op.add_column("grants", sa.Column("subscription", NAME, nullable=False, server_default=""))
    op.create_table(
        "subscriptions",
        *(_name(name, key=True) for name in ("operator", "account", "subscription")),
        _name("plan"),
        _number("taken"),
        _number("version"),
        sa.Column("due_us", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_index("subscriptions_due", "subscriptions", ["due_us"])
    op.create_table(
        "charges",
        _name("operator", key=True),
        _name("account", key=True),
        _number("position", key=True),
        *(_name(name) for name in ("period", "kind", "subscription", "plan", "from_day", "to_day")),
        *(_number(name) for name in ("at_us", "starts_us", "ends_us", "number", "plan_version", "phase", "fee_fen")),
        *(_number(name) for name in ("discount_percent", "part_days", "whole_days", "price_fen", "amount")),
        *(_number(name) for name in ("left_days", "unused", "cut_us", "cut_position")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "orders",
        *(_name(name, key=True) for name in ("operator", "account", "name", "kind")),
        _name("subscription"),
        sa.Column("command", sa.Text, nullable=False),
        _number("position"),
        _number("number"),
        sqlite_with_rowid=False,
    )
    op.create_index("orders_in_turn", "orders", ["position"])
    op.create_table(
        "unsettled",
        *(_name(name, key=True) for name in ("operator", "account", "grant")),
        *(_name(name) for name in ("kind", "subscription")),
        sa.Column("terms", sa.Text, nullable=False),
        _number("position"),
        _number("number"),
        sqlite_with_rowid=False,
    )
