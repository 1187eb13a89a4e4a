"""A private RabbitMQ: its own node, epmd, ports, data, cookie and user, all on loopback.

No plugin is enabled: quorum queues and `x-queue-type: stream` need none. Knows nothing of what is
sent through it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.errors import SetupFailed
from tokengrid.servers import ports, process, state

VHOST = "tokengrid"
USER = "tokengrid"
START_DEADLINE_S = 90.0  # 4 s on an idle machine; a loaded one with a long log to recover takes longer
STOP_BOUND_S = 30.0  # a graceful stop flushes queues; past that we kill, and it recovers at the next start
CONTROL_BOUND_S = 60.0
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")  # the real ones; /usr/sbin's switch user and folder
ADVICE = "install it: python -m tokengrid.servers.install"
IN_USE = ("eaddrinuse", "already in use", "address in use")


def find_scripts(scripts: Path | None = None) -> Path:
    """The folder of `rabbitmq-server` and `rabbitmqctl`. SetupFailed: not there, or Erlang is not."""
    candidates = [scripts] if scripts else [DEBIAN_SCRIPTS, *_beside("rabbitmq-server")]
    for folder in candidates:
        if os.access(folder / "rabbitmq-server", os.X_OK):
            for program in ("erl", "epmd"):
                if shutil.which(program) is None:
                    raise SetupFailed(f"RabbitMQ needs Erlang's `{program}`, which is not on the PATH; {ADVICE}")
            return folder
    where = ", ".join(str(folder) for folder in candidates)
    raise SetupFailed(f"RabbitMQ's program rabbitmq-server is not in {where}; {ADVICE}")


def _beside(program: str) -> list[Path]:
    found = shutil.which(program)
    return [Path(found).resolve().parent] if found else []


class RabbitMQ:
    """The server of one folder, whichever process started it.

    `vhosts`: those to create at the start; the first is `uri`'s. `pick_ports(count)` chooses ports.
    """

    def __init__(
        self,
        folder: Path,
        *,
        vhosts: Sequence[str] = (VHOST,),
        scripts: Path | None = None,
        pick_ports: Callable[[int], list[int]] = ports.free_ports,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.vhosts = list(vhosts)
        self._scripts = scripts
        self._pick_ports = pick_ports
        self._state: dict[str, Any] = state.load(self._state_file)

    # --- what it is -------------------------------------------------------------------------
    @property
    def uri(self) -> str:
        """`amqp://user:password@127.0.0.1:port/vhost`, for the first vhost."""
        return self.vhost_uri(self.vhosts[0])

    def vhost_uri(self, vhost: str) -> str:
        return f"amqp://{USER}:{self._state['password']}@{ports.LOOPBACK}:{self.port}/{vhost}"

    @property
    def port(self) -> int:
        return int(self._state["ports"]["amqp"])

    @property
    def pid(self) -> int | None:
        """The Erlang machine itself; None when it does not run."""
        mark = self._mark("server")
        return mark.pid if mark and mark.alive else None

    @property
    def pids(self) -> list[int]:
        """Every process of ours that runs, epmd included."""
        marks = [mark for mark in (self._mark("server"), self._mark("epmd")) if mark and mark.alive]
        return [pid for mark in marks for pid in (mark.pid, *(child.pid for child in mark.descendants()))]

    @property
    def log(self) -> Path:
        return self.folder / "log" / "rabbitmq.log"

    # --- what it does -----------------------------------------------------------------------
    def start(self) -> None:
        """Start and wait until it accepts work; nothing happens when it runs already.

        SetupFailed: the program is missing, or it did not start, with the end of its log.
        """
        self._state = state.load(self._state_file) or self._state  # another process may have started it since
        if self.pid is not None:
            return
        scripts = find_scripts(self._scripts)
        self.stop()  # after a crash of the server epmd still runs and holds its port
        self._prepare()
        for _ in range(ports.START_TRIES_MAX):
            self._choose_ports()
            try:
                if self._launch(scripts):
                    return
            except BaseException:
                self.stop()
                raise
            log, used = self._log_tail(), self._port_lost()
            self.stop()
            if not used:
                break
        raise SetupFailed(f"RabbitMQ did not start in {self.folder}: correct what its log says.\n{log}")

    def stop(self) -> None:
        """End it gracefully, within a bound; nothing happens when it does not run."""
        for name, number in (("server", signal.SIGTERM), ("epmd", signal.SIGTERM)):
            mark = self._mark(name)
            if mark is not None:
                mark.stop(number, STOP_BOUND_S)
        if self._state.pop("processes", None):
            state.save(self._state_file, self._state)

    def kill(self) -> None:
        """SIGKILL the server at once, as a crash would end it; `start` recovers."""
        mark = self._mark("server")
        if mark is not None:
            mark.stop(signal.SIGKILL, process.KILL_WAIT_S)

    def remove(self) -> None:
        """Stop it and delete its folder with all data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; returns what it printed. SetupFailed: it failed."""
        command = [str(find_scripts(self._scripts) / "rabbitmqctl"), "--quiet", *arguments]
        result = subprocess.run(
            command,
            env={**self._environment(), "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK_DISTRIBUTION},
            capture_output=True,
            text=True,
            timeout=CONTROL_BOUND_S,
            check=False,
        )
        if result.returncode != 0:
            raise SetupFailed(f"rabbitmqctl {' '.join(arguments)} failed: {result.stderr.strip() or result.stdout}")
        return result.stdout

    def create_vhosts(self, names: Iterable[str]) -> None:
        """Create vhosts in the running server; takes about two seconds however many they are."""
        added = [name for name in names if name not in self.vhosts]
        self.vhosts.extend(added)
        self._write_definitions()
        self.control("import_definitions", str(self._definitions))

    # --- how --------------------------------------------------------------------------------
    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _definitions(self) -> Path:
        return self.folder / "etc" / "definitions.json"

    def _mark(self, name: str) -> process.Mark | None:
        return process.Mark.read(self._state.get("processes", {}).get(name))

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("data", "log", "etc", "home"):
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        if "password" not in self._state:
            self._state |= {"password": secrets.token_hex(16), "node": f"tokengrid-{secrets.token_hex(4)}@localhost"}
        (self.folder / "etc" / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        self._write_definitions()

    def _choose_ports(self) -> None:
        """Those of the last run where they are still free, so that clients find the server again."""
        known: dict[str, int] = self._state.get("ports", {})
        if not known or not ports.still_free(known.values()):
            known = dict(zip(("amqp", "distribution", "epmd"), self._pick_ports(3), strict=True))
        self._state["ports"] = known
        configuration = f"""\
listeners.tcp.1 = {ports.LOOPBACK}:{known["amqp"]}
load_definitions = {self._definitions}
log.console = false
log.file = {self.log.name}
log.file.level = info
log.connection.level = warning
log.file.rotation.size = 10485760
log.file.rotation.count = 3
"""
        state.write_private(self.folder / "etc" / "rabbitmq.conf", configuration)
        state.save(self._state_file, self._state)

    def _write_definitions(self) -> None:
        salt = secrets.token_bytes(4)
        hashed = base64.b64encode(salt + hashlib.sha256(salt + self._state["password"].encode()).digest()).decode()
        every = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [
                {
                    "name": USER,
                    "password_hash": hashed,
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "administrator",
                }
            ],
            "vhosts": [{"name": name} for name in self.vhosts],
            "permissions": [{"user": USER, "vhost": name, **every} for name in self.vhosts],
        }
        state.write_private(self._definitions, json.dumps(definitions))

    def _environment(self) -> dict[str, str]:
        etc, known = self.folder / "etc", self._state["ports"]
        return {
            **process.plain_environment(),
            "HOME": str(self.folder / "home"),  # holds the cookie
            "ERL_EPMD_ADDRESS": ports.LOOPBACK,
            "ERL_EPMD_PORT": str(known["epmd"]),
            "RABBITMQ_NODENAME": self._state["node"],
            "RABBITMQ_DIST_PORT": str(known["distribution"]),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(etc / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(etc / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(etc / "rabbitmq-env.conf"),  # not the system's
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(etc / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-start_epmd false {_LOOPBACK_DISTRIBUTION}",
            # The script then becomes the Erlang machine instead of waiting for it: its pid is the server's,
            # and SIGTERM stops it gracefully.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _launch(self, scripts: Path) -> bool:
        """Start epmd and the server; False when it ended before it was ready, or did not get ready in time."""
        self.log.unlink(missing_ok=True)
        output = self.folder / "log" / "output.log"
        output.unlink(missing_ok=True)
        environment = self._environment()
        epmd = shutil.which("epmd") or "epmd"
        port = str(self._state["ports"]["epmd"])
        names = self._start("epmd", [epmd, "-address", ports.LOOPBACK, "-port", port], environment, output)
        process.wait_until(lambda: not names.alive or names.listens(int(port)), START_DEADLINE_S)
        if not names.alive:
            return False
        server = self._start("server", [str(scripts / "rabbitmq-server")], environment, output)
        process.wait_until(lambda: not server.alive or self._accepts_work(server), START_DEADLINE_S)
        return server.alive and self._accepts_work(server)

    def _start(self, name: str, argv: Sequence[str], environment: dict[str, str], log: Path) -> process.Mark:
        try:
            mark = process.start(argv, env=environment, log=log, cwd=self.folder)
        except OSError as error:
            raise SetupFailed(f"{argv[0]} cannot be run: {error.strerror}; {ADVICE}") from error
        self._state.setdefault("processes", {})[name] = mark.as_dict()
        state.save(self._state_file, self._state)
        return mark

    def _accepts_work(self, server: process.Mark) -> bool:
        if not server.listens(self.port):
            return False
        import amqp  # here, so that a look at the state needs no AMQP client

        address = f"{ports.LOOPBACK}:{self.port}"
        connection = amqp.Connection(
            address, USER, self._state["password"], virtual_host=self.vhosts[0], connect_timeout=5, read_timeout=5
        )
        try:
            connection.connect()
            connection.close()
        except (amqp.AMQPError, OSError):
            return False
        return True

    def _log_tail(self) -> str:
        return "\n".join((process.tail(self.log), process.tail(self.folder / "log" / "output.log"))).strip()

    def _port_lost(self) -> bool:
        """Whether it failed for a port that another process took meanwhile."""
        text = "".join(path.read_text(errors="replace").lower() for path in (self.folder / "log").glob("*.log"))
        return any(words in text for words in IN_USE)


_LOOPBACK_DISTRIBUTION = "-kernel inet_dist_use_interface {127,0,0,1}"
