"""The in-process broker keeps RabbitMQ's promises, as far as services rely on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import eventlet
import pytest
from amqp.exceptions import ChannelError, NotFound, RecoverableConnectionError, ResourceLocked
from kombu.connection import Connection
from nameko.standalone.rpc import ClusterRpcProxy

from shared.messaging import inproc
from shared.messaging.inproc_broker import pattern_of
from tests.waiting import eventually

inproc.register()


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Opens a connection and returns a channel of it."""

    def open_channel(uri: str = "inproc://localhost") -> Any:
        connection: Any = Connection(uri)  # type: ignore[no-untyped-call]
        connection.connect()
        return connection.channel()

    yield open_channel
    inproc.reset()


@pytest.fixture
def channel(connect: Callable[..., Any]) -> Any:
    return connect()


def publish(channel: Any, body: str, queue: str = "q", exchange: str = "", **options: Any) -> None:
    mandatory = options.pop("mandatory", False)
    channel.basic_publish(channel.prepare_message(body, properties=options), exchange, queue, mandatory=mandatory)


def consume(channel: Any, queue: str = "q", **options: Any) -> list[Any]:
    """Consume into the list returned; messages arrive in it by `drain`."""
    received: list[Any] = []
    channel.basic_consume(queue, callback=received.append, **options)
    return received


def drain(channel: Any) -> None:
    """Deliver what can be delivered now."""
    with suppress(TimeoutError):
        while True:
            channel.connection.drain_events(timeout=0)


def bodies(received: list[Any]) -> list[str]:
    return [message.body.decode() for message in received]


def take_all(channel: Any, queue: str = "q") -> list[str]:
    return bodies(list(iter(lambda: channel.basic_get(queue, no_ack=True), None)))


# --- routing ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("binding", "key", "matches"),
    [
        ("quota.*", "quota.reserve", True),
        ("quota.*", "quota", False),
        ("quota.*", "quota.s3.reserve", False),
        ("quota.*", "quotaXreserve", False),
        ("quota.#", "quota", True),
        ("quota.#", "quota.s3.reserve", True),
        ("#", "", True),
        ("*.reserve", "quota.reserve", True),
        ("#.reserve", "quota.s3.reserve", True),
        ("#.reserve", "reserve", True),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "a.b.c", False),
        ("a+b.*", "aab.c", False),
    ],
)
def test_a_topic_binding_matches_words(binding: str, key: str, matches: bool) -> None:
    pattern = pattern_of(binding)
    assert pattern is not None
    assert bool(pattern.fullmatch("." + key)) is matches


@pytest.mark.parametrize(("kind", "expected"), [("topic", ["a", "b"]), ("direct", ["a"]), ("fanout", ["a", "b", "c"])])
def test_an_exchange_routes_by_its_kind(channel: Any, kind: str, expected: list[str]) -> None:
    channel.exchange_declare(exchange="x", type=kind)
    for queue, key in (("a", "k.1"), ("b", "k.*"), ("c", "other")):
        channel.queue_declare(queue=queue)
        channel.queue_bind(queue=queue, exchange="x", routing_key=key)
        channel.queue_bind(queue=queue, exchange="x", routing_key=key + ".too")  # twice bound is once delivered
    publish(channel, "hello", exchange="x", queue="k.1")
    assert [queue for queue in ("a", "b", "c") if take_all(channel, queue) == ["hello"]] == expected


def test_an_unbound_queue_gets_nothing(channel: Any) -> None:
    channel.exchange_declare(exchange="x", type="topic")
    channel.queue_declare(queue="q")
    channel.queue_bind(queue="q", exchange="x", routing_key="k")
    channel.queue_unbind(queue="q", exchange="x", routing_key="k")
    publish(channel, "hello", exchange="x", queue="k")
    assert take_all(channel) == []


def test_a_mandatory_message_without_a_queue_is_refused(channel: Any) -> None:
    with pytest.raises(ChannelError, match="NO_ROUTE"):
        publish(channel, "hello", queue="nowhere", mandatory=True)


def test_an_unroutable_message_is_dropped(channel: Any) -> None:
    publish(channel, "hello", queue="nowhere")
    with pytest.raises(NotFound):
        channel.basic_get("nowhere")


def test_virtual_hosts_are_worlds_apart(connect: Callable[..., Any]) -> None:
    one, other = connect("inproc://localhost/one"), connect("inproc://localhost/other")
    one.queue_declare(queue="q")
    publish(other, "hello")
    assert take_all(one) == []


# --- settling --------------------------------------------------------------------------------
def test_a_consumer_holds_no_more_than_its_prefetch(channel: Any) -> None:
    channel.queue_declare(queue="q")
    for n in range(5):
        publish(channel, str(n))
    channel.basic_qos(0, 2, False)
    received = consume(channel)
    drain(channel)
    assert bodies(received) == ["0", "1"]
    received[0].ack()
    drain(channel)
    assert bodies(received) == ["0", "1", "2"]


def test_prefetch_is_each_consumers_own(channel: Any) -> None:
    for queue in ("q", "other"):
        channel.queue_declare(queue=queue)
    for _ in range(3):
        publish(channel, "x")
    publish(channel, "y", queue="other")
    channel.basic_qos(0, 1, False)
    first, other = consume(channel), consume(channel, "other")
    drain(channel)
    assert (bodies(first), bodies(other)) == (["x"], ["y"])


def test_a_requeued_message_comes_first_again_and_only_in_its_own_queue(channel: Any) -> None:
    channel.exchange_declare(exchange="x", type="fanout")
    for queue in ("q", "other"):
        channel.queue_declare(queue=queue)
        channel.queue_bind(queue=queue, exchange="x")
    publish(channel, "1", exchange="x")
    publish(channel, "2", exchange="x")
    channel.basic_get("q").requeue()
    again = channel.basic_get("q")
    assert (again.body, again.delivery_info["redelivered"]) == (b"1", True)
    assert take_all(channel, "other") == ["1", "2"]


def test_closing_a_channel_gives_everything_unacknowledged_back_in_order(connect: Callable[..., Any]) -> None:
    leaving, staying = connect(), connect()
    leaving.queue_declare(queue="q")
    for n in range(4):
        publish(staying, str(n))
    received = consume(leaving)
    drain(leaving)
    received[1].ack()
    leaving.close()
    assert take_all(staying) == ["0", "2", "3"]


def test_multiple_acknowledges_everything_up_to_it(connect: Callable[..., Any]) -> None:
    channel = connect()
    channel.queue_declare(queue="q")
    for n in range(4):
        publish(channel, str(n))
    received = consume(channel)
    drain(channel)
    received[2].ack(multiple=True)
    channel.close()
    assert take_all(connect()) == ["3"]


# --- dead letters and expiry -------------------------------------------------------------------
@pytest.fixture
def buried(channel: Any) -> Any:
    """A channel with a queue `q` whose dead letters go to the queue `dead`."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    channel.queue_declare(queue="q", arguments=arguments)
    channel.queue_declare(queue="dead")
    return channel


def test_a_rejected_message_goes_to_the_dead_letters(buried: Any) -> None:
    publish(buried, "bad")
    buried.basic_get("q").reject()
    dead = buried.basic_get("dead")
    assert dead.body == b"bad"
    assert (dead.headers["x-death"][0]["queue"], dead.headers["x-death"][0]["reason"]) == ("q", "rejected")


def test_a_rejected_message_without_dead_letters_is_gone(channel: Any) -> None:
    channel.queue_declare(queue="q")
    publish(channel, "bad")
    channel.basic_get("q").reject()
    assert take_all(channel) == []


def test_an_expired_message_is_not_delivered_but_buried(buried: Any) -> None:
    publish(buried, "late", expiration="1")
    publish(buried, "in time", expiration="60000")
    eventlet.sleep(0.01)
    received = consume(buried)
    drain(buried)
    assert bodies(received) == ["in time"]
    dead = buried.basic_get("dead")
    assert dead.headers["x-death"][0]["reason"] == "expired"
    assert "expiration" not in dead.properties


# --- kinds of queues -----------------------------------------------------------------------------
def test_only_one_consumer_of_a_single_active_queue_is_active(connect: Callable[..., Any]) -> None:
    first, second = connect(), connect()
    first.queue_declare(queue="q", arguments={"x-single-active-consumer": True})
    by_first, by_second = consume(first), consume(second)
    publish(first, "1")
    drain(second)
    drain(first)
    assert (bodies(by_first), bodies(by_second)) == (["1"], [])
    first.close()  # unacknowledged: it goes to the next one
    drain(second)
    assert bodies(by_second) == ["1"]


def test_an_auto_delete_queue_goes_with_its_last_consumer(channel: Any) -> None:
    channel.queue_declare(queue="q", auto_delete=True)
    channel.basic_consume("q", callback=print, consumer_tag="one")
    channel.basic_consume("q", callback=print, consumer_tag="two")
    channel.basic_cancel("one")
    assert channel.queue_declare(queue="q", passive=True).consumer_count == 1
    channel.basic_cancel("two")
    with pytest.raises(NotFound):
        channel.queue_declare(queue="q", passive=True)


def test_an_exclusive_queue_is_its_connections_own_and_goes_with_it(connect: Callable[..., Any]) -> None:
    owner, other = connect(), connect()
    owner.queue_declare(queue="q", exclusive=True)
    with pytest.raises(ResourceLocked):
        other.basic_consume("q", callback=print)
    owner.connection.close()
    with pytest.raises(NotFound):
        other.queue_declare(queue="q", passive=True)


def test_stock_clients_leave_no_reply_queues_behind(channel: Any) -> None:
    for _ in range(3):
        with ClusterRpcProxy({"AMQP_URI": "inproc://localhost"}):
            pass
    broker = inproc.broker_of("/")
    assert list(broker.queues) == []
    assert broker.exchanges["nameko-rpc"].bindings == {}


# --- waiting -----------------------------------------------------------------------------------
def test_a_waiting_consumer_is_woken_by_the_message(connect: Callable[..., Any]) -> None:
    waiting, publishing = connect(), connect()
    waiting.queue_declare(queue="q")
    received = consume(waiting)
    thread = eventlet.spawn(waiting.connection.drain_events)
    eventlet.sleep(0)
    begun = monotonic()
    publish(publishing, "hello")
    thread.wait()
    assert bodies(received) == ["hello"]
    assert monotonic() - begun < 0.1


def test_waiting_ends_with_its_time(channel: Any) -> None:
    begun = monotonic()
    with pytest.raises(TimeoutError):
        channel.connection.drain_events(timeout=0.05)
    assert 0.05 <= monotonic() - begun < 1


def test_waiting_ends_with_the_connection(channel: Any) -> None:
    ended: list[Exception] = []

    def wait(session: Any) -> None:
        try:
            session.drain_events()
        except RecoverableConnectionError as exc:
            ended.append(exc)

    eventlet.spawn(wait, channel.connection)
    eventlet.sleep(0)
    channel.connection.close()
    eventually(lambda: ended)


def test_consumers_of_one_channel_take_turns(channel: Any) -> None:
    turns: list[str] = []
    for queue in ("a", "b"):
        channel.queue_declare(queue=queue)
        for _ in range(3):
            publish(channel, queue, queue=queue)
        channel.basic_consume(queue, no_ack=True, callback=lambda message: turns.append(message.body.decode()))
    drain(channel)
    assert turns == ["a", "b"] * 3
