"""A service in a process of its own, for tests: `python -m tests.messaging_process`; settings from TOKENGRID_*."""

import shared.messaging.patch  # isort: skip  # noqa: F401

import os
import sys
from typing import Any

import eventlet
from nameko.extensions import DependencyProvider

from shared.config import Settings
from shared.messaging.rpc import rpc
from shared.messaging.runner import serve_forever


class Fatal(DependencyProvider):  # type: ignore[misc]
    """Fails around a worker, not in it: nameko ends the whole service then."""

    def worker_setup(self, worker_ctx: Any) -> None:
        if worker_ctx.entrypoint.method_name == "die":
            raise RuntimeError("died as asked")


class Worker:
    name = "worker"
    fatal = Fatal()

    @rpc
    def work(self, key: str, seconds: float) -> dict[str, object]:
        """Notes the execution in a file, then takes its time."""
        with open(os.environ["EXECUTED"], "a", encoding="utf-8") as executed:
            executed.write(key + "\n")
        eventlet.sleep(seconds)
        return {"key": key, "pid": os.getpid()}

    @rpc
    def die(self) -> None:
        """Never reached."""


if __name__ == "__main__":
    sys.exit(serve_forever([Worker], Settings(), broker_wait_s=float(os.environ.get("BROKER_WAIT_S", "30"))))
