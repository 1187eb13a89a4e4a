"""Processes of services, over the in-process broker."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

PROGRAM = """
import shared.messaging.patch
import sys
import eventlet
from nameko.extensions import DependencyProvider
from shared.config import Settings
from shared.messaging.rpc import rpc
from shared.messaging.runner import serve_forever

class Ready(DependencyProvider):
    def start(self):
        print("started", flush=True)
        if sys.argv[1] == "die":
            self.container.spawn_managed_thread(self.die)
    def die(self):
        raise RuntimeError("died as asked")
    def stop(self):
        if sys.argv[1] == "linger":
            print("stopping", flush=True)
            eventlet.sleep(60)

class Service:
    name = "service"
    ready = Ready()

    @rpc
    def ping(self):
        return None

sys.exit(serve_forever([Service], Settings()))
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(processes: list[subprocess.Popen[str]], manner: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, manner], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_without_noise(processes: list[subprocess.Popen[str]], number: signal.Signals) -> None:
    process = start(processes, "live")
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (0, "")


def test_a_second_signal_ends_it_at_once(processes: list[subprocess.Popen[str]]) -> None:
    process = start(processes, "linger")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    process.terminate()
    assert process.wait(5) == 1


def test_a_service_that_dies_takes_its_process_with_it(processes: list[subprocess.Popen[str]]) -> None:
    process = start(processes, "die")
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "died as asked" in said


def test_an_unpatched_process_is_told_what_to_do() -> None:
    program = "from shared.config import Settings; from shared.messaging.client import Client; Client(Settings())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert "import shared.messaging.patch before anything else" in done.stderr
