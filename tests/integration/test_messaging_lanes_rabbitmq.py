"""The promises of lanes, over a real RabbitMQ; and what needs several processes or a broker that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import eventlet
import msgspec
import pytest
from kombu.compression import compress

from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from shared.config import Settings
from shared.errors import TokengridError, Unavailable
from shared.messaging.client import Client
from shared.messaging.link import RPC_EXCHANGE, connection_to
from shared.messaging.runner import Runner, serving
from tests.lane_behaviour import *  # noqa: F403 - the tests themselves
from tests.lane_behaviour import Till, publish_to, till_service
from tests.waiting import eventually
from tokengrid.servers import RabbitMQ

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(rabbitmq_settings: Settings) -> Settings:
    return rabbitmq_settings


def started(till: Till, settings: Settings, preferred: tuple[int, ...] = ()) -> Runner:
    """A service with connections of its own, like a process."""
    runner = Runner([till_service(till)], settings.model_copy(update={"quota_shards_preferred": preferred}))
    runner.start()
    return runner


@pytest.fixture
def pair(settings: Settings) -> Iterator[list[tuple[Till, Runner]]]:
    """Two processes of one service with one shard."""
    made = [(till, started(till, settings)) for till in (Till(), Till())]
    yield made
    for _till, runner in made:
        runner.stop()


# --- shards and their owners -------------------------------------------------------------------
def test_whoever_gets_a_request_its_shards_owner_serves_it(
    settings: Settings, client: Client, pair: list[tuple[Till, Runner]]
) -> None:
    for _ in range(2):  # the owner knows that it is the owner only after the first
        pending = [client.submit("quota", "pay", account=n, key=str(n)) for n in range(200)]
        assert client.results(pending) == [{"account": n, "key": str(n)} for n in range(200)]
    assert sorted(sum(till.executed.values()) for till, _runner in pair) == [0, 400]


def test_when_the_owner_dies_the_other_one_takes_over(
    settings: Settings, client: Client, pair: list[tuple[Till, Runner]]
) -> None:
    client.call("quota", "pay", key="before")
    (owner, runner), (heir, _) = sorted(pair, key=lambda each: -sum(each[0].executed.values()))
    owner.shut()
    pending = [client.submit("quota", "pay", key=str(n)) for n in range(100)]
    eventually(lambda: owner.at_work)
    runner.kill()
    assert client.results(pending) == [{"key": str(n)} for n in range(100)]
    assert heir.executed == {str(n): 1 for n in range(100)}


def test_a_preferred_shard_goes_to_its_process_and_the_others_to_whoever_is_left(
    settings: Settings, client: Client
) -> None:
    settings.quota_shards = 2
    tills = [Till(), Till()]
    runners = [started(till, settings, (shard,)) for shard, till in enumerate(tills)]
    try:
        pending = [client.submit("quota", "pay", account=n) for n in range(100)]
        assert client.results(pending) == [{"account": n} for n in range(100)]
        for shard, till in enumerate(tills):
            assert {each for each, _methods in till.batches} == {shard}
        commands = [{"account": n} for n in range(20)]
        answers = client.call("quota", "execute", commands=commands)
        assert [answer["ok"] for answer in answers] == commands
        assert [answer["shard"] for answer in answers] == [0, 1] * 10
        runners.pop(0).stop()
        assert client.call("quota", "pay", account=0) == {"account": 0}
        assert {each for each, _methods in tills[1].batches} == {0, 1}
    finally:
        for runner in runners:
            runner.stop()


def test_a_request_that_cannot_be_passed_on_is_answered_so(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings), connection_to(settings) as connection:
        channel = connection.channel()
        channel.queue_unbind("tokengrid.quota.shard-0", RPC_EXCHANGE, "quota.shard-0.*")
        with pytest.raises(Unavailable, match=r"quota\.shard-0"):
            client.call("quota", "pay", account=0)
        assert client.call("quota", "ask", value=1) == 1
        channel.queue_bind("tokengrid.quota.shard-0", RPC_EXCHANGE, "quota.shard-0.*")
        assert client.call("quota", "pay", account=0) == {"account": 0}


def test_compressed_requests_are_served_passed_on_or_not(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings), connection_to(settings) as connection:
        channel = connection.channel()
        answers: list[Any] = []
        channel.queue_declare("answers", exclusive=True)
        channel.queue_bind("answers", RPC_EXCHANGE, "answers")
        channel.basic_consume("answers", no_ack=True, callback=lambda message: answers.append(message.body))
        body, content_encoding = compress(b'{"args": [], "kwargs": {"account": 5}}', "gzip")
        for n in range(2):
            publish_to(
                settings,
                "quota.pay",
                body,
                {"content_type": "application/json", "reply_to": "answers", "correlation_id": str(n)}
                | {"headers": {"compression": content_encoding}},
            )
            while len(answers) <= n:
                connection.drain_events(timeout=10)
        assert [msgspec.json.decode(each) for each in answers] == [{"result": {"account": 5}, "error": None}] * 2


# --- a broker that restarts ------------------------------------------------------------------
def test_a_broker_killed_under_load_kills_no_lane(own_rabbitmq: RabbitMQ, tmp_path: Path, till: Till) -> None:
    settings = Settings(broker=own_rabbitmq.uri, var=tmp_path, heartbeat_s=2, deadline_s=5)
    answered: Counter[int] = Counter()
    going_on = True

    def load(client: Client, worker: int) -> None:
        while going_on:
            assert client.call("quota", "pay", retries=50, account=worker) == {"account": worker}
            answered[worker] += 1

    with serving([till_service(till)], settings) as runner, Client(settings) as client:
        workers = [eventlet.spawn(load, client, n) for n in range(20)]
        eventually(lambda: len(answered) == 20)
        own_rabbitmq.kill()
        own_rabbitmq.start()
        answered.clear()
        eventually(lambda: len(answered) == 20, within_s=30)
        going_on = False
        for worker in workers:
            worker.wait()
        assert runner.failure is None


# --- processes of quota ------------------------------------------------------------------------
OPERATOR = "shanghai-telecom"


class Quotas:
    """Processes of quota over one database."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {
            **os.environ,
            "TOKENGRID_BROKER": settings.broker,
            "TOKENGRID_DATABASE": settings.database,
            "TOKENGRID_VAR": str(settings.var),
            "TOKENGRID_SWEEP_INTERVAL_S": "0",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        started = subprocess.Popen([sys.executable, "-m", "tokengrid.serve", "quota"], env=self._environment)
        self.running.append(started)
        return started

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


@pytest.fixture
def quotas(production_settings: Callable[[str], Settings]) -> Iterator[tuple[Quotas, Client]]:
    settings = production_settings("quota")
    made = Quotas(settings)
    of_catalog = Settings(broker=settings.broker, var=settings.var)
    with serving([CatalogService], of_catalog), Client(settings) as client:
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        made.start()
        eventually(lambda: knows_the_catalogue(client), within_s=30)
        yield made, client
    for process in made.running:
        made.kill(process)


def knows_the_catalogue(client: Client) -> bool:
    try:
        status = client.call("quota", "status", deadline_s=1)
    except TokengridError:
        return False
    return bool(status["followed"]["catalog"] == client.call("catalog", "head"))


def opened(client: Client) -> list[str]:
    """The accounts that the log says were opened, in its order."""
    events: list[dict[str, Any]] = []
    while page := client.call("quota", "events", after=len(events))["events"]:
        events += page
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    return [event["stream"].split("/")[1] for event in events]


def test_owners_killed_under_load_lose_and_double_nothing(quotas: tuple[Quotas, Client]) -> None:
    processes, client = quotas
    processes.start()
    acknowledged: list[str] = []
    going_on = True

    def load(worker: int) -> None:
        n = 0
        while going_on:
            account = f"w{worker}-{n}"
            client.call(
                "quota", "open_account", deadline_s=5, retries=100, operator=OPERATOR, account=account, request_id="o"
            )
            acknowledged.append(account)
            n += 1

    workers = [eventlet.spawn(load, n) for n in range(20)]
    for _ in range(3):  # one of two in a row was the owner
        seen = len(acknowledged)
        eventually(lambda seen=seen: len(acknowledged) > seen + 100, within_s=30)
        processes.kill(processes.running.pop(0))
        processes.start()
    seen = len(acknowledged)
    eventually(lambda: len(acknowledged) > seen + 100, within_s=30)
    going_on = False
    for worker in workers:
        worker.wait()
    found = opened(client)
    assert len(found) == len(set(found))
    assert set(acknowledged) == set(found)


def test_a_process_told_to_stop_answers_what_it_took_and_its_successor_repeats_nothing(
    quotas: tuple[Quotas, Client],
) -> None:
    processes, client = quotas
    (first,) = processes.running
    accounts = [f"a{n}" for n in range(3000)]
    pending = [
        client.submit("quota", "open_account", operator=OPERATOR, account=account, request_id="o")
        for account in accounts
    ]
    eventually(lambda: any(each.answered for each in pending))
    first.send_signal(signal.SIGTERM)
    processes.start()
    results = client.results(pending)
    assert not any(result["replayed"] for result in results)
    assert first.wait(20) == 0
    assert sorted(opened(client)) == sorted(accounts)
