"""Messaging's promises, over a real RabbitMQ; and what only a broker of its own can do: restart, refuse, fill up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import eventlet
import pytest
from eventlet import hubs

from shared.config import Settings
from shared.errors import DeadlineExceeded, SetupFailed, TokengridError, Unavailable
from shared.messaging.client import Client
from shared.messaging.link import Link, connection_to
from shared.messaging.runner import Runner, await_broker, serving
from tests.messaging_behaviour import *  # noqa: F403 - the tests themselves
from tests.messaging_behaviour import GOOD_BODY, Log, ledger_over, publish_raw, reader_into
from tests.waiting import eventually
from tokengrid.servers import RabbitMQ

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(rabbitmq_settings: Settings) -> Settings:
    return rabbitmq_settings


@pytest.fixture
def own_settings(own_rabbitmq: RabbitMQ, tmp_path: Path) -> Settings:
    return Settings(broker=own_rabbitmq.uri, var=tmp_path, heartbeat_s=2, deadline_s=5)


# --- a broker that restarts ------------------------------------------------------------------
def test_a_restart_under_load_kills_nothing_and_loses_no_retried_call(
    own_rabbitmq: RabbitMQ, own_settings: Settings, log: Log
) -> None:
    applied: list[dict[str, Any]] = []
    answered: Counter[int] = Counter()
    going_on = True

    def load(client: Client, worker: int) -> None:
        n = worker
        while going_on:
            assert client.call("reader", "echo_of_ledger", value=n, retries=50) == n
            client.call("ledger", "append", state=str(n), retries=50)
            answered[worker] += 1
            n += 10

    services = [ledger_over(log), reader_into(applied, [])]
    with serving(services, own_settings) as runner, Client(own_settings) as client:
        workers = [eventlet.spawn(load, client, n) for n in range(10)]
        eventually(lambda: len(answered) == 10)
        own_rabbitmq.kill()
        own_rabbitmq.start()
        answered.clear()
        eventually(lambda: len(answered) == 10, within_s=30)
        going_on = False
        for worker in workers:
            worker.wait()
        eventually(lambda: len(applied) == len(log.events))
        assert runner.failure is None
    assert applied == log.events


def test_a_link_that_failed_leaves_nobody_waiting_for_its_file_number(rabbitmq_settings: Settings) -> None:
    link = Link(rabbitmq_settings, "test")
    link.subscribe("nameko-rpc", "test", lambda _message: None)
    link.start()
    eventually(link._ready.ready)
    eventlet.sleep(0)  # the reading green thread waits for its socket
    number = link._raw.transport.sock.fileno()
    link._failed(link._channel, OSError("a write failed"))
    reading, writing = os.pipe()
    assert reading == number, "the next file gets the number"
    os.write(writing, b"x")
    hubs.trampoline(reading, read=True, timeout=5)  # eventlet would refuse a second reader of the number
    os.close(reading)
    os.close(writing)
    eventually(link._ready.ready)
    link.close()


def test_without_a_broker_a_call_fails_soon_and_works_again_when_it_is_back(
    own_rabbitmq: RabbitMQ, own_settings: Settings, log: Log
) -> None:
    with serving([ledger_over(log)], own_settings), Client(own_settings) as client:
        awaited = client.submit("ledger", "slow", key="k", seconds=5)
        own_rabbitmq.stop()
        with pytest.raises(Unavailable, match="lost"):
            awaited.result()
        begun = monotonic()
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            client.call("ledger", "ping")
        assert monotonic() - begun < 4
        assert ":" + str(own_rabbitmq.port) in str(caught.value)
        own_rabbitmq.start()
        eventually(lambda: _answers(client), within_s=15)


def _answers(client: Client) -> bool:
    try:
        client.call("ledger", "ping", deadline_s=1)
    except TokengridError:
        return False
    return True


def test_a_broker_out_of_memory_makes_calls_fail_in_time(
    own_rabbitmq: RabbitMQ, own_settings: Settings, log: Log
) -> None:
    with serving([ledger_over(log)], own_settings), Client(own_settings) as client:
        client.call("ledger", "ping")
        own_rabbitmq.control("set_vm_memory_high_watermark", "absolute", "1")
        for _ in range(3):
            begun = monotonic()
            with pytest.raises((Unavailable, DeadlineExceeded)):
                client.call("ledger", "ping", deadline_s=1)
            assert monotonic() - begun < 3
        own_rabbitmq.control("set_vm_memory_high_watermark", "0.4")
        eventually(lambda: _answers(client), within_s=15)


# --- dead letters ----------------------------------------------------------------------------
def test_poison_goes_to_the_dead_letters_if_the_operator_set_a_policy(
    own_rabbitmq: RabbitMQ, own_settings: Settings, log: Log
) -> None:
    policy = '{"dead-letter-exchange": "", "dead-letter-routing-key": "dead"}'
    own_rabbitmq.control("set_policy", "-p", own_rabbitmq.vhosts[0], "dead", "^rpc-", policy, "--apply-to", "queues")
    with serving([ledger_over(log)], own_settings), connection_to(own_settings) as connection:
        channel = connection.channel()
        channel.queue_declare(queue="dead", durable=True, auto_delete=False)
        publish_raw(own_settings, GOOD_BODY, {"content_type": "application/json"})
        eventually(lambda: channel.queue_declare(queue="dead", passive=True).message_count)
        dead = channel.message_to_python(channel.basic_get("dead"))
        assert dead.headers["x-death"][0]["reason"] == "rejected"


# --- the last one with a broker to itself, as whoever came behind would have to start that again
def test_a_service_stops_although_its_broker_is_away(own_rabbitmq: RabbitMQ, own_settings: Settings, log: Log) -> None:
    runner = Runner([ledger_over(log), reader_into([], [])], own_settings)
    runner.start()
    own_rabbitmq.kill()
    begun = monotonic()
    assert runner.stop()
    assert monotonic() - begun < 8


# --- starting --------------------------------------------------------------------------------
def test_no_broker_at_the_start_is_said_in_a_sentence_without_the_password(tmp_path: Path) -> None:
    nowhere = Settings(broker="amqp://user:secret@127.0.0.1:1/", var=tmp_path)
    with pytest.raises(SetupFailed, match=r"127\.0\.0\.1:1.*TOKENGRID_BROKER") as caught:
        await_broker(nowhere, wait_s=0.2)
    assert "secret" not in str(caught.value)


def test_a_queue_that_the_broker_refuses_stops_the_service_from_starting(settings: Settings, log: Log) -> None:
    with connection_to(settings) as connection:
        channel = connection.channel()
        channel.queue_declare(queue="rpc-ledger", durable=True, auto_delete=False, arguments={"x-max-length": 1})
    with pytest.raises(SetupFailed, match="rpc-ledger"), serving([ledger_over(log)], settings):
        pytest.fail("it started")


# --- processes -------------------------------------------------------------------------------
class Processes:
    """Worker processes of one test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.executed_file = folder / "executed"
        self.executed_file.touch()
        self.environment = {**os.environ, "TOKENGRID_BROKER": settings.broker, "EXECUTED": str(self.executed_file)}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.messaging_process"],
            env={**self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    @property
    def executed(self) -> Counter[str]:
        return Counter(self.executed_file.read_text().split())


@pytest.fixture
def processes(settings: Settings, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(settings, tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def _work(client: Client, key: str = "hello") -> Callable[[], object]:
    def attempt() -> object:
        try:
            return client.call("worker", "work", key=key, seconds=0, deadline_s=2)
        except TokengridError:
            return None

    return attempt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_process_finish_and_its_successor_repeats_nothing(
    processes: Processes, client: Client, number: signal.Signals
) -> None:
    process = processes.start()
    eventually(_work(client), within_s=20)
    pending = [client.submit("worker", "work", key=f"k{n}", seconds=0.5) for n in range(10)]
    eventually(lambda: len(processes.executed) == 11)
    process.send_signal(number)
    assert [answer["key"] for answer in client.results(pending)] == [f"k{n}" for n in range(10)]
    assert process.wait(10) == 0
    processes.start()
    eventually(_work(client, "again"), within_s=20)
    assert set(processes.executed.values()) == {1}


def test_what_a_killed_process_had_in_hand_the_other_one_does(processes: Processes, client: Client) -> None:
    victim, survivor = processes.start(), processes.start()
    seen: set[int] = set()
    while seen != {victim.pid, survivor.pid}:
        answer = _work(client)()
        if isinstance(answer, dict):
            seen.add(answer["pid"])
    pending = [client.submit("worker", "work", key=f"k{n}", seconds=0.5) for n in range(10)]
    eventually(lambda: all(f"k{n}" in processes.executed for n in range(10)))
    victim.kill()
    answers = client.results(pending)
    assert {answer["pid"] for answer in answers} == {survivor.pid}


def test_a_process_without_a_broker_ends_with_a_sentence_and_code_1(processes: Processes) -> None:
    process = processes.start(TOKENGRID_BROKER="amqp://user:secret@127.0.0.1:1/", BROKER_WAIT_S="0.2")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert said.startswith("worker: The broker at amqp://user:**@127.0.0.1:1")


def test_a_process_whose_service_dies_ends_with_code_1(processes: Processes, client: Client) -> None:
    process = processes.start()
    eventually(_work(client), within_s=20)
    client.submit("worker", "die")
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "died as asked" in said
