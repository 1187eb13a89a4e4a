"""A private PostgreSQL: its own data, port, superuser and passwords, on loopback, with fsync on.

Every database has a role of its own that owns it and may enter no other. Knows nothing of tables.
"""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from shared.errors import SetupFailed
from tokengrid.servers import cluster, ports, process, state

START_DEADLINE_S = 90.0  # under a second on an idle machine; recovery after a crash takes longer
STOP_BOUND_S = 30.0  # a fast shutdown writes a checkpoint; past that we kill, and it recovers at the next start
CONNECTIONS_MAX = 200  # five services, their replicas and the tests
IN_USE = "Address already in use"
CRASHED_RECENTLY = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class PostgreSQL:
    """The server of one folder, whichever process started it.

    `databases`: those to create at the start, if they are not there.
    """

    def __init__(
        self,
        folder: Path,
        databases: Sequence[str] = (),
        *,
        programs: Path | None = None,
        pick_ports: Callable[[int], list[int]] = ports.free_ports,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.databases = tuple(databases)
        self._programs = programs
        self._pick_ports = pick_ports
        self._state: dict[str, Any] = state.load(self._state_file)

    # --- what it is -------------------------------------------------------------------------
    def url(self, database: str) -> str:
        """`postgresql+psycopg://role:password@127.0.0.1:port/database`, as the database's own role."""
        return self._url(database, self._state["roles"][database], database)

    def admin_url(self, database: str = "postgres") -> str:
        """The same as the superuser: for tests that look behind the scenes, never for a service."""
        return self._url(cluster.SUPERUSER, self._state["password"], database)

    @property
    def port(self) -> int:
        return int(self._state["port"])

    @property
    def pid(self) -> int | None:
        """The postmaster; None when it does not run."""
        mark = self._mark
        return mark.pid if mark and mark.alive else None

    @property
    def pids(self) -> list[int]:
        """The postmaster and its children, those that run."""
        mark = self._mark
        return [mark.pid, *(child.pid for child in mark.descendants())] if mark and mark.alive else []

    @property
    def data(self) -> Path:
        """Where the data is: in the folder, or where the user it runs as can reach it."""
        return Path(self._state["data"])

    @property
    def log(self) -> Path:
        return self.folder / "postgresql.log"

    # --- what it does -----------------------------------------------------------------------
    def start(self) -> None:
        """Start, wait until it accepts work, create missing databases; nothing happens when it runs already.

        SetupFailed: the programs are missing, or it did not start, with the end of its log.
        """
        self._state = state.load(self._state_file) or self._state  # another process may have started it since
        mark = self._mark
        if mark is not None and mark.alive:  # or dying, or recovering: which of them is soon clear
            process.wait_until(lambda: not mark.alive or self._accepts_work(mark), START_DEADLINE_S)
        if self.pid is None:
            self._prepare()
            self._run()
        for name in self.databases:
            self.create_database(name)

    def stop(self) -> None:
        """End it within a bound, breaking off connections; nothing happens when it does not run."""
        mark = self._mark
        if mark is not None:
            mark.stop(signal.SIGINT, STOP_BOUND_S)  # "fast": the polite SIGTERM would wait for every client
            del self._state["process"]
            state.save(self._state_file, self._state)

    def kill(self) -> None:
        """SIGKILL the postmaster at once, as a crash would end it; `start` recovers."""
        mark = self._mark
        if mark is not None:
            mark.stop(signal.SIGKILL, process.KILL_WAIT_S)

    def remove(self) -> None:
        """Stop it and delete its folder with all data."""
        self.stop()
        if "data" in self._state and not self.data.is_relative_to(self.folder):
            shutil.rmtree(self.data.parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, name: str, owner: str = "") -> str:
        """A database, unless it is there, with a role of its own or that of another database, `owner`; its URL."""
        owner = owner or name
        roles: dict[str, str] = self._state.setdefault("roles", {})
        if owner not in roles:
            roles[owner] = secrets.token_hex(16)
            state.save(self._state_file, self._state)
        with self._admin() as connection:
            role, database = sql.Identifier(owner), sql.Identifier(name)
            there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)).fetchone()
            verb = sql.SQL("ALTER" if there else "CREATE")
            password = sql.Literal(roles[owner])
            connection.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        return self._url(owner, roles[owner], name)

    def drop_database(self, name: str) -> None:
        """Delete a database and its role, breaking off its connections."""
        with self._admin() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
        self._state.get("roles", {}).pop(name, None)
        state.save(self._state_file, self._state)

    # --- how --------------------------------------------------------------------------------
    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _mark(self) -> process.Mark | None:
        return process.Mark.read(self._state.get("process"))

    def _url(self, role: str, password: str, database: str) -> str:
        return f"postgresql+psycopg://{role}:{password}@{ports.LOOPBACK}:{self.port}/{database}"

    def _admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        plain = self.admin_url().replace("postgresql+psycopg:", "postgresql:")
        return psycopg.connect(plain, autocommit=True, connect_timeout=5)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        if "data" not in self._state:
            self._state = cluster.create(self.folder, self._programs)
            state.save(self._state_file, self._state)
        elif not (self.data / "PG_VERSION").exists():
            # Never begin anew in silence: a ledger that is suddenly empty is worse than one that does not start.
            raise SetupFailed(
                f"PostgreSQL's data in {self.data} is gone: restore it, or delete {self.folder} to start empty."
            )

    def _run(self) -> None:
        major = (self.data / "PG_VERSION").read_text().strip()
        programs = cluster.find_programs(self._programs, major=major)
        tries, end = ports.START_TRIES_MAX, False
        while not end:
            port = self._state.get("port")
            # That of the last run where it is still free, so that clients find the server again.
            self._state["port"] = port if port and ports.is_free(port) else self._pick_ports(1)[0]
            try:
                if self._launch(programs):
                    return
            except BaseException:
                self.stop()
                raise
            log = process.tail(self.log)
            self.stop()
            tries -= 1
            recovering = any(words in log for words in CRASHED_RECENTLY)
            end = tries == 0 or not (recovering or IN_USE in log)
        raise SetupFailed(f"PostgreSQL did not start in {self.folder}: correct what its log says.\n{log}")

    def _launch(self, programs: Path) -> bool:
        """Start the postmaster; False when it ended before it was ready, or did not get ready in time."""
        settings = {
            "port": self._state["port"],
            "listen_addresses": ports.LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": CONNECTIONS_MAX,
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = [str(programs / "postgres"), "-D", str(self.data), *options]
        self.log.unlink(missing_ok=True)
        try:
            environment = process.plain_environment()
            mark = process.start(argv, env=environment, log=self.log, user=self._state["user"], cwd=self.data)
        except OSError as error:
            raise SetupFailed(f"{argv[0]} cannot be run: {error.strerror}; {cluster.ADVICE}") from error
        self._state["process"] = mark.as_dict()
        state.save(self._state_file, self._state)
        process.wait_until(lambda: not mark.alive or self._accepts_work(mark), START_DEADLINE_S)
        return mark.alive and self._accepts_work(mark)

    def _accepts_work(self, mark: process.Mark) -> bool:
        if not mark.listens(self.port):
            return False
        try:
            with self._admin() as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True
