"""A whole market copied into streams, and audited from there alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pika
import pytest

from services.audit import replay
from services.audit.copying import Copier, places
from services.audit.replay import AuditReport, reader, run_audit, state
from services.audit.report import write_pages
from services.audit.sources import StreamSource
from shared.config import Settings
from shared.errors import AuditFailed, MalformedCommand
from shared.messaging import streams
from shared.messaging.streams import connected, queue_of, reading
from tests.unit.audit_scene import Keep, Killed
from tests.unit.audit_world import JULY, Market, two_months
from tests.unit.report_checks import check_bill, check_links, check_total
from tests.unit.report_pages import Pages
from tests.unit.test_audit_sources import alike

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    made = two_months(tmp_path_factory.mktemp("market"), seed=3, events=40, shards=2)
    yield made
    made.close()


@pytest.fixture
def connection(rabbitmq_uri: str) -> Iterator[pika.BlockingConnection]:
    with connected(rabbitmq_uri) as made:
        yield made


def audited(connection: pika.BlockingConnection, market: Market, keep: Keep | None = None) -> AuditReport:
    keys = market.audit.status()["verifier_keys"]
    return run_audit(StreamSource(connection), JULY, verifier_keys=keys, asks=False, keep=keep)


def test_a_replay_of_the_streams_reports_what_one_of_the_services_does(
    market: Market, connection: pika.BlockingConnection
) -> None:
    asked = run_audit(market.client, JULY, wait_s=1, calls_wait_s=0)
    first = Copier(connection, market.client, market.settings)
    logs = market.settings.logs("quota")
    assert first.copy_round()[logs[0]] == market.quota.shards[0].log.head()
    assert not any(first.copy_round().values())
    market.audit.seal_grown()
    second = Copier(connection, market.client, market.settings)  # another process: it finds all that is there
    assert second.copy_round()["catalog"] == 0
    report = audited(connection, market)
    assert report.ok, report.differences
    assert {**alike(report), "events": {}} == {**alike(asked), "events": {}}
    assert {log: report.events[log] for log in logs} == {log: asked.events[log] for log in logs}


def test_the_pages_of_the_report_are_written_from_the_streams_alone(
    market: Market, connection: pika.BlockingConnection, tmp_path: Path
) -> None:
    Copier(connection, market.client, market.settings).copy_round()
    keys = market.audit.status()["verifier_keys"]
    found = replay.audited(StreamSource(connection), JULY, verifier_keys=keys, asks=False)
    write_pages(found, tmp_path / "report")
    pages = Pages(tmp_path / "report")
    check_total(pages)
    check_links(pages)
    assert sum(check_bill(pages, path) for path in pages.bills()) > 0
    assert all("and its path to the signed root" in pages.pages[path].text for path in pages.bills())


def test_a_replay_that_is_killed_goes_on_in_the_streams(
    market: Market, connection: pika.BlockingConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "EVERY", 60)
    monkeypatch.setattr(state, "SHARE", 0)
    monkeypatch.setattr(reader, "PAGE", 50)
    Copier(connection, market.client, market.settings).copy_round()
    whole = audited(connection, market)
    for killed_at in (1, 3, 5):
        keep = Keep(killed_at=killed_at)
        with pytest.raises(Killed):
            audited(connection, market, keep)
        gone_on = audited(connection, market, Keep(keep.kept))
        assert replace(gone_on, seconds=0) == replace(whole, seconds=0), killed_at


def test_a_tampered_stream_is_found(market: Market, connection: pika.BlockingConnection) -> None:
    Copier(connection, market.client, market.settings).copy_round()
    log = market.settings.logs("quota")[-1]
    with reading(connection, log) as reader:
        message = reader.next(30)
    assert message is not None
    forged = msgspec.json.decode(message.body)
    position, stream, version, topic, state = forged["events"][-1]
    forged["events"][-1] = [position, stream, version, topic, state + " "]
    channel = connection.channel()
    channel.queue_delete(queue_of(log))
    streams.Publisher(connection, log)
    channel.basic_publish("", queue_of(log), msgspec.json.encode(forged))
    report = audited(connection, market)
    assert not report.log_verified
    assert {(d.what, d.log) for d in report.differences} == {("log is not the one that was signed", log)}


def test_a_gap_and_a_stream_that_ends_early_are_found(market: Market, connection: pika.BlockingConnection) -> None:
    Copier(connection, market.client, market.settings).copy_round()
    channel = connection.channel()
    channel.queue_delete(queue_of("routing"))
    events = market.client.call("routing", "events", after=0, limit=1000)["events"]
    streams.Publisher(connection, "routing")
    for page in (events[:10], events[12:-1]):
        for _, body in streams.encode_sections("routing", page):
            channel.basic_publish("", queue_of("routing"), body)
    report = audited(connection, market)
    found = {(d.what, d.log) for d in report.differences}
    assert ("positions have a gap", "routing") in found
    assert ("log is not the one that was signed", "routing") in found or (
        "log is shorter than its checkpoint",
        "routing",
    ) in found


def test_a_log_without_a_stream_is_told(connection: pika.BlockingConnection) -> None:
    with pytest.raises(MalformedCommand, match="no log"):
        run_audit(StreamSource(connection), JULY, asks=False)


def test_the_copier_refuses_a_log_that_jumps(connection: pika.BlockingConnection) -> None:
    class Jumping:
        def call(self, service: str, method: str, /, **kwargs: object) -> object:
            event = {"position": 2, "stream": "s", "version": 1, "topic": "t", "state": "{}"}
            return 2 if method == "head" else {"events": [event]}

    with pytest.raises(AuditFailed, match="nothing is copied"):
        Copier(connection, Jumping(), Settings()).copy_round()


def test_a_copier_that_shall_stop_copies_nothing_that_refers_to_what_is_missing(
    market: Market, connection: pika.BlockingConnection
) -> None:
    copier = Copier(connection, market.client, market.settings)
    assert copier.copy_round(lambda: True) == {}
    assert streams.last_position(connection, "audit") == 0
    assert copier.copy_round()["audit"] > 0


def test_logs_are_copied_before_what_refers_to_them() -> None:
    order = [log for log, _, _ in places(Settings(quota_shards=2))]
    assert order == ["catalog", "routing", "quota-0", "quota-1", "billing", "audit"]
