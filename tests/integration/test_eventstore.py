"""The event log on SQLite and on PostgreSQL: dense, immutable, all or nothing, the same on both."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import OperationalError

from shared.contracts.quota import AccountOpened
from shared.errors import Conflict, Unavailable
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import EventLog, NewEvent
from tests.unit.quota_world import OPERATOR, START, World

pytestmark = pytest.mark.servers


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def log(url: str) -> Iterator[EventLog]:
    made = engine(url)
    migrate(made, "quota")
    with contextlib.closing(EventLog(url)) as log:
        yield log
    made.dispose()


def opened(version: int, key: str | None = None, stream: str = "o/a") -> NewEvent:
    event = AccountOpened(at=START, recorded_at=START, request_id=f"r{version}")
    return NewEvent(stream, version, event, key)


def test_what_is_appended_is_read_back(log: EventLog) -> None:
    events = [opened(1, "k1"), opened(2), opened(1, stream="o/b")]
    events[0].trace = "trace-1"
    log.append(events, 0)
    logged = log.read(0, 10)
    assert [(e.position, e.state.encode()) for e in logged] == [(e.position, e.state) for e in events]
    assert [(e.stream, e.version, e.event) for e in logged] == [(e.stream, e.version, e.event) for e in events]
    assert [e.position for e in logged] == [1, 2, 3]
    assert [e.trace for e in logged] == ["trace-1", None, None]
    assert [e.version for e in log.stream("o/a")] == [1, 2]
    assert log.known(["k1", "k2"])["k1"][:5] == logged[0][:5]
    assert log.head() == 3


@pytest.mark.parametrize(
    ("events", "after"),
    [
        ([opened(9)], 1),  # position taken
        ([opened(1)], 2),  # version taken
        ([opened(9), opened(10, "k1")], 2),  # key taken by the second: the first is not stored either
        ([opened(9, "k9"), opened(10, "k9")], 2),  # the same key twice
    ],
)
def test_what_is_taken_is_refused_whole(log: EventLog, events: list[NewEvent], after: int) -> None:
    log.append([opened(1, "k1"), opened(2)], 0)
    with pytest.raises(Conflict):
        log.append(events, after)
    assert log.head() == 2


@pytest.mark.parametrize("statement", ["UPDATE events SET topic = 'x'", "DELETE FROM events"])
def test_the_database_itself_refuses_changes(log: EventLog, url: str, statement: str) -> None:
    log.append([opened(1)], 0)
    made = engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="immutable"), made.begin() as connection:
        connection.execute(sa.text(statement))
    made.dispose()
    assert len(log.read(0, 10)) == 1


def test_sqlite_refuses_a_replacement(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    made = engine(url)
    migrate(made, "quota")
    with contextlib.closing(EventLog(url)) as log:
        log.append([opened(1)], 0)
        with pytest.raises(sa.exc.DBAPIError), made.begin() as connection:
            connection.execute(sa.text("INSERT OR REPLACE INTO events VALUES (1, 'o/a', 1, 'x', x'00', NULL, NULL)"))
        assert log.read(0, 1)[0].topic != "x"
    made.dispose()


def test_postgresql_refuses_truncation(postgres_database: str) -> None:
    made = engine(postgres_database)
    migrate(made, "quota")
    with pytest.raises(sa.exc.DBAPIError, match="immutable"), made.begin() as connection:
        connection.execute(sa.text("TRUNCATE events"))
    made.dispose()


def test_a_lost_reply_to_commit_is_recognised(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = type(log.recorder).append_packed

    def lose_reply(recorder: Any, *args: Any, **kwargs: Any) -> Any:
        insert(recorder, *args, **kwargs)
        raise OperationalError("connection lost")

    monkeypatch.setattr(type(log.recorder), "append_packed", lose_reply)
    log.append([opened(1, "k1")], 0)
    assert log.head() == 1


def test_what_another_stored_there_is_not_taken_for_ours_though_it_is_the_same(log: EventLog) -> None:
    log.append([opened(1, "k1")], 0)
    with pytest.raises(Conflict):
        log.append([opened(1, "k1")], 0)


def test_a_store_that_stays_away_is_unavailable(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("connection refused")

    monkeypatch.setattr("shared.eventstore.log.APPEND_BACKOFF_S", 0.001)
    monkeypatch.setattr(type(log.recorder), "append_packed", fail)
    with pytest.raises(Unavailable):
        log.append([opened(1)], 0)


MIGRATE = "import sys; from shared.eventstore.database import *; migrate(engine(sys.argv[1]), 'quota')"


def test_several_processes_may_migrate_at_once(url: str) -> None:
    starting = [subprocess.Popen([sys.executable, "-c", MIGRATE, url], stderr=subprocess.PIPE) for _ in range(3)]
    failures = [process.stderr.read().decode() for process in starting if process.stderr and process.wait(60)]
    assert failures == []


def commands() -> list[dict[str, Any]]:
    def one(command: str, request_id: str, **fields: Any) -> dict[str, Any]:
        return {"command": command, "operator": OPERATOR, "account": "a1", "request_id": request_id, **fields}

    return [
        one("open_account", "o", credit_limit=100_000),
        one("grant", "g1", amount=1_000_000, source="plan", plan="monthly-9.9", expires_at="2026-06-01T00:01:00Z"),
        one("grant", "g2", amount=1_000_000, source="purchase", price_fen=4),
        one("reserve", "h1", model="kimi-k2.5", amount=1_500_000, ttl_s=30),
        one("settle", "s1", reservation="h1", usage={"input": 200}, final=False),
        one("reserve", "h2", model="kimi-k2.5", max_usage={"input": 10**6, "output": 9}, accept_partial=True),
        one("settle", "s2", reservation="h1", usage={"input": 900, "output": 30}),
        one("debit", "d1", model="deepseek-chat", usage={"input": 3000}, on_insufficient="overdraw"),
        one("reverse", "v1", debit="d1", amount=1_400_000),
        one("suspend", "u1", reason="多谢"),
    ]


def test_sqlite_and_postgresql_give_the_same_events(tmp_path: Path, new_database: Callable[[str], str]) -> None:
    worlds = [World(tmp_path / "lite"), World(tmp_path / "pg", new_database("quota"))]
    logs = []
    for world in worlds:
        world.app.execute(commands()[:5])
        world.clock.advance(1)
        world.app.execute(commands()[5:])
        logs.append(world.app.log.read(0, 100))
        world.app.follow_quota([e._asdict() for e in logs[-1]])
    assert logs[0] == logs[1]
    assert len(logs[0]) == 9
    with worlds[0].app.engine.connect() as lite, worlds[1].app.engine.connect() as pg:
        for table in ("accounts", "grants", "reservations"):
            statement = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
            rows = [sorted(map(comparable, c.execute(sa.text(statement)))) for c in (lite, pg)]
            assert rows[0] == rows[1]
    for world in worlds:
        world.app.close()


def comparable(row: Any) -> list[str]:
    """SQLite has neither booleans nor zones."""
    return [str(int(v) if isinstance(v, bool) else v).replace("+00:00", "").removesuffix(".000000") for v in row]


def test_events_are_readable_with_psql(postgres_database: str) -> None:
    made = engine(postgres_database)
    migrate(made, "quota")
    with contextlib.closing(EventLog(postgres_database)) as log:
        log.append([opened(1, "k1")], 0)
    with psycopg.connect(made.url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        row = connection.execute("SELECT stream, state->>'request_id' FROM readable_events").fetchone()
    made.dispose()
    assert row == ("o/a", "r1")
