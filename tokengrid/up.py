"""The production shape on this machine: RabbitMQ, PostgreSQL, and each service as processes of its own.

All state is under `var/up/`: the servers' data, the plan, the marks of what runs, the logs. Another
process attaches to it by these files. Knows nothing of what the services do; they must answer `ping`.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tokengrid
from shared.config import SERVICES, Settings
from shared.errors import SetupFailed, TokengridError
from shared.messaging.client import Client
from shared.sharding import log_names
from tokengrid import serve, supervise
from tokengrid.servers import PostgreSQL, RabbitMQ, process, state
from tokengrid.servers.install import ensure

REPLICAS: Mapping[str, int] = {"quota": 2}  # of the others one: quota is the hot path, and must survive a death
REPLICAS_MAX = 32
SHARDS = "TOKENGRID_QUOTA_SHARDS"
SHARDS_PREFERRED = "TOKENGRID_QUOTA_SHARDS_PREFERRED"
SHARDS_MAX = 16  # each has connections of its own, in every replica, to one PostgreSQL on this machine
ANSWER_DEADLINE_S = 120.0  # for all services together: each imports and migrates, on two cores
PING_DEADLINE_S = 3.0
STARTS_MAX = 4  # a process that was started so often while we wait will not come up
# What a process may inherit of our environment; the rest is nobody's business and would lie in the plan.
INHERITED = ("TOKENGRID_", "OTEL_", "PYTHON", "PSYCOPG_", "LC_")
ONLY_FOR = {"TOKENGRID_AUDIT_KEY": "audit"}  # a signing key is its owner's alone
# This shape is for trying things out here: a past month is replayed long after it has ended, and what was valid
# then must not expire by today's clock.
BACKDATE_MAX_S = 10 * 366 * 86_400
INHERITED_NAMES = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One process of the shape. `state`: "running" or "stopped". `started_at`: seconds since the epoch."""

    name: str
    state: str
    pid: int | None
    address: str = ""
    started_at: float | None = None
    restarts: int = 0


def serve_program(service: str) -> list[str]:
    return [sys.executable, "-m", "tokengrid.serve", service]


def up(
    var: Path,
    replicas: Mapping[str, int] | None = None,
    progress: Progress = lambda _line: None,
    *,
    programs: Mapping[str, Sequence[str]] | None = None,
    shards: int | None = None,
) -> list[Row]:
    """Start what does not run, and wait until every service answers; returns `status`.

    `replicas`: processes by service, over REPLICAS. `programs`: the command of each service. `shards`: of quota, fixed
    for good at the first start; by default as then, or as the settings have it.
    SetupFailed, with what to do: then, and when interrupted, what this call started is stopped again.
    """
    commands = dict(programs or {name: serve_program(name) for name in (*SERVICES, serve.STREAMS)})
    counts = _counted(commands, replicas or {})
    folder = _folder(var)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder), ExitStack() as undo:
        count = _sharded(folder, shards)
        ensure(progress=progress)
        postgresql = PostgreSQL(
            folder / "postgresql", [_database(service) for service in commands if service != serve.STREAMS]
        )
        rabbitmq = RabbitMQ(folder / "rabbitmq")
        running = [row.name for row in status(var) if row.state == "running"]
        _start_server("PostgreSQL", postgresql, undo, progress)
        if not postgresql.data.is_relative_to(folder):
            progress(f"PostgreSQL: the user it runs as cannot enter {folder}; its data is in {postgresql.data}")
        _start_server("RabbitMQ", rabbitmq, undo, progress)
        for shard in range(count if count > 1 and "quota" in commands else 0):
            postgresql.create_database(_database(f"quota_{shard}"), owner=_database("quota"))
        plan = _plan(folder, commands, counts, count, postgresql, rabbitmq)
        before = supervise.read_plan(folder)
        if before != plan:
            undo.callback(supervise.write_plan, folder, before)
            supervise.write_plan(folder, plan)
        if _supervisor(folder) is None:
            progress("services: starting " + ", ".join(program.name for program in plan))
            undo.callback(_stop_services, folder)
            _start_supervisor(folder)
        _await_answers(folder, plan, client_settings(var), progress)
        undo.pop_all()
        now = [row.name for row in status(var) if row.state == "running"]
        progress(f"already up in {folder}" if now == running else f"up in {folder}")
    return status(var)


def down(var: Path, progress: Progress = lambda _line: None) -> None:
    """Stop the services, then RabbitMQ, then PostgreSQL; harmless when nothing runs. Data and logs stay."""
    folder = _folder(var)
    if not folder.is_dir():
        progress(f"nothing runs in {folder}")
        return
    with _alone(folder):
        running = [row.name for row in status(var) if row.state == "running"]
        progress(f"stopping {', '.join(running)}" if running else f"nothing runs in {folder}")
        _stop_services(folder)
        RabbitMQ(folder / "rabbitmq").stop()
        PostgreSQL(folder / "postgresql").stop()


def status(var: Path) -> list[Row]:
    """Every process of the shape, running or not; empty where `up` never ran."""
    folder = _folder(var)
    rows = []
    for name, server in (
        ("postgresql", PostgreSQL(folder / "postgresql")),
        ("rabbitmq", RabbitMQ(folder / "rabbitmq")),
    ):
        if server.folder.is_dir():
            pid = server.pid
            started_at = process.Mark.of(pid).created if pid else None
            rows.append(Row(name, _state(pid), pid, f"127.0.0.1:{server.port}" if pid else "", started_at))
    if (folder / "plan.json").exists():
        mark = _supervisor(folder)
        rows.append(Row("supervisor", _state(mark), mark.pid if mark else None, "", mark.created if mark else None))
    kept = supervise.read_kept(folder)
    for program in supervise.read_plan(folder):
        one = kept.get(program.name)
        alive = one is not None and one.mark.alive
        restarts = one.starts - 1 if one else 0
        pid, since = (one.mark.pid, one.started_at) if one and alive else (None, None)
        rows.append(Row(program.name, _state(alive), pid, "", since, restarts))
    return rows


def client_settings(var: Path) -> Settings:
    """Settings for a client of what runs in `var`. SetupFailed: nothing was ever started there."""
    rabbitmq = RabbitMQ(_folder(var) / "rabbitmq")
    if not rabbitmq.folder.is_dir():
        raise SetupFailed(f"Nothing runs in {_folder(var)}: start it with `tokengrid up`.")
    known = {"broker": rabbitmq.uri, "var": Path(var).absolute(), "quota_shards": _shards_of(_folder(var)) or 1}
    return Settings().model_copy(update=known)


def database_urls(var: Path) -> dict[str, str]:
    """The databases of what `up` has started, by log. SetupFailed: nothing was."""
    folder = _folder(var)
    given = {program.service: program.env.get("TOKENGRID_DATABASE", "") for program in supervise.read_plan(folder)}
    given.pop(serve.STREAMS, None)
    if not given:
        raise SetupFailed(f"Nothing runs in {folder}: start it with `tokengrid up`.")
    return {
        log: url.format(service=log.replace("-", "_")) if "{service}" in url else url
        for service, url in given.items()
        for log in log_names(service, (_shards_of(folder) or 1) if service == "quota" else 1)
    }


# --- how --------------------------------------------------------------------------------------
def _folder(var: Path) -> Path:
    return Path(var).absolute() / "up"


def _database(service: str) -> str:
    return f"tokengrid_{service}"


def _state(alive: object) -> str:
    return "running" if alive else "stopped"


def _shards_of(folder: Path) -> int | None:
    """The shards of quota as they are planned in a folder; None where nothing is."""
    for program in supervise.read_plan(folder):
        return int(program.env.get(SHARDS, "1"))
    return None


def _sharded(folder: Path, wanted: int | None) -> int:
    """The number of quota's shards. SetupFailed: another one is wanted than there are."""
    settings = Settings()
    if wanted is None and "quota_shards" in settings.model_fields_set:
        wanted = settings.quota_shards
    if wanted is not None and not 0 < wanted <= SHARDS_MAX:
        raise SetupFailed(f"{wanted} shards of quota: ask for 1 to {SHARDS_MAX}.")
    there = _shards_of(folder)
    if there is not None and wanted not in (None, there):
        raise SetupFailed(
            f"What is in {folder} has {there} shards of quota, which is for good: leave --shards and {SHARDS} away, or "
            "start elsewhere with --var."
        )
    return there or wanted or 1


def _counted(commands: Mapping[str, Sequence[str]], replicas: Mapping[str, int]) -> dict[str, int]:
    for name, count in replicas.items():
        if name not in commands:
            raise SetupFailed(f"There is no service {name!r} to replicate: name some of {', '.join(commands)}.")
        if not 0 < count <= REPLICAS_MAX:
            raise SetupFailed(f"{count} replicas of {name}: ask for 1 to {REPLICAS_MAX}.")
    return {name: replicas.get(name, REPLICAS.get(name, 1)) for name in commands}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one `up` or `down` works on a folder at a time."""
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupFailed(f"Another `up` or `down` is at work in {folder}: wait for its end.") from None
        yield


def _start_server(name: str, server: PostgreSQL | RabbitMQ, undo: ExitStack, progress: Progress) -> None:
    if server.pid is None:
        progress(f"{name}: starting")
        undo.callback(server.stop)
    began = time.monotonic()
    server.start()
    progress(f"{name}: ready on 127.0.0.1:{server.port} after {time.monotonic() - began:.1f} s")


def _plan(
    folder: Path,
    commands: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
    shards: int,
    postgresql: PostgreSQL,
    rabbitmq: RabbitMQ,
) -> list[supervise.Program]:
    inherited = {n: v for n, v in os.environ.items() if n.startswith(INHERITED) or n in INHERITED_NAMES}
    for name in (SHARDS, SHARDS_PREFERRED):  # said below
        inherited.pop(name, None)
    if "TOKENGRID_CONFIG_FILE" in inherited:
        inherited["TOKENGRID_CONFIG_FILE"] = str(Path(inherited["TOKENGRID_CONFIG_FILE"]).absolute())
    (folder / "log").mkdir(exist_ok=True)
    preset = {"TOKENGRID_BACKDATE_MAX_S": str(BACKDATE_MAX_S), "TOKENGRID_SWEEP_INTERVAL_S": "0"}
    plan = []
    for service, command in commands.items():
        given = {name: value for name, value in inherited.items() if ONLY_FOR.get(name, service) == service}
        own = {
            "TOKENGRID_BROKER": rabbitmq.uri,
            "TOKENGRID_VAR": str(folder.parent),
        }
        if service != serve.STREAMS:  # it needs none
            own["TOKENGRID_DATABASE"] = postgresql.url(_database(service))
        if shards > 1:
            own[SHARDS] = str(shards)
            if service == "quota":  # a database for each shard, all of one role
                own["TOKENGRID_DATABASE"] = own["TOKENGRID_DATABASE"].removesuffix(service) + "{service}"
        for number in range(1, counts[service] + 1):
            if shards > 1 and service == "quota":
                preferred = [shard for shard in range(shards) if shard % counts[service] == number - 1]
                own = own | {SHARDS_PREFERRED: str(preferred)}
            name = f"{service}-{number}"
            cwd = str(Path(tokengrid.__file__).parents[1])  # where `python -m` finds us, installed or not
            log = str(folder / "log" / f"{name}.log")
            plan.append(supervise.Program(name, service, list(command), {**preset, **given, **own}, cwd, log))
    return plan


def _supervisor(folder: Path) -> process.Mark | None:
    mark = process.Mark.read(state.load(folder / "supervisor-mark.json").get("mark"))
    return mark if mark and mark.alive else None


def _start_supervisor(folder: Path) -> None:
    mark = process.start(
        [sys.executable, "-m", "tokengrid.supervise", str(folder)],
        env=process.plain_environment(),
        log=folder / "log" / "supervisor.log",
        cwd=Path(tokengrid.__file__).parents[1],
    )
    state.save(folder / "supervisor-mark.json", {"mark": mark.as_dict()})


def _stop_services(folder: Path) -> None:
    mark = _supervisor(folder)
    if mark is not None:
        mark.send(signal.SIGTERM)  # it stops its processes, then itself
        process.wait_until(lambda: not mark.alive, supervise.STOP_BOUND_S + process.KILL_WAIT_S)
        if mark.alive:
            mark.send(signal.SIGKILL)
            process.wait_until(lambda: not mark.alive, process.KILL_WAIT_S)
    # What a supervisor that was killed left behind.
    supervise.stop_all(kept.mark for kept in supervise.read_kept(folder).values() if kept.mark.alive)


def _await_answers(folder: Path, plan: list[supervise.Program], settings: Settings, progress: Progress) -> None:
    """Every process of the plan runs and every service answers. SetupFailed: not in time, or one keeps dying."""
    starts_before = {name: kept.starts for name, kept in supervise.read_kept(folder).items()}
    end = time.monotonic() + ANSWER_DEADLINE_S

    def wait_for(what: str, condition: Callable[[], bool]) -> None:
        while not condition():
            _refuse_hopeless(folder, plan, starts_before)
            if time.monotonic() > end:
                logs = "\n".join(process.tail(Path(program.log), 4) for program in plan)
                raise SetupFailed(f"{what} within {ANSWER_DEADLINE_S:g} s: see the logs in {folder / 'log'}.\n{logs}")
            time.sleep(process.POLL_S)

    wait_for("Not every process ran", lambda: _all_run(folder, plan))
    with Client(settings, "up") as client:
        for service in dict.fromkeys(program.service for program in plan if program.service != serve.STREAMS):
            wait_for(f"The service {service} did not answer", lambda service=service: _answers(client, service))  # type: ignore[misc]
            progress(f"{service}: answers")
    wait_for("Not every process ran", lambda: _all_run(folder, plan))


def _answers(client: Client, service: str) -> bool:
    try:
        client.call(service, "ping", deadline_s=PING_DEADLINE_S)
    except TokengridError:
        return False
    return True


def _all_run(folder: Path, plan: list[supervise.Program]) -> bool:
    """What runs is what was planned, no more and no less."""
    running = {name: kept.digest for name, kept in supervise.read_kept(folder).items() if kept.mark.alive}
    return running == {program.name: program.digest for program in plan}


def _refuse_hopeless(folder: Path, plan: list[supervise.Program], starts_before: Mapping[str, int]) -> None:
    if _supervisor(folder) is None:
        log = folder / "log" / "supervisor.log"
        raise SetupFailed(f"The supervisor has ended: correct what its log {log} says.\n{process.tail(log)}")
    kept = supervise.read_kept(folder)
    for program in plan:
        one = kept.get(program.name)
        if one is not None and one.starts - starts_before.get(program.name, 0) >= STARTS_MAX:
            said = process.tail(Path(program.log))
            raise SetupFailed(f"{program.name} keeps dying: correct what its log {program.log} says.\n{said}")
