"""Of which shard of quota an account is, and in which shard's log the positions of a row stand.

Until now there was one shard, number 0.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, NAME, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False)


def upgrade() -> None:
    op.add_column("accounts", sa.Column("shard", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("accounts_of_shard", "accounts", ["operator", "shard", "account"])
    op.rename_table("wholesale", "wholesale_before")
    op.create_table(
        "wholesale",
        *(_name(name) for name in ("period", "home", "serving", "model", "day")),
        _number("shard"),
        _number("segment"),
        *(_number(name) for name in ("calls", "input", "cached_input", "cache_write", "output", "amount")),
        sa.PrimaryKeyConstraint(
            "period", "home", "serving", "model", "day", "shard", "segment", name="wholesale_of_shard"
        ),
        sqlite_with_rowid=False,
    )
    sums = "calls, input, cached_input, cache_write, output, amount"
    op.execute(
        f"""INSERT INTO wholesale (period, home, serving, model, day, shard, segment, {sums})
            SELECT period, home, serving, model, day, 0, segment, {sums} FROM wholesale_before"""
    )
    op.drop_table("wholesale_before")
    op.rename_table("periods", "periods_before")
    op.create_table(
        "periods",
        _name("operator"),
        _name("period"),
        _number("shard"),
        _number("on_time"),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("operator", "period", "shard", name="periods_of_shard"),
    )
    op.execute(
        """INSERT INTO periods (operator, period, shard, on_time, closed)
           SELECT operator, period, 0, on_time, closed FROM periods_before"""
    )
    op.drop_table("periods_before")
