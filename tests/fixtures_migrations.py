"""Fixture: in a run, a service's migrations are carried out once on SQLite; what came of them is what every other empty
database of the service gets. A thousand databases are made in a run, and each would take as long as a test.

Databases that are not empty, those of other processes, and PostgreSQL's are migrated as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
STATEMENTS = (
    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY rowid"
)


class Migrated:
    """What came of a service's migrations: the schema's statements in order, and the rows that they left."""

    def __init__(self, connection: sa.Connection) -> None:
        self._statements = list(connection.exec_driver_sql(STATEMENTS).scalars())
        self._rows: dict[str, list[Any]] = {}
        for table in connection.exec_driver_sql(TABLES).scalars().all():
            self._rows[table] = [tuple(row) for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"')]

    def make(self, connection: sa.Connection) -> None:
        tables = [sql for sql in self._statements if sql.startswith("CREATE TABLE")]
        for statement in tables:
            connection.exec_driver_sql(statement)
        for table, rows in self._rows.items():
            for row in rows:  # before the triggers, which would refuse some
                connection.exec_driver_sql(f'INSERT INTO "{table}" VALUES ({", ".join("?" * len(row))})', row)
        for statement in self._statements:
            if statement not in tables:
                connection.exec_driver_sql(statement)


@pytest.fixture(scope="session", autouse=True)
def _migrated_once() -> Iterator[None]:
    known: dict[str | None, Migrated] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "upgrade", _once(command.upgrade, known))
        yield


def _once(upgrade: Callable[[Config, str], None], known: dict[str | None, Migrated]) -> Callable[[Config, str], None]:
    def quick(config: Config, revision: str) -> None:
        connection = config.attributes.get("connection")
        sqlite = connection is not None and connection.dialect.name == "sqlite"
        if revision != "head" or not sqlite or connection.exec_driver_sql(TABLES).first() is not None:
            upgrade(config, revision)
            return
        service = config.get_main_option("script_location")
        if service in known:
            known[service].make(connection)
        else:
            upgrade(config, revision)
            known[service] = Migrated(connection)

    return quick
