"""Many rows of a read model in one statement, the same on PostgreSQL and SQLite.

It must not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

AT_ONCE = 1000  # rows: some milliseconds in which nobody else has a turn
Changes = Callable[[Any], Mapping[str, Any]]  # from the row that was not inserted to what becomes of the one there


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], changes: Changes) -> None:
    """Insert rows, no two with the same key, all with the same columns; where a key is there, make these changes."""
    if not rows:
        return
    on_postgresql = connection.dialect.name == "postgresql"
    insert: Any = (postgresql if on_postgresql else sqlite).insert(table)
    changed = dict(changes(insert.excluded))
    if on_postgresql:
        insert = insert.from_select(list(rows[0]), sa.select(*_arrays(table, list(rows[0]))))
    statement = insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        connection.execute(statement, _columns(part) if on_postgresql else part)


def delete(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Delete the rows that have these values in these columns, if they are there."""
    if not rows:
        return
    names = list(rows[0])
    if connection.dialect.name == "postgresql":
        key = sa.tuple_(*(table.c[name] for name in names))
        connection.execute(sa.delete(table).where(key.in_(sa.select(*_arrays(table, names)))), _columns(rows))
        return
    same = (table.c[name] == sa.bindparam(f"its_{name}") for name in names)
    connection.execute(sa.delete(table).where(*same), [{f"its_{name}": row[name] for name in names} for row in rows])


def _arrays(table: sa.Table, names: Sequence[str]) -> list[Any]:
    """One array a column: a row at a time, a driver waits for the network two or three times for each."""
    return [sa.func.unnest(sa.bindparam(name, type_=postgresql.ARRAY(table.c[name].type))) for name in names]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
