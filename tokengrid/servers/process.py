"""Processes known by pid and creation time, so that only our own are ever signalled.

A pid alone may be recycled; pid and creation time together may not. A mark can be written to a
file, and another process can attach to what it names. Must not know what the processes do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_S = 0.03  # short beside any start, long beside the cost of a look
CREATED_TOLERANCE_S = 2.0  # the boot time, from which creation times are computed, moves when the clock is set
KILL_WAIT_S = 10.0  # a killed process is gone at once, unless the disk holds it
STRAY_WAIT_S = 2.0  # children notice their parent's end by themselves; after this they are ended too

# Kept so that our own children are reaped when they end; a process attached to by its mark is not here.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Mark:
    """One process: `pid` and `created`, seconds since the epoch."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Mark:
        """Raises psutil.NoSuchProcess when it has ended."""
        return cls(pid, psutil.Process(pid).create_time())

    @classmethod
    def read(cls, data: Mapping[str, float] | None) -> Mark | None:
        """The mark written by `as_dict`, or None."""
        return cls(int(data["pid"]), float(data["created"])) if data else None

    def as_dict(self) -> dict[str, float]:
        return {"pid": self.pid, "created": self.created}

    def process(self) -> psutil.Process | None:
        """The living process of this mark; None when it has ended or the pid is another's."""
        try:
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.created) <= CREATED_TOLERANCE_S:
                if found.status() != psutil.STATUS_ZOMBIE:
                    return found
                _reap(self.pid)
        except psutil.NoSuchProcess:
            _reap(self.pid)
        return None

    @property
    def alive(self) -> bool:
        return self.process() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        found = self.process()
        if found is not None:
            try:
                found.send_signal(number)
            except psutil.NoSuchProcess:
                return

    def listens(self, port: int) -> bool:
        """Whether this very process, and no other that took the port first, accepts connections there."""
        found = self.process()
        try:
            connections = found.net_connections("tcp") if found else []
        except psutil.NoSuchProcess:
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)

    def descendants(self) -> list[Mark]:
        found = self.process()
        try:
            return [Mark(child.pid, child.create_time()) for child in found.children(recursive=True)] if found else []
        except psutil.NoSuchProcess:
            return []

    def stop(self, number: signal.Signals, bound_s: float) -> None:
        """Ask to end by `number`, wait at most `bound_s`, then kill; its children end with it."""
        children = self.descendants()
        self.send(number)
        if not wait_until(lambda: not self.alive, bound_s):
            children = [*children, *self.descendants()]
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.alive, KILL_WAIT_S)
        end_strays(children)


def _reap(pid: int) -> None:
    """Take note that a child of ours, if it is one, has ended."""
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


def end_strays(marks: Sequence[Mark]) -> None:
    """Wait for processes that should end by themselves, and kill those that do not."""
    if wait_until(lambda: not any(mark.alive for mark in marks), STRAY_WAIT_S):
        return
    for mark in marks:
        mark.send(signal.SIGKILL)
    wait_until(lambda: not any(mark.alive for mark in marks), KILL_WAIT_S)


def start(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, user: str | None = None, cwd: Path | None = None
) -> Mark:
    """Start a process that outlives us, in a session of its own (a Ctrl-C here does not reach it).

    Its output is appended to `log`. `user`: whom it runs as, if not ourselves (needs root).
    OSError: the program is missing or may not be run.
    """
    as_user = {"user": user, "group": user_group(user), "extra_groups": []} if user else {}
    with open(log, "ab") as output:
        child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd or "/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user,  # type: ignore[call-overload]
        )
    _children[child.pid] = child
    return Mark.of(child.pid)


def user_group(user: str) -> int:
    import pwd  # POSIX only, and only root needs it

    return pwd.getpwnam(user).pw_gid


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Poll until the condition holds; False when it did not within `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


def plain_environment() -> dict[str, str]:
    """What a server needs of our environment, and nothing that could steer it."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "TZ") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])
