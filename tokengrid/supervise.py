"""`python -m tokengrid.supervise FOLDER`: keeps the processes of FOLDER/plan.json running until SIGTERM.

A process that dies is started again, later each time it dies young. A changed plan is followed at once:
new entries are started, missing and changed ones stopped. What runs is written to FOLDER/supervisor.json;
a supervisor that was killed finds its processes there again. Must not know what the processes do.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokengrid.servers import process, state

TICK_S = 0.2  # a dead process is noticed within this time
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0  # before a restart: doubled for each early death
PROVEN_S = 60.0  # a process that lived so long was no early death
STOP_BOUND_S = 25.0  # a service gives itself the longest call's 15 s and 5 s more
LOG_SIZE_MAX = 10_000_000  # bytes; looked at when a process starts, and one old log is kept


@dataclass(frozen=True)
class Program:
    """One process to be kept running; `name` is unique in the plan."""

    name: str
    service: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str

    @property
    def digest(self) -> str:
        """Changes when the process must be started anew."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass
class Kept:
    """A process as it runs, or as it last ran."""

    mark: process.Mark
    digest: str
    starts: int = 1
    early_deaths: int = 0
    started_at: float = field(default_factory=time.time)  # seconds since the epoch
    start_after: float = 0.0  # this process's monotonic clock; not written down

    def as_dict(self) -> dict[str, Any]:
        return {**self.mark.as_dict(), "digest": self.digest, "starts": self.starts, "started_at": self.started_at}


def write_plan(folder: Path, programs: Iterable[Program]) -> None:
    """What the supervisor of this folder shall run; it notices by itself. Holds secrets: only we may read it."""
    state.save(folder / "plan.json", {"programs": [asdict(program) for program in programs]})


def read_plan(folder: Path) -> list[Program]:
    return [Program(**each) for each in state.load(folder / "plan.json").get("programs", [])]


def read_kept(folder: Path) -> dict[str, Kept]:
    """What the supervisor of this folder started last, by the programs' names."""
    processes: dict[str, dict[str, Any]] = state.load(folder / "supervisor.json").get("processes", {})
    return {
        name: Kept(
            process.Mark(int(each["pid"]), each["created"]), each["digest"], each["starts"], 0, each["started_at"]
        )
        for name, each in processes.items()
    }


def stop_all(marks: Iterable[process.Mark]) -> None:
    """All at once, so that it takes as long as the slowest."""
    marks = list(marks)
    for mark in marks:
        mark.send(signal.SIGTERM)
    process.wait_until(lambda: not any(mark.alive for mark in marks), STOP_BOUND_S)
    for mark in marks:
        mark.stop(signal.SIGKILL, process.KILL_WAIT_S)


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = read_kept(folder)
        self._plan: dict[str, Program] = {}
        self._plan_seen = 0

    def tick(self) -> None:
        """Compare what runs with the plan, and act."""
        changed = self._look_at_plan()
        surplus = [name for name, kept in self.kept.items() if self._digest(name) != kept.digest]
        if surplus:
            stop_all(self.kept[name].mark for name in surplus)
            for name in surplus:
                del self.kept[name]
        for name, program in self._plan.items():
            changed |= self._keep_running(name, program)
        if changed or surplus:
            self.save()

    def save(self) -> None:
        state.save(self.folder / "supervisor.json", {"processes": {n: kept.as_dict() for n, kept in self.kept.items()}})

    def _digest(self, name: str) -> str | None:
        program = self._plan.get(name)
        return program.digest if program else None

    def _look_at_plan(self) -> bool:
        changed_at = (self.folder / "plan.json").stat().st_mtime_ns
        if changed_at == self._plan_seen:
            return False
        self._plan = {program.name: program for program in read_plan(self.folder)}
        self._plan_seen = changed_at
        return True

    def _keep_running(self, name: str, program: Program) -> bool:
        """Whether it had to be started."""
        last = self.kept.get(name)
        if last is None:
            self.kept[name] = Kept(_start(program), program.digest)
            return True
        if last.mark.alive:
            return False
        if not last.start_after:
            early = time.time() - last.started_at < PROVEN_S
            last.early_deaths = last.early_deaths + 1 if early else 0
            pause_s = min(PAUSE_FIRST_S * 2 ** max(0, last.early_deaths - 1), PAUSE_MAX_S)
            last.start_after = time.monotonic() + pause_s
            _note(f"{name} (pid {last.mark.pid}) has died; it starts again in {pause_s:g} s")
        if time.monotonic() < last.start_after:
            return False
        self.kept[name] = Kept(_start(program), program.digest, last.starts + 1, last.early_deaths)
        return True


def _start(program: Program) -> process.Mark:
    log = Path(program.log)
    if log.exists() and log.stat().st_size > LOG_SIZE_MAX:
        log.replace(log.with_suffix(".old.log"))
    mark = process.start(program.argv, env=program.env, log=log, cwd=Path(program.cwd))
    _note(f"{program.name} started (pid {mark.pid})")
    return mark


def _note(line: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stderr.write(f"{now} {line}\n")
    sys.stderr.flush()


def main(folder: Path) -> int:
    """Supervise until SIGTERM or SIGINT, then stop all processes."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    supervisor = Supervisor(folder)
    while not stopping:
        supervisor.tick()
        time.sleep(TICK_S)
    stop_all(kept.mark for kept in supervisor.kept.values())
    supervisor.kept.clear()
    supervisor.save()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tokengrid.supervise FOLDER")
    raise SystemExit(main(Path(sys.argv[1])))
