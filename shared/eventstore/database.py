"""SQLAlchemy engines for a service's database, and its migrations, safe when several start at once."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

# One number for all: each service has a database of its own, so the lock is never shared.
MIGRATION_LOCK = 0x746F6B656E
WRITES = "tokengrid_writes"  # execution option of a connection whose transactions will read first and then write


def engine(url: str) -> sa.Engine:
    """An engine with the guarantees we count on: SQLite durable at commit and waiting for locks."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_size=5, max_overflow=5, pool_pre_ping=True, pool_timeout=10)
    path = sa.make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    made = sa.create_engine(url, connect_args={"timeout": 10, "check_same_thread": False})

    @sa.event.listens_for(made, "connect")
    def _on_connect(connection, _record) -> None:  # type: ignore[no-untyped-def]
        # Transactions begin where we say (below), not where the driver guesses.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(made, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        # SQLite does not wait for a lock, but fails, where a transaction that has read goes on to write.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")

    return made


@contextlib.contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that answers every question from one and the same state of the database."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # in SQLite every transaction is one
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def migrate(engine: sa.Engine, service: str, to: str = "head") -> None:
    """Bring a service's database to its newest migration. Several processes may do it at once."""
    folder = Path(__file__).parents[2] / "services" / service / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder / "versions").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _locked(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)


@contextlib.contextmanager
def _locked(engine: sa.Engine) -> Iterator[sa.Connection]:
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            yield connection
        return
    path = engine.url.database
    if not path or path == ":memory:":
        with engine.begin() as connection:
            yield connection
        return
    # SQLite has no lock that outlives a statement without also blocking our own alembic.
    with open(f"{path}.migrating", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with engine.begin() as connection:
            yield connection
