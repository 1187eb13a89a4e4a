"""Fixtures: real RabbitMQ and PostgreSQL servers, private to this test run.

Loaded by the root conftest: `pytest_plugins = ["tests.fixtures_servers"]`. A server starts when the first
test asks for it and ends with the run; its data are in memory where there is room, as tests crash servers and no
machines. A test gets a vhost and a database that no other test has seen. Of each kind there is one server that nobody
may touch and one that tests may stop and kill: a start costs seconds.

What a missing program means: it is installed where we may, else the test fails and says what to do.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql

from shared.config import Settings
from tests.folders import IN_MEMORY, IN_MEMORY_MIN_BYTES_SERVERS, place_with
from tokengrid.servers import PostgreSQL, RabbitMQ
from tokengrid.servers.install import ensure

PREFIX = "tokengrid-tests-"
VHOSTS_AT_ONCE = 32  # creating any number of vhosts takes a second; at the server's start it is free
VHOSTS_TO_BREAK = 16  # one for each test that has a broker for itself
_vhost_numbers = count(1)
_database_numbers = count(1)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A folder for the servers' state, gone after the run."""
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place_with(IN_MEMORY_MIN_BYTES_SERVERS)))
    folder.chmod(0o711)  # PostgreSQL may run as another user than we
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def rabbitmq(servers_folder: Path) -> Iterator[RabbitMQ]:
    """The RabbitMQ that tests share; never stop or kill it (see `own_rabbitmq`)."""
    yield from _running_rabbitmq(servers_folder / "rabbitmq", spare_vhosts=VHOSTS_AT_ONCE)


@pytest.fixture(scope="session")
def postgresql(servers_folder: Path) -> Iterator[PostgreSQL]:
    """The PostgreSQL that tests share; never stop or kill it (see `own_postgresql`)."""
    yield from _running_postgresql(servers_folder / "postgresql")


@pytest.fixture(scope="session")
def rabbitmq_to_break(servers_folder: Path) -> Iterator[RabbitMQ]:
    """Use `own_rabbitmq`, which is this one in a known state."""
    yield from _running_rabbitmq(servers_folder / "rabbitmq-to-break", spare_vhosts=VHOSTS_TO_BREAK)


@pytest.fixture
def own_rabbitmq(rabbitmq_to_break: RabbitMQ) -> RabbitMQ:
    """A running RabbitMQ that the test has for itself, to stop, kill and start; its `uri` is of a vhost never used."""
    rabbitmq_to_break.start()
    rabbitmq_to_break.vhosts.pop(0)
    assert rabbitmq_to_break.vhosts, "there are more such tests now: raise VHOSTS_TO_BREAK"
    return rabbitmq_to_break


@pytest.fixture(scope="session")
def postgresql_to_break(servers_folder: Path) -> Iterator[PostgreSQL]:
    """Use `own_postgresql`, which is this one in a known state."""
    yield from _running_postgresql(servers_folder / "postgresql-to-break")


@pytest.fixture
def own_postgresql(postgresql_to_break: PostgreSQL) -> PostgreSQL:
    """A running, empty PostgreSQL that the test has for itself, to stop, kill and start."""
    postgresql_to_break.start()
    _empty(postgresql_to_break)
    return postgresql_to_break


@pytest.fixture
def rabbitmq_uri(rabbitmq: RabbitMQ) -> str:
    """The URI of a vhost without any queue or exchange of another test."""
    number = next(_vhost_numbers)
    if _vhost(number) not in rabbitmq.vhosts:
        rabbitmq.create_vhosts(_vhost(n) for n in range(number, number + VHOSTS_AT_ONCE))
    return rabbitmq.vhost_uri(_vhost(number))


@pytest.fixture
def new_database(postgresql: PostgreSQL) -> Iterator[Callable[[str], str]]:
    """Call it with a service's name: the SQLAlchemy URL of an empty database, gone after the test."""
    names: list[str] = []

    def create(service: str) -> str:
        names.append(f"test{next(_database_numbers)}_{service}")
        return postgresql.create_database(names[-1])

    yield create
    for name in names:
        postgresql.drop_database(name)


@pytest.fixture
def postgres_database(new_database: Callable[[str], str]) -> str:
    """The SQLAlchemy URL of one empty database."""
    return new_database("service")


@pytest.fixture
def rabbitmq_settings(rabbitmq_uri: str, tmp_path: Path) -> Settings:
    """Settings with RabbitMQ as the broker and SQLite files in the test's own folder."""
    return Settings(broker=rabbitmq_uri, var=tmp_path)


@pytest.fixture
def production_settings(
    rabbitmq_uri: str, new_database: Callable[[str], str], tmp_path: Path
) -> Callable[[str], Settings]:
    """Call it with a service's name: its settings in the production shape, RabbitMQ and an own PostgreSQL database."""
    return lambda service: Settings(broker=rabbitmq_uri, database=new_database(service), var=tmp_path)


def _vhost(number: int) -> str:
    return f"test-{number}"


def _running_rabbitmq(folder: Path, spare_vhosts: int = 0) -> Iterator[RabbitMQ]:
    ensure(["rabbitmq-server"])
    server = RabbitMQ(folder, vhosts=("tokengrid", *(_vhost(n) for n in range(1, spare_vhosts + 1))))
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _running_postgresql(folder: Path) -> Iterator[PostgreSQL]:
    ensure(["postgresql"])
    server = PostgreSQL(folder)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _empty(server: PostgreSQL) -> None:
    """Drop every database and role that a test made, by whichever way."""
    plain = server.admin_url().replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
        made = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        for (name,) in connection.execute(made).fetchall():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper").fetchall():
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def _remove_abandoned() -> None:
    """A run that was killed could not end its servers: its successor does."""
    for folder in (found for place in (IN_MEMORY, Path(tempfile.gettempdir())) for found in place.glob(f"{PREFIX}*")):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if not pid.isdigit() or psutil.pid_exists(int(pid)):
            continue
        for state in folder.glob("*/state.json"):
            kind = RabbitMQ if state.parent.name.startswith("rabbitmq") else PostgreSQL
            kind(state.parent).remove()
        shutil.rmtree(folder, ignore_errors=True)
