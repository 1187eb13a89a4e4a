"""`up` and `down`: the production shape comes up whole or not at all, comes back, and goes without a trace."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import SetupFailed
from shared.messaging.client import Client
from tests.waiting import eventually
from tokengrid import supervise
from tokengrid import up as shape
from tokengrid.servers import PostgreSQL, process

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

ECHO = {"echo": [sys.executable, "-m", "tests.standin", "echo"]}
BROKEN = {"broken": [sys.executable, "-m", "tests.standin", "broken", "exit"]}


@pytest.fixture(scope="module")
def module_var(servers_folder: Path) -> Iterator[Path]:
    var = servers_folder / "var"
    yield var
    shape.down(var)
    PostgreSQL(var / "up" / "postgresql").remove()


@pytest.fixture
def var(module_var: Path) -> Path:
    """A folder where two processes of the stand-in run."""
    shape.up(module_var, {"echo": 2}, programs=ECHO)
    return module_var


@pytest.fixture
def echo(var: Path) -> Iterator[Client]:
    with Client(shape.client_settings(var)) as client:
        yield client


def running(var: Path) -> dict[str, int | None]:
    return {row.name: row.pid for row in shape.status(var) if row.state == "running"}


def marks(var: Path) -> list[process.Mark]:
    return [process.Mark.of(pid) for pid in running(var).values() if pid]


def answered(client: Client, service: str = "echo") -> dict:
    return client.call(service, "ping", retries=5)


def test_every_replica_runs_and_answers_from_a_database_of_its_service(var: Path, echo: Client) -> None:
    assert set(running(var)) == {"postgresql", "rabbitmq", "supervisor", "echo-1", "echo-2"}
    pids = {running(var)["echo-1"], running(var)["echo-2"]}
    eventually(lambda: pids.discard(answered(echo)["pid"]) or not pids)
    answer = answered(echo)
    assert answer["database"].endswith("/tokengrid_echo")
    assert answer["var"] == str(var)


def test_up_again_says_so_and_changes_nothing(var: Path) -> None:
    before, said = running(var), []
    shape.up(var, {"echo": 2}, said.append, programs=ECHO)
    assert running(var) == before
    assert said[-1] == f"already up in {var / 'up'}"


def test_a_service_that_is_killed_comes_back_by_itself(var: Path) -> None:
    victim = running(var)["echo-1"]
    assert victim
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: running(var).get("echo-1", victim) != victim, within_s=30)
    row = next(row for row in shape.status(var) if row.name == "echo-1")
    assert row.restarts >= 1


def test_a_server_that_was_killed_is_started_by_up_and_the_services_answer(var: Path) -> None:
    victim = running(var)["postgresql"]
    assert victim
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "postgresql" not in running(var))
    shape.up(var, {"echo": 2}, programs=ECHO)
    assert running(var)["postgresql"] != victim


def test_replicas_can_be_added_and_taken_away_while_it_runs(var: Path) -> None:
    first = running(var)["echo-1"]
    shape.up(var, {"echo": 3}, programs=ECHO)
    assert {"echo-1", "echo-2", "echo-3"} <= set(running(var))
    shape.up(var, {"echo": 1}, programs=ECHO)
    assert {name for name in running(var) if name.startswith("echo")} == {"echo-1"}
    assert running(var)["echo-1"] == first


def test_a_service_that_cannot_start_is_reported_with_its_log_and_what_ran_before_runs_on(
    var: Path, echo: Client
) -> None:
    before = running(var)
    with pytest.raises(SetupFailed, match=r"broken-1 keeps dying[\s\S]*the disk is on fire"):
        shape.up(var, {"echo": 2}, programs={**ECHO, **BROKEN})
    eventually(lambda: running(var) == before, within_s=30)
    answered(echo)


def test_its_secrets_are_readable_by_its_owner_alone(var: Path) -> None:
    for file in (var / "up").glob("*.json"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_the_signing_key_is_given_to_no_service_but_its_owner(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENGRID_AUDIT_KEY", "a secret")
    monkeypatch.setenv("TOKENGRID_LOG_LEVEL", "ERROR")
    shape.up(var, {"echo": 2}, programs=ECHO)
    plan = supervise.read_plan(var / "up")
    assert plan
    assert all(program.env["TOKENGRID_LOG_LEVEL"] == "ERROR" for program in plan)
    assert all("TOKENGRID_AUDIT_KEY" not in program.env for program in plan)


def test_a_second_up_at_the_same_time_is_refused(var: Path) -> None:
    def meanwhile(line: str) -> None:
        with pytest.raises(SetupFailed, match="Another `up` or `down` is at work"):
            shape.down(var)

    shape.up(var, {"echo": 2}, meanwhile, programs=ECHO)


# --- going down: the last ones, since what is down has to be started again ------------------------
def test_down_leaves_no_process_and_is_harmless_when_repeated(var: Path) -> None:
    before = marks(var)
    family = [*before, *(child for mark in before for child in mark.descendants())]
    shape.down(var)
    assert [mark for mark in family if mark.alive] == []
    assert running(var) == {}
    shape.down(var)


def test_after_a_killed_supervisor_down_still_ends_every_service(var: Path) -> None:
    supervisor = running(var)["supervisor"]
    assert supervisor
    before = marks(var)
    os.kill(supervisor, signal.SIGKILL)
    shape.down(var)
    assert [mark for mark in before if mark.alive] == []


def test_an_interrupted_up_leaves_nothing_running(module_var: Path) -> None:
    seen: list[process.Mark] = []

    def interrupt(line: str) -> None:
        seen.extend(marks(module_var))
        if line.startswith("echo: answers"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shape.up(module_var, progress=interrupt, programs=ECHO)
    assert len(seen) > 2
    assert [mark for mark in seen if mark.alive] == []
    assert running(module_var) == {}


def test_down_where_nothing_ever_ran_creates_nothing(tmp_path: Path) -> None:
    shape.down(tmp_path)
    assert shape.status(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replicas", [{"quotta": 1}, {"echo": 0}, {"echo": 33}])
def test_senseless_replicas_are_refused_before_anything_starts(tmp_path: Path, replicas: dict[str, int]) -> None:
    with pytest.raises(SetupFailed):
        shape.up(tmp_path, replicas, programs=ECHO)
    assert list(tmp_path.iterdir()) == []


def test_a_client_of_nothing_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="start it with"):
        shape.client_settings(tmp_path)
