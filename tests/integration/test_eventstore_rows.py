"""Many rows in one statement: what comes back is what went in, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shared.eventstore import rows
from shared.eventstore.database import engine

pytestmark = pytest.mark.servers

meta = sa.MetaData()
table = sa.Table(
    "things",
    meta,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("sum", sa.BigInteger),
    sa.Column("note", sa.Text),
    sa.Column("closed", sa.Boolean),
)
ROWS: list[dict[str, Any]] = [
    {"name": "", "number": -(2**63), "sum": 2**63 - 1, "note": None, "closed": False},
    {"name": "套餐 {1,2}", "number": 0, "sum": 0, "note": 'NULL "quoted" \\ back', "closed": True},
    {"name": "🙂", "number": 1, "sum": -1, "note": "", "closed": False},
]


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    sqlite = request.param == "sqlite"
    made = engine(f"sqlite:///{tmp_path}/rows.db" if sqlite else request.getfixturevalue("postgres_database"))
    with made.begin() as connection:
        meta.create_all(connection)
        yield connection
    made.dispose()


def stored(connection: sa.Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.select(table).order_by(table.c.number)).mappings()]


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_rows_are_kept_as_they_are_and_changed_where_they_are_there(
    connection: sa.Connection, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "AT_ONCE", at_once)

    def changes(excluded: Any) -> dict[str, Any]:
        kept = sa.case((excluded.note == "", table.c.note), else_=excluded.note)
        return {"sum": table.c.sum + excluded.sum, "note": kept}

    rows.insert(connection, table, [])
    rows.insert(connection, table, ROWS[:1])
    rows.upsert(connection, table, ROWS[1:], changes)
    assert stored(connection) == ROWS
    rows.upsert(connection, table, [row | {"sum": -5, "note": ""} for row in ROWS], changes)
    assert stored(connection) == [row | {"sum": row["sum"] - 5} for row in ROWS]


@pytest.mark.parametrize("analysed", [False, True])
def test_what_is_asked_of_all_is_asked_of_some(connection: sa.Connection, analysed: bool) -> None:
    rows.insert(connection, table, ROWS)
    if analysed:
        connection.execute(sa.text("ANALYZE"))
    name, number = table.c.name, table.c.number

    def found(column: Any, values: list[Any], asked: Any) -> list[Any]:
        return sorted(map(tuple, connection.execute(rows.of_each(connection, column, values, asked))))

    assert found(name, ["🙂", "", "nobody", "🙂"], sa.select(number)) == [(-(2**63),), (1,)]
    sums = sa.select(name, sa.func.sum(table.c.sum)).where(number != 1).group_by(name)
    assert found(name, [row["name"] for row in ROWS], sums) == sorted(
        (row["name"], row["sum"]) for row in ROWS if row["number"] != 1
    )
    assert found(number, [1, 7], sa.select(name)) == [("🙂",)]
    assert found(number, [], sa.select(name)) == []


def test_rows_are_deleted(connection: sa.Connection) -> None:
    rows.insert(connection, table, ROWS)
    rows.delete(connection, table, [{"name": "🙂", "number": 1}, {"name": "🙂", "number": 2}])
    assert stored(connection) == ROWS[:2]
