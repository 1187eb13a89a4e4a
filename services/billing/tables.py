"""The read model's tables. All of them can be dropped and come back from the logs.

A position or segment is one of the log of the account's shard, or of the `shard` in its row. So the followers of two
shards never write the same row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from shared.eventstore.rows import Changes, upsert, upsert_columns

meta = sa.MetaData()
TOKENS = ("input", "cached_input", "cache_write", "output")


def _table(name: str, key: str, texts: str, numbers: str) -> sa.Table:
    names = [(n, sa.Text) for n in texts.split()] + [(n, sa.BigInteger) for n in numbers.split()]
    columns: list[sa.Column[Any]] = [sa.Column(n, kind, primary_key=n in key.split()) for n, kind in names]
    return sa.Table(name, meta, *columns)


# `closed`: where in its log the account was closed, 0 while it is open.
accounts = _table(
    "accounts",
    "operator account",
    "operator account opened_at plan subscriber",
    "position shard opened_us credit_limit closed closed_us",
)
grants = _table(
    "grants",
    "operator account position",
    "operator account period source plan name subscription",
    "position at_us amount price_fen plan_version",
)
# Grants of subscriptions that were `voided` or `expired`, with what was left of them.
endings = _table("endings", "operator account position", "operator account grant kind", "position at_us amount")
usage = _table(
    "usage",
    "operator account period model rate_card serving_operator day segment",
    "operator account period model rate_card serving_operator day trace",
    "segment calls input cached_input cache_write output amount charged",
)
wholesale = _table(
    "wholesale",
    "period home serving model day shard segment",
    "period home serving model day",
    "shard segment calls input cached_input cache_write output amount",
)
periods = sa.Table(
    "periods",
    meta,
    sa.Column("operator", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("shard", sa.BigInteger, primary_key=True),
    sa.Column("on_time", sa.BigInteger),  # last position that went into a row of segment 0
    sa.Column("closed", sa.Boolean),  # whether a bill was issued
)
bills = _table(
    "bills",
    "number",
    "number operator account period issued_at sha256",
    "serial position version total_fen vat_fen paid_fen credited_fen credit_fen quota_position billing_position "
    "void void_position",
)
# Written so that both databases see that an index of these bills alone will do.
STANDS = sa.literal_column("bills.void") == sa.literal_column("0")
IS_VOID = sa.literal_column("bills.void") == sa.literal_column("1")
credit_notes = _table("credit_notes", "number", "number operator bill_number", "serial fen")
subscriptions = _table(
    "subscriptions", "operator account subscription", "operator account subscription plan", "taken version due_us"
)
charges = _table(
    "charges",
    "operator account position",
    "operator account period kind subscription plan from_day to_day",
    "position at_us starts_us ends_us number plan_version phase fee_fen discount_percent part_days whole_days "
    "price_fen amount left_days unused cut_us cut_position",
)
orders = _table(
    "orders", "operator account name kind", "operator account name kind subscription command", "position number"
)
unsettled = _table(
    "unsettled", "operator account grant", "operator account grant kind subscription terms", "position number"
)
credits = _table("credits", "operator account position", "operator account", "position fen")
statements = _table("statements", "period home serving", "period home serving sha256 state", "position net_fen")


def add_up(
    connection: sa.Connection,
    table: sa.Table,
    rows: Iterable[Mapping[str, Any]],
    add: Sequence[str] = (),
    take: Sequence[str] = (),
) -> None:
    """Insert rows, or add and take over columns where the key is there. A trace stays if no newer one came."""
    upsert(connection, table, list(rows), _changes(table, add, take))


def add_up_columns(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Sequence[Any]], add: Sequence[str] = ()
) -> None:
    """As `add_up`, of rows given by the column."""
    upsert_columns(connection, table, columns, _changes(table, add, ()))


def _changes(table: sa.Table, add: Sequence[str], take: Sequence[str]) -> Changes:
    def changes(excluded: Any) -> dict[str, Any]:
        changed = {name: table.c[name] + excluded[name] for name in add}
        changed |= {name: excluded[name] for name in take}
        if "trace" in table.c:
            changed["trace"] = sa.func.coalesce(excluded.trace, table.c.trace)
        return changed

    return changes
