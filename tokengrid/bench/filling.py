"""A log with a past: millions of valid events of valid accounts, made inside PostgreSQL by one statement.

The rows are those the application wrote for one account, told again for many. Must not know what is measured.
"""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from services.quota.application import QuotaApplication
from shared.eventstore.log import LoggedEvent
from shared.eventstore.partitions import partitions
from tokengrid.bench import calls
from tokengrid.bench.engine import funded
from tokengrid.bench.measure import first_error

TEMPLATE = 9_999_999  # the account whose rows are told again
LIFE = ("open_account", "grant")  # what each account begins with; all else are debits

# Version 7 of UUIDs up to where the live ones begin, or version 4. OFFSET 0 keeps each from being made thrice.
_ORDERED = """substr(ms, 1, 8) || '-' || substr(ms, 9, 4) || '-7' || substr(h, 1, 3) || '-8' || substr(h, 4, 3)
    || '-' || substr(h, 7, 12)"""
_RANDOM = "gen_random_uuid()::text"
_STATEMENT = """INSERT INTO events (position, originator_id, originator_version, topic, state, request_key, trace)
SELECT {head} + n + 1, stream, version,
       CASE version WHEN 1 THEN {topic_1} WHEN 2 THEN {topic_2} ELSE {topic_3} END,
       convert_to(CASE version WHEN 1 THEN {state_1} WHEN 2 THEN {state_2}
                  ELSE replace(replace({state_3}, {fingerprint}, substr(h, 17, 16)), {key}, request) END, 'UTF8'),
       CASE version WHEN 1 THEN 'open' WHEN 2 THEN 'grant' ELSE request END || chr(9) || stream, NULL
FROM (SELECT n, {prefix} || lpad((n % {accounts})::text, 7, '0') AS stream, n / {accounts} + 1 AS version, h,
             {request} AS request
      FROM (SELECT n, md5(n::text) AS h,
                   lpad(to_hex({ms} + n / {per_ms}), 12, '0') AS ms
            FROM generate_series(0::bigint, {count}::bigint - 1) AS n OFFSET 0) AS numbered
      OFFSET 0) AS told"""


_KEYS = (
    "INSERT INTO event_keys SELECT request_key, position FROM events WHERE position > %s AND request_key IS NOT NULL"
)


def fill(app: QuotaApplication, url: str, count: int, accounts: int, *, random_keys: bool = False) -> None:
    """Append `count` events of `accounts` accounts, in turns: opened, granted, then debited for the rest.

    `app` stands on the database at `url`, and has the catalogue. Its indexes are dropped and built anew, which is
    a third of the time of growing them; the result is vacuumed, analysed and checkpointed.
    """
    assert count >= len(LIFE) * accounts, "each account has to be opened and funded"
    first_error(app.execute(funded([TEMPLATE])))
    first_error(app.execute([{"command": "debit", **calls.debit(0, TEMPLATE)}]))
    head = app.log.head()
    opened, granted, debited = app.log.stream(calls.stream(TEMPLATE))
    app.log.recorder.make_room(head + count)  # type: ignore[union-attr] # this is PostgreSQL
    with psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as connection:
        indexes = _dropped_indexes(connection)
        # A trigger keeps what a statement appends in memory for the next; so much of it is better told again.
        connection.execute("ALTER TABLE events DISABLE TRIGGER events_keys")
        connection.execute(_statement(head, count, accounts, [opened, granted, debited], random_keys=random_keys))
        connection.execute(_KEYS, (head,))
        connection.execute("ALTER TABLE events ENABLE TRIGGER events_keys")
        connection.execute("SET maintenance_work_mem = '1GB'")
        for definition in indexes:
            connection.execute(definition)
        connection.execute("VACUUM (ANALYZE) events, event_keys")


def _statement(head: int, count: int, accounts: int, told: list[LoggedEvent], *, random_keys: bool) -> sql.Composed:
    values: dict[str, Any] = {
        "head": head,
        "count": count,
        "accounts": accounts,
        "prefix": f"{calls.OPERATOR}/a",
        "ms": calls.KEYS_START_MS - count // calls.KEYS_PER_MS - 1,
        "per_ms": calls.KEYS_PER_MS,
        "fingerprint": cast(Any, told[2].event).fingerprint,
        "key": calls.ordered_key(0),
        **{f"topic_{n}": each.topic for n, each in enumerate(told, start=1)},
        **{f"state_{n}": each.state for n, each in enumerate(told, start=1)},
    }
    parts: dict[str, sql.Composable] = {name: sql.Literal(value) for name, value in values.items()}
    return sql.SQL(_STATEMENT).format(**parts, request=sql.SQL(_RANDOM if random_keys else _ORDERED))


def _dropped_indexes(connection: psycopg.Connection[tuple[Any, ...]]) -> list[LiteralString]:
    """Drop every index of the log, its partitions and its keys; returns what builds them again."""
    dropped: list[LiteralString] = []
    constraints = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid IN ('events'::regclass, 'event_keys'::regclass) AND contype = 'p'"
    ).fetchall()
    for table, name, definition in constraints:
        connection.execute(sql.SQL(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
        dropped.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for partition in partitions(connection):
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (partition.table,)
        ).fetchall()
        for name, definition in indexes:
            connection.execute(sql.SQL(f"DROP INDEX {name}"))
            dropped.append(definition)
    return dropped
