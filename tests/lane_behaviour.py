"""What lanes promise over every broker, as tests that take a `settings` fixture.

Collected twice: over the in-process broker in tests/unit, over RabbitMQ in tests/integration.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import eventlet
import msgspec
import pytest
from eventlet.event import Event
from nameko.exceptions import IncorrectSignature, MethodNotFound, RemoteError
from nameko.standalone.rpc import ClusterRpcProxy

from shared.config import Settings
from shared.errors import Busy, InsufficientQuota, LimitExceeded, MalformedCommand
from shared.eventstore.requests import Request
from shared.messaging.client import Client, Pending
from shared.messaging.lane import lane
from shared.messaging.link import RPC_EXCHANGE, connection_to
from shared.messaging.rpc import rpc
from shared.messaging.runner import Runner, serving
from shared.messaging.tracing import Tracing
from tests.messaging_behaviour import POISON
from tests.waiting import eventually


class Till:
    """What a test sees of its service, and how it holds it up."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[str]]] = []  # shard, and the methods asked for
        self.executed: Counter[str] = Counter()
        self.at_work = self.most_at_work = 0
        self.open = Event()
        self.open.send()

    def shut(self) -> Callable[[], None]:
        """Batches wait from now on, until what is returned is called."""
        self.open = gate = Event()
        return gate.send  # type: ignore[no-any-return]


def place(fields: msgspec.Raw, shards: int) -> int | None:
    decoded = msgspec.json.decode(fields)
    account = decoded.get("account") if isinstance(decoded, dict) else None
    return account % shards if isinstance(account, int) else None


def till_service(till: Till) -> type:
    """A service `quota` (the one whose shards the settings number) that answers what it is asked."""

    class TillService:
        name = "quota"
        tracing = Tracing()

        @lane("pay", "refuse", "fail", "mute", "execute", place=place)
        def work(self, shard: int, requests: list[Request]) -> list[bytes | Exception]:
            till.batches.append((shard, [request.method for request in requests]))
            till.at_work += 1
            till.most_at_work = max(till.most_at_work, till.at_work)
            try:
                till.open.wait()
            finally:
                till.at_work -= 1
            return [self._answer(shard, request) for request in requests if request.method != "mute"]

        @staticmethod
        def _answer(shard: int, request: Request) -> bytes | Exception:
            fields = msgspec.json.decode(request.body)["kwargs"]
            if request.method == "refuse":
                return InsufficientQuota("Not enough.", {"available": 5})
            if request.method == "fail":
                raise ZeroDivisionError("a fault")
            till.executed[str(fields.get("key"))] += 1
            if request.method == "execute":
                if not isinstance(fields.get("commands"), list):
                    return MalformedCommand("no list")
                return msgspec.json.encode([{"ok": each, "shard": shard} for each in fields["commands"]])
            return msgspec.json.encode(fields)

        @rpc
        def ask(self, value: Any = None) -> Any:
            return value

    return TillService


@pytest.fixture
def till() -> Till:
    return Till()


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as connected:
        yield connected


def warm(client: Client, shards: int = 1) -> None:
    """From now on the process knows which shards it owns."""
    for shard in range(shards):
        client.call("quota", "pay", account=shard)


# --- as stock methods ------------------------------------------------------------------------
def test_a_stock_client_notices_nothing(settings: Settings, till: Till) -> None:
    fields = {"account": 1, "amount": 12345678901234567890, "names": ["中国移动", ""], "none": None}
    with serving([till_service(till)], settings), ClusterRpcProxy(settings.nameko(), timeout=10) as stock:
        assert stock.quota.pay(**fields) == fields
        assert stock.quota.ask(value=[1]) == [1]
        pending = [stock.quota.pay.call_async(account=n) for n in range(50)]
        assert [each.result() for each in pending] == [{"account": n} for n in range(50)]
        with pytest.raises(InsufficientQuota, match="Not enough"):
            stock.quota.refuse(account=1)


def test_an_error_is_its_callers_alone(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings):
        warm(client)
        pending = [client.submit("quota", "refuse" if n % 3 == 0 else "pay", account=n) for n in range(30)]
        for n, each in enumerate(pending):
            if n % 3 == 0:
                with pytest.raises(InsufficientQuota) as caught:
                    each.result()
                assert caught.value.details == {"available": 5}
            else:
                assert each.result() == {"account": n}


def test_a_huge_request_is_answered_whole(settings: Settings, client: Client, till: Till) -> None:
    text = "x" * 5_000_000
    with serving([till_service(till)], settings):
        for _ in range(2):  # the first may have been passed on
            assert client.call("quota", "pay", account=1, text=text) == {"account": 1, "text": text}


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [("no_such", MethodNotFound, "no_such"), ("work", MethodNotFound, "work"), ("fail", RemoteError, "ZeroDivision")],
)
def test_what_goes_wrong_is_told_and_the_lane_lives(
    settings: Settings, client: Client, till: Till, method: str, error: type[Exception], said: str
) -> None:
    with serving([till_service(till)], settings) as runner:
        with pytest.raises(error, match=said):
            client.call("quota", method, account=1)
        assert client.call("quota", "pay", account=2) == {"account": 2}
        assert runner.failure is None


def test_fewer_answers_than_requests_are_a_fault_that_is_told(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings):
        with pytest.raises(RemoteError, match="answer for each"):
            client.call("quota", "mute", account=1)
        assert client.call("quota", "pay", account=2) == {"account": 2}


def test_positional_arguments_are_refused_as_a_wrong_signature(settings: Settings, till: Till) -> None:
    with serving([till_service(till)], settings), ClusterRpcProxy(settings.nameko(), timeout=10) as stock:
        with pytest.raises(IncorrectSignature, match=r"pay\(\)"):
            stock.quota.pay(1)
        assert stock.quota.pay(account=1) == {"account": 1}


def publish_to(settings: Settings, key: str, body: bytes, properties: dict[str, Any]) -> None:
    """Put a message into a queue as somebody careless or hostile would."""
    named = dict(properties)
    with connection_to(settings) as connection:
        channel = connection.channel()
        headers, content_type = named.pop("headers", None), named.pop("content_type", None)
        message = channel.prepare_message(body, content_type=content_type, headers=headers, properties=named)
        channel.basic_publish(message, exchange=RPC_EXCHANGE, routing_key=key)


@pytest.mark.parametrize(("body", "properties"), [case[1:] for case in POISON], ids=[case[0] for case in POISON])
@pytest.mark.parametrize("key", ["quota.pay", "quota.shard-0.pay", "quota.shard-0.no_such"])
def test_poison_neither_kills_nor_blocks_the_lane(
    settings: Settings, client: Client, till: Till, key: str, body: bytes, properties: dict[str, Any]
) -> None:
    with serving([till_service(till)], settings) as runner:
        for _ in range(3):
            publish_to(settings, key, body, properties)
        for _ in range(2):
            assert client.call("quota", "pay", account=1, deadline_s=5) == {"account": 1}
        assert runner.failure is None


def full_house(client: Client, till: Till) -> tuple[Callable[[], None], list[Pending]]:
    """Both batches that may be in flight are held up, with a request each, until what is returned is called."""
    go_on = till.shut()
    pending = []
    for n in range(2):
        pending.append(client.submit("quota", "pay", account=n))
        eventually(lambda n=n: till.at_work == n + 1)  # type: ignore[misc]
    return go_on, pending


# --- batches ---------------------------------------------------------------------------------
def test_what_comes_while_a_batch_is_at_work_rides_in_the_next(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings):
        warm(client)
        till.batches.clear()
        go_on, pending = full_house(client, till)
        pending += [client.submit("quota", "pay", account=n) for n in range(2, 300)]
        assert client.call("quota", "ask", value=1) == 1  # it came last: all others are waiting
        go_on()
        assert client.results(pending) == [{"account": n} for n in range(300)]
    sizes = [len(methods) for _shard, methods in till.batches]
    assert sizes[:2] == [1, 1]
    assert max(sizes) == sizes[2] >= 149, "half of all there is: the other half is decided while it commits"
    assert sum(sizes) == 300
    assert till.most_at_work == 2


def test_a_batch_is_bounded_in_bytes(settings: Settings, client: Client, till: Till) -> None:
    with serving([till_service(till)], settings):
        warm(client)
        go_on = till.shut()
        text = "x" * 1_500_000
        pending = [client.submit("quota", "pay", account=n, text=text) for n in range(9)]
        eventually(lambda: till.at_work == 2)
        assert client.call("quota", "ask", value=1) == 1
        go_on()
        assert all(client.results(pending))
    assert max(len(methods) for _shard, methods in till.batches) == 2


def test_slow_questions_keep_no_command_waiting(settings: Settings, client: Client, till: Till) -> None:
    settings.max_workers = 1
    service = till_service(till)
    release = Event()

    def hold(_self: Any) -> None:
        release.wait()

    service.hold = rpc(hold)  # type: ignore[attr-defined]
    with serving([service], settings):
        held = [client.submit("quota", "hold") for _ in range(5)]
        assert client.call("quota", "pay", account=1, deadline_s=5) == {"account": 1}
        release.send()
        assert client.results(held) == [None] * 5


def test_past_the_bound_requests_are_answered_busy_at_once(settings: Settings, client: Client, till: Till) -> None:
    settings.waiting_max = 10
    with serving([till_service(till)], settings):
        warm(client)
        go_on, pending = full_house(client, till)
        pending += [client.submit("quota", "pay", account=n) for n in range(10)]
        begun = monotonic()
        with pytest.raises(Busy) as caught:
            client.call("quota", "pay", key="late")
        assert monotonic() - begun < 5
        assert caught.value.details == {"waiting": 10, "limit": 10}
        go_on()
        assert all(client.results(pending))
        assert client.call("quota", "pay", account=1) == {"account": 1}
    assert not till.executed["late"]


# --- stopping --------------------------------------------------------------------------------
def test_a_stop_answers_all_that_was_taken_and_nothing_runs_twice(
    settings: Settings, client: Client, till: Till
) -> None:
    keys = [str(uuid.uuid4()) for _ in range(200)]
    first = Runner([till_service(till)], settings)
    first.start()
    warm(client)
    go_on, held = full_house(client, till)
    pending = [client.submit("quota", "pay", account=1, key=key) for key in keys]
    assert client.call("quota", "ask", value=1) == 1  # it came last: all others were taken
    stopping = eventlet.spawn(first.stop)
    eventlet.sleep(0)
    go_on()
    assert stopping.wait()
    with serving([till_service(till)], settings):
        assert all(client.results(held))
        assert [answer["key"] for answer in client.results(pending)] == keys
        warm(client)
    assert {till.executed[key] for key in keys} == {1}


# --- shards ----------------------------------------------------------------------------------
def test_each_shard_has_batches_of_its_own(settings: Settings, client: Client, till: Till) -> None:
    settings.quota_shards = 4
    with serving([till_service(till)], settings):
        warm(client, 4)
        pending = [client.submit("quota", "pay", account=n) for n in range(100)]
        assert client.results(pending) == [{"account": n} for n in range(100)]
    assert {shard for shard, _methods in till.batches} == {0, 1, 2, 3}


def test_a_list_for_several_shards_is_answered_in_order(settings: Settings, client: Client, till: Till) -> None:
    settings.quota_shards = 4
    commands: list[Any] = [{"account": n % 7, "n": n} for n in range(50)]
    commands[20:20] = [{"account": "none"}, {}, 5, None]
    with serving([till_service(till)], settings):
        for _ in range(2):  # the first time through the shards' queues
            answers = client.call("quota", "execute", commands=commands)
            assert [each["ok"] for each in answers] == commands
            for command, answer in zip(commands, answers, strict=True):
                if isinstance(command, dict) and isinstance(command.get("account"), int):
                    assert answer["shard"] == command["account"] % 4


def test_a_list_for_several_shards_is_bounded_as_a_whole(settings: Settings, client: Client, till: Till) -> None:
    settings.quota_shards, settings.batch_max = 4, 10
    with serving([till_service(till)], settings), pytest.raises(LimitExceeded, match="at most 10"):
        client.call("quota", "execute", commands=[{"account": n} for n in range(11)])
    assert not till.executed


@pytest.mark.parametrize("commands", [None, 5, {"a": 1}])
def test_a_list_that_is_none_is_the_services_to_refuse(
    settings: Settings, client: Client, till: Till, commands: Any
) -> None:
    settings.quota_shards = 4
    with serving([till_service(till)], settings), pytest.raises(MalformedCommand, match="no list"):
        client.call("quota", "execute", commands=commands)


def test_an_empty_list_has_no_answers(settings: Settings, client: Client, till: Till) -> None:
    settings.quota_shards = 4
    with serving([till_service(till)], settings):
        assert client.call("quota", "execute", commands=[]) == []
