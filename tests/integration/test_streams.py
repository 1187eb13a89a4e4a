"""Logs in RabbitMQ's streams: copied with confirms, found again after a crash, read from any place; hostile ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pika
import pytest

from services.audit.partial import Part, read_part
from services.audit.sources import StreamSource
from shared.errors import AuditFailed, MalformedCommand, SetupFailed, Unavailable
from shared.messaging import streams
from shared.messaging.streams import Publisher, connected, decode_section, queue_of, reading
from tests.unit.test_audit_sealing import events
from tests.waiting import eventually
from tokengrid.servers import RabbitMQ

pytestmark = pytest.mark.servers
DEADLINE_S = 30.0


@pytest.fixture
def connection(rabbitmq_uri: str) -> Iterator[pika.BlockingConnection]:
    with connected(rabbitmq_uri) as made:
        yield made


def send(connection: pika.BlockingConnection, body: bytes, log: str = "quota") -> None:
    """A message in a log's stream, whatever it is, confirmed."""
    channel = connection.channel()
    channel.queue_declare(queue_of(log), durable=True, arguments={"x-queue-type": "stream"})
    channel.confirm_delivery()
    channel.basic_publish("", queue_of(log), body, mandatory=True)
    channel.close()


def section(after: int, to: int, log: str = "quota", salt: str = "") -> bytes:
    ((_, body),) = streams.encode_sections(log, events(after, to, salt))
    return body


def read_all(connection: pika.BlockingConnection, page: int = 1000) -> list[int]:
    """The positions of a whole log, as a replay reads it."""
    source = StreamSource(connection)
    found: list[int] = []
    while asked := source.call("quota", "events", after=len(found), limit=page)["events"]:
        found += [e["position"] for e in asked]
    return found


def test_pages_become_sections_in_order_and_are_read_back_as_they_were(connection: pika.BlockingConnection) -> None:
    publisher = Publisher(connection, "quota")
    assert publisher.position == 0
    assert publisher.publish(events(0, 1500)) == 1500
    assert publisher.publish(events(1000, 1700)) == 1700  # what is there already is left out
    with pytest.raises(AuditFailed):
        publisher.publish(events(1800, 1900))
    assert Publisher(connection, "quota").position == 1700
    source = StreamSource(connection)
    assert source.call("quota", "head") == 1700
    kept = [{name: value for name, value in e.items() if name != "trace"} for e in events(0, 1700)]
    assert source.call("quota", "events", after=0, limit=900)["events"] == kept[:900]
    assert source.call("quota", "events", after=900, limit=5000)["events"] == kept[900:]
    for after, limit in ((0, 1), (999, 2), (1699, 1), (1200, 300)):  # again
        assert source.call("quota", "events", after=after, limit=limit)["events"] == kept[after : after + limit]
    with pytest.raises(MalformedCommand):
        source.call("billing", "head")
    with pytest.raises(MalformedCommand):
        source.call("quota", "head", shard=1)


def test_a_stream_is_read_from_a_message_and_from_a_time(connection: pika.BlockingConnection) -> None:
    publisher = Publisher(connection, "quota")
    for n in range(5):
        publisher.publish(events(n * 10, n * 10 + 10))
    with reading(connection, "quota", 3) as reader:
        message = reader.next(DEADLINE_S)
        assert message is not None
        assert message.offset == 3
        assert decode_section("quota", message)[0].position == 31
    hour = timedelta(hours=1)
    with reading(connection, "quota", datetime.now(UTC) - hour) as reader:
        message = reader.next(DEADLINE_S)
        assert message is not None
        assert message.offset == 0
    with reading(connection, "quota", 10**9) as reader:
        assert reader.next(0.2) is None


def test_a_reader_may_leave_off_anywhere_and_its_connection_stays(connection: pika.BlockingConnection) -> None:
    publisher = Publisher(connection, "quota")
    for n in range(300):
        publisher.publish(events(n * 3, n * 3 + 3))
    for offset in range(0, 300, 60):
        with reading(connection, "quota", offset) as reader:
            message = reader.next(DEADLINE_S)
            assert message is not None
            assert message.offset == offset
    source = StreamSource(connection)
    assert [e["position"] for e in source.call("quota", "events", after=0, limit=10)["events"]] == [*range(1, 11)]
    assert source.call("quota", "events", after=4, limit=1)["events"][0]["position"] == 5  # while it is read on
    assert [e["position"] for e in source.call("quota", "events", after=10, limit=9)["events"]] == [*range(11, 20)]


def test_a_part_of_a_log_is_read_from_a_message_on(connection: pika.BlockingConnection) -> None:
    publisher = Publisher(connection, "quota")
    for n in range(5):
        publisher.publish(events(n * 10, n * 10 + 10))
    part = read_part(StreamSource(connection, 3), "quota", 0, Part("quota"))
    assert (part.first, part.position, part.root_sha256) == (31, 50, "")
    same = read_part(StreamSource(connection), "quota", 0, Part("quota"), start=31)
    assert same == part
    lately = datetime.now(UTC) - timedelta(hours=1)
    assert read_part(StreamSource(connection, lately), "quota", 0, Part("quota")).events == 50
    with pytest.raises(AuditFailed, match="should at 50"):
        read_part(StreamSource(connection, 99), "quota", 0, Part("quota"))


KILLED = """
import sys
import shared.messaging.patch
from shared.messaging import streams
from tests.unit.test_audit_sealing import events
with streams.connected(sys.argv[1]) as connection:
    publisher = streams.Publisher(connection, "quota")
    start = publisher.position
    publisher.publish(events(start, start + 100))
    channel = connection.channel()  # no confirms here: sent, and nobody knows whether it arrived
    ((_, body),) = streams.encode_sections("quota", events(start + 100, start + 200))
    channel.basic_publish("", streams.queue_of("quota"), body)
    print(publisher.position, flush=True)
    sys.stdin.read()
"""


def test_a_publisher_that_is_killed_before_its_confirm_goes_on_without_gap_or_double(rabbitmq_uri: str) -> None:
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, rabbitmq_uri],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            confirmed = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
        with connected(rabbitmq_uri) as connection:
            publisher = Publisher(connection, "quota")
            assert publisher.position in (confirmed, confirmed + 100)  # only the stream knows
            end = publisher.publish(events(confirmed, confirmed + 300))
            assert end == confirmed + 300
            assert read_all(connection) == list(range(1, end + 1))


def test_what_a_publisher_repeats_is_dropped_and_what_contradicts_is_refused(
    connection: pika.BlockingConnection,
) -> None:
    for after, to in ((0, 10), (0, 10), (5, 20), (10, 20), (3, 7), (20, 25)):
        send(connection, section(after, to))
    assert read_all(connection, page=4) == list(range(1, 26))
    send(connection, section(20, 26, salt="1"))
    with pytest.raises(AuditFailed, match="stands twice"):
        read_all(connection)


def test_a_gap_is_handed_on_to_be_found(connection: pika.BlockingConnection) -> None:
    send(connection, section(0, 10))
    send(connection, section(15, 20))
    found = StreamSource(connection).call("quota", "events", after=0, limit=100)["events"]
    assert [e["position"] for e in found] == [*range(1, 11), *range(16, 21)]


FORGED = msgspec.json.decode(section(0, 2))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"[" * 100_000,
        b'{"log":"quota"}',
        b'{"log":"quota","events":[]}',
        section(0, 3, log="billing"),
        msgspec.json.encode(FORGED | {"more": 1}),
        msgspec.json.encode({"log": "quota", "events": FORGED["events"][::-1]}),
        msgspec.json.encode({"log": "quota", "events": [[0, "s", 1, "t", "{}"]]}),
        msgspec.json.encode({"log": "quota", "events": [[2**63 - 1, "s", 1, "t", "{}"]]}),
        msgspec.json.encode({"log": "quota", "events": [["1", "s", 1, "t", "{}"]]}),
        msgspec.json.encode({"log": "quota", "events": [[1, "s", 1, "t", {}]]}),
    ],
    ids=lambda body: body[:40].decode() or "empty",
)
def test_what_is_no_section_of_the_log_is_refused_and_stops_no_publisher(
    body: bytes, connection: pika.BlockingConnection
) -> None:
    send(connection, section(0, 10))
    send(connection, body)
    with pytest.raises(AuditFailed, match="message 1 of the stream"):
        read_all(connection)
    assert Publisher(connection, "quota").position == 10  # looks further back


def knows_its_streams(server: RabbitMQ) -> bool:
    """The broker has written down that it has any: it does so half a second after its very first stream was made."""
    return any(b"rabbit_stream_coordinator" in path.read_bytes() for path in server.folder.glob("**/names.dets"))


def publish_to_a_broker_that_dies(server: RabbitMQ) -> None:
    with connected(server.uri) as connection:
        publisher = Publisher(connection, "quota")
        server.kill()
        publisher.publish(events(2500, 2600))


def copied_and_read(uri: str) -> bool:
    try:
        with connected(uri) as connection:
            publisher = Publisher(connection, "quota")
            assert publisher.position in (2500, 2600)
            publisher.publish(events(2500, 2700))
            return read_all(connection) == list(range(1, 2701))
    except Unavailable:
        return False


def test_a_restarted_broker_has_all_that_was_confirmed(own_rabbitmq: RabbitMQ) -> None:
    with connected(own_rabbitmq.uri) as connection:
        Publisher(connection, "quota").publish(events(0, 2500))
    eventually(lambda: knows_its_streams(own_rabbitmq), within_s=DEADLINE_S)
    with pytest.raises(Unavailable):
        publish_to_a_broker_that_dies(own_rabbitmq)
    own_rabbitmq.start()
    until = time.monotonic() + DEADLINE_S
    while not copied_and_read(own_rabbitmq.uri):  # a stream comes back a moment after its broker
        assert time.monotonic() < until


def test_where_there_is_no_broker_it_is_told() -> None:
    with pytest.raises(SetupFailed, match="Streams need RabbitMQ"), connected("inproc://localhost"):
        pass
    with pytest.raises(Unavailable), connected("amqp://guest:guest@127.0.0.1:1/x"):
        pass
