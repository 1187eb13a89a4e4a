"""The supervisor: what is planned runs, what dies comes back, and what it leaves is found again."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokengrid import supervise
from tokengrid.servers import process

REPOSITORY = Path(supervise.__file__).parents[1]


@pytest.fixture
def start_supervisor(tmp_path: Path) -> Iterator[Callable[[], process.Mark]]:
    marks: list[process.Mark] = []

    def start() -> process.Mark:
        argv = [sys.executable, "-m", "tokengrid.supervise", str(tmp_path)]
        log = tmp_path / "supervisor.log"
        marks.append(process.start(argv, env=process.plain_environment(), log=log, cwd=REPOSITORY))
        return marks[-1]

    yield start
    for mark in marks:
        mark.stop(signal.SIGTERM, 30)
    supervise.stop_all(kept.mark for kept in supervise.read_kept(tmp_path).values())


def program(folder: Path, name: str, script: str = "while :; do sleep 0.05; done", **env: str) -> supervise.Program:
    environment = {**process.plain_environment(), **env}
    return supervise.Program(name, name, ["sh", "-c", script], environment, "/", str(folder / f"{name}.log"))


def running(folder: Path) -> dict[str, int]:
    return {name: kept.mark.pid for name, kept in supervise.read_kept(folder).items() if kept.mark.alive}


def eventually(condition: Callable[[], bool]) -> None:
    assert process.wait_until(condition, 20)


def test_what_dies_is_started_again(tmp_path: Path, start_supervisor: Callable[[], process.Mark]) -> None:
    supervise.write_plan(tmp_path, [program(tmp_path, "a")])
    start_supervisor()
    eventually(lambda: "a" in running(tmp_path))
    first = running(tmp_path)["a"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: running(tmp_path).get("a", first) != first)
    assert supervise.read_kept(tmp_path)["a"].starts == 2


def test_what_keeps_dying_is_started_ever_later(tmp_path: Path) -> None:
    supervise.write_plan(tmp_path, [program(tmp_path, "a", "exit 1")])
    supervisor = supervise.Supervisor(tmp_path)
    pauses = []
    for _ in range(8):
        supervisor.tick()
        assert process.wait_until(lambda: not supervisor.kept["a"].mark.alive, 5)
        before = process.time.monotonic()
        supervisor.tick()
        pauses.append(round(supervisor.kept["a"].start_after - before, 1))
        supervisor.kept["a"].start_after = before  # its time has come
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_changed_plan_is_followed(tmp_path: Path, start_supervisor: Callable[[], process.Mark]) -> None:
    supervise.write_plan(tmp_path, [program(tmp_path, name) for name in ("same", "surplus", "changed")])
    start_supervisor()
    eventually(lambda: len(running(tmp_path)) == 3)
    before = running(tmp_path)
    plan = [program(tmp_path, "same"), program(tmp_path, "changed", COLOUR="red"), program(tmp_path, "new")]
    supervise.write_plan(tmp_path, plan)
    eventually(lambda: set(running(tmp_path)) == {"same", "changed", "new"})
    after = running(tmp_path)
    assert after["same"] == before["same"]
    assert after["changed"] != before["changed"]


def test_stopping_it_stops_its_processes(tmp_path: Path, start_supervisor: Callable[[], process.Mark]) -> None:
    supervise.write_plan(tmp_path, [program(tmp_path, "a"), program(tmp_path, "b")])
    mark = start_supervisor()
    eventually(lambda: len(running(tmp_path)) == 2)
    marks = [kept.mark for kept in supervise.read_kept(tmp_path).values()]
    mark.stop(signal.SIGTERM, 20)
    assert [each for each in marks if each.alive] == []
    assert supervise.read_kept(tmp_path) == {}


def test_after_its_own_death_it_finds_its_processes_again(
    tmp_path: Path, start_supervisor: Callable[[], process.Mark]
) -> None:
    supervise.write_plan(tmp_path, [program(tmp_path, "a")])
    mark = start_supervisor()
    eventually(lambda: "a" in running(tmp_path))
    before = running(tmp_path)
    os.kill(mark.pid, signal.SIGKILL)
    eventually(lambda: not mark.alive)
    assert running(tmp_path) == before
    start_supervisor()
    # The new one follows a new plan, and leaves the process it found as it is.
    supervise.write_plan(tmp_path, [program(tmp_path, "a"), program(tmp_path, "b")])
    eventually(lambda: "b" in running(tmp_path))
    assert running(tmp_path)["a"] == before["a"]
