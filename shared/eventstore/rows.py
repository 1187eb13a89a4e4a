"""Many rows of a read model in one statement, the same on PostgreSQL and SQLite.

It must not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shared.eventstore.arrays import packed_array

AT_ONCE = 1000  # rows: some milliseconds in which nobody else has a turn
TAKEN_AS_THEY_ARE = (sa.Text, sa.BigInteger, sa.Boolean)  # by SQLite's driver
Changes = Callable[[Any], Mapping[str, Any]]  # from the row that was not inserted to what becomes of the one there


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the same columns. Raises IntegrityError if a key is there."""
    if rows and connection.dialect.name == "postgresql":
        names = list(rows[0])
        connection.execute(sa.insert(table).from_select(names, sa.select(*_arrays(table, names))), _columns(rows))
    elif rows:
        _execute_each(connection, sa.insert(table), table, _columns(rows))


def of_each(
    connection: sa.Connection, column: sa.ColumnClause[Any], values: Sequence[Any], asked: sa.Select[Any]
) -> sa.Select[Any]:
    """What is asked of all rows, asked of those that have one of `values` in `column`.

    PostgreSQL looks them up one after the other, by an index. The planner takes a condition on hundreds of values for
    one that most rows meet, until there are statistics, and reads all rows. They are one parameter, as each of hundreds
    would cost the driver 20 us. The rows of a value stay in the order that was asked for.
    """
    if connection.dialect.name != "postgresql":
        return asked.where(column.in_(values))
    given = sa.bindparam("given", list(dict.fromkeys(values)), type_=packed_array(column.type), unique=True)
    each = sa.func.unnest(given).table_valued(sa.column("value", column.type)).render_derived()
    # Without the offset it would be made one join, and planned as such.
    found = asked.where(column == each.c.value).offset(0).lateral()
    return sa.select(found).select_from(each.join(found, sa.true()))


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], changes: Changes) -> None:
    """Insert rows, no two with the same key, all with the same columns; where a key is there, make these changes."""
    if rows:
        upsert_columns(connection, table, _columns(rows), changes)


def upsert_columns(
    connection: sa.Connection, table: sa.Table, columns: Mapping[str, Sequence[Any]], changes: Changes
) -> None:
    """As `upsert`, of rows given by the column: all of the same length."""
    names = list(columns)
    on_postgresql = connection.dialect.name == "postgresql"
    insert: Any = (postgresql if on_postgresql else sqlite).insert(table)
    changed = dict(changes(insert.excluded))
    if on_postgresql:
        insert = insert.from_select(names, sa.select(*_arrays(table, names)))
    statement = insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed)
    for start in range(0, len(columns[names[0]]), AT_ONCE):
        part = {name: values[start : start + AT_ONCE] for name, values in columns.items()}
        if on_postgresql:
            connection.execute(statement, part)
        else:
            _execute_each(connection, statement, table, part)


def _execute_each(
    connection: sa.Connection, statement: Any, table: sa.Table, part: Mapping[str, Sequence[Any]]
) -> None:
    names = list(part)
    if not all(isinstance(table.c[name].type, TAKEN_AS_THEY_ARE) for name in names):
        connection.execute(statement, [dict(zip(names, row, strict=True)) for row in zip(*part.values(), strict=True)])
        return
    # What SQLAlchemy does with each row's parameters costs as much as SQLite's work on it.
    compiled = statement.compile(dialect=connection.dialect, column_keys=names)
    count = len(part[names[0]])
    values = (part[name] if name in part else [compiled.params[name]] * count for name in compiled.positiontup)
    connection.exec_driver_sql(str(compiled), list(zip(*values, strict=True)))


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
    return [sa.func.unnest(sa.bindparam(name, type_=packed_array(table.c[name].type))) for name in names]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
