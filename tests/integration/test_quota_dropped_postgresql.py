"""What is archived is dropped from PostgreSQL, partition by partition, and nobody can tell by the answers."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError, StoredEvent

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.replay.findings import Findings
from services.audit.replay.reader import LogReader
from services.audit.sources.snapshot import snapshot
from services.quota.application import QuotaApplication
from services.quota.schemas import Balance
from shared.archive.events import ArchivedLog
from shared.archive.reading import LogArchive
from shared.contracts.quota import AccountClosed
from shared.contracts.schema import parse
from shared.errors import (
    AuditFailed,
    Conflict,
    IdempotencyConflict,
    SetupFailed,
    TokengridError,
    Unavailable,
    UnknownModel,
)
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import EventLog, NewEvent
from shared.eventstore.partitions import partitions
from tests.integration.dropping_world import EACH, Dropping, named
from tests.unit.audit_scene import Scene
from tests.unit.quota_world import START
from tokengrid.dropping import drop_archived
from tokengrid.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.servers


@pytest.fixture
def dropping(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[Dropping]:
    names = [f"dropping_{service}" for service in ("catalog", "quota", "routing", "billing", "audit")]
    for name in names:
        url = postgresql.create_database(name)
    password = sa.make_url(url).password  # one for all users: a template has room for names only
    with psycopg.connect(postgresql.admin_url().replace("+psycopg", ""), autocommit=True) as admin:
        for name in names:
            admin.execute(f"ALTER ROLE {name} PASSWORD '{password}'".encode())
    made = Dropping(tmp_path, url.replace("dropping_audit", "dropping_{service}"))
    yield made
    made.market.close()
    for name in names:
        postgresql.drop_database(name)


def test_every_answer_stays_as_it_was(dropping: Dropping) -> None:
    market, owner = dropping.market, dropping.market.accounts[0]
    old = {"request_id": "old", "model": "alpha", "usage": {"input": 1000}, "on_insufficient": "overdraw"}
    first = market.do("debit", owner, **old)
    size = dropping.write()
    before = dropping.answers()
    last = size // EACH * EACH
    assert dropping.drop(until=last - 1) == [(n + 1, n + EACH) for n in range(0, last - EACH, EACH)][: last // EACH - 1]
    dropping.restart(dropping.archive)
    assert dropping.answers() == before
    dropping.grow(last + EACH + 1)
    size = dropping.write()
    dropping.drop()
    assert dropping.log.recorder.partitions()[0].first > last, "what was asked for above is dropped now"

    # What is repeated is known, what contradicts is refused, what refers to it works; then all goes on.
    assert market.do("debit", owner, **old) == {**first, "replayed": True}
    with pytest.raises(IdempotencyConflict):
        market.do("debit", owner, **{**old, "usage": {"input": 1001}})
    assert market.do("reverse", owner, debit="old")["amount"] == first["amount"]
    for _ in range(30):
        market.happen()
    market.follow()
    assert Scene(market).audit().ok
    again = dropping.answers()
    assert again["log"][: len(before["log"])] == before["log"]
    assert again["found"] == before["found"]
    # Whoever reads the database alone is told that there is a gap.
    findings, url = Findings(), market.settings.database_url("quota")
    with snapshot({"quota": url}) as alone:
        LogReader(alone, "quota", lambda *_: None, findings).read_on()
    assert any("gap" in difference.what for difference in findings.differences)


def test_without_its_archive_it_says_so_and_goes_on(dropping: Dropping, tmp_path: Path) -> None:
    market, owner = dropping.market, dropping.market.accounts[0]
    old = {"request_id": "old", "model": "alpha", "usage": {"input": 1000}, "on_insufficient": "overdraw"}
    market.do("debit", owner, **old)
    market.do("debit", owner, **{**old, "request_id": "newer"})  # the last there of its account is never missing
    dropping.grow(dropping.log.head() // EACH * EACH + EACH + 3)
    dropping.write()
    assert dropping.drop()
    other = tmp_path / "other"
    shutil.copytree(dropping.archive, other)
    for part in (other / "log=quota").glob("day=*/*.parquet"):
        part.write_bytes(part.read_bytes()[:-9] + b"hacked!!!")
    for archive, complaint in (
        (None, "TOKENGRID_ARCHIVE"),
        (tmp_path / "nothing", "cannot be read"),
        (other, "cannot be read|not the one|not the file"),
    ):
        dropping.restart(archive)
        for question in (
            lambda: dropping.log.read(0, 10),
            lambda: dropping.log.stream("/".join(owner)),
            lambda: market.do("debit", owner, **old),
        ):
            with pytest.raises(Unavailable, match=complaint):
                question()
        # It is refused by itself, and nobody who rides in the same batch.
        new = {"command": "debit", "model": "alpha", "usage": {"input": 10}, "on_insufficient": "overdraw"}
        asked = [named(owner, request_id=market.request(), **new) for _ in range(3)]
        first, repeated, made = market.quota.execute([asked[0], named(owner, **{**new, **old}), asked[1]])
        assert repeated["error"]["code"] == "Unavailable"
        assert first["ok"]["version"] + 1 == made["ok"]["version"]
        made = market.quota.execute(asked[2:])[0]["ok"]
        assert market.quota.balance(parse(Balance, named(owner)))["version"] == made["version"]


def test_what_a_drop_leaves_behind_is_as_immutable(dropping: Dropping) -> None:
    market, owner = dropping.market, dropping.market.accounts[0]
    dropping.write()
    dropping.grow(dropping.log.head() + EACH)
    before = dropping.answers()
    assert dropping.drop()
    dropping.restart(dropping.archive)
    with psycopg.connect(market.settings.database_url("quota").replace("+psycopg", ""), autocommit=True) as admin:
        for statement in (
            "TRUNCATE carried_events",
            "DELETE FROM carried_events",
            "UPDATE carried_events SET state = 'x'",
            "UPDATE carried_events SET originator_version = originator_version - 1",
            "TRUNCATE dropped_events",
            "DELETE FROM dropped_events",
            "UPDATE dropped_events SET last_position = 1",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation):
                admin.execute(statement)
        # Whoever gets round that, and makes the snapshots useless, finds the archive to be believed.
        admin.execute("ALTER TABLE carried_events DISABLE TRIGGER USER")
        admin.execute("UPDATE carried_events SET state = replace(state::text, '0', '1')::bytea")
    assert dropping.log.stream("/".join(owner)) == before["/".join(owner)][6]


def test_a_process_that_stood_by_goes_on_without_an_archive(dropping: Dropping) -> None:
    market, owner = dropping.market, dropping.market.accounts[2]
    standby = QuotaApplication(market.settings, market.clock)
    fields = {"model": "alpha", "usage": {"input": 1}, "on_insufficient": "overdraw"}
    standby.submit("debit", named(owner, request_id="s1", **fields))
    dropping.grow(dropping.log.head() + 3 * EACH)
    dropping.write()
    assert dropping.drop()
    last = standby.submit("debit", named(owner, request_id="s2", **fields))
    assert last["position"] == dropping.log.head()
    standby.close()


def test_an_archive_of_something_else_is_not_believed(dropping: Dropping, tmp_path: Path) -> None:
    dropping.write()
    kept = tmp_path / "kept"
    shutil.copytree(dropping.archive, kept)
    dropping.grow(dropping.log.head() + EACH)
    dropping.write()
    assert dropping.drop()
    dropping.restart(kept)  # of the same log, but older than what was dropped into
    with pytest.raises(Unavailable, match="not the one"):
        dropping.log.read(0, 1)
    opened = ArchivedLog(dropping.archive, "quota")
    good = dropping.log.recorder.dropped()
    opened.expect(*good[1:])
    with pytest.raises(Unavailable):
        opened.expect(good.archive_size, "0" * 64)
    assert opened.rows(0, 1)[0][0] == 1, "what was good is good"


def test_what_cannot_be_dropped_stays(dropping: Dropping, tmp_path: Path) -> None:
    before = dropping.answers()
    dropping.write()
    assert dropping.drop(until=EACH - 1) == [], "not whole"
    with pytest.raises(SetupFailed, match="quota"):
        drop_archived(dropping.market.settings, dropping.archive, "billing")
    with pytest.raises(AuditFailed):
        dropping.drop(verifier_key=LogArchive.open(dropping.archive, "routing").manifest.verifier_key)
    log = dropping.log
    second = log.droppable(dropping.log.head())[1]
    with pytest.raises(Conflict, match="not the first"):
        log.drop(second, (1, ""))
    end = dropping.log.recorder.partitions()[-1]
    assert end not in log.droppable(10**9)
    url = dropping.market.settings.database_url("quota").replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER TABLE events DISABLE TRIGGER events_no_change")
        admin.execute("ALTER TABLE events_from_1 DISABLE TRIGGER events_no_change")
        admin.execute("UPDATE events SET trace = 'x' WHERE position = 5")
        with pytest.raises(Conflict, match="event 5 "):
            dropping.drop()
        admin.execute("UPDATE events SET trace = NULL WHERE position = 5")
        for statement in ("DELETE FROM event_keys", "UPDATE event_keys SET position = 1", "TRUNCATE events_from_25"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                admin.execute(statement)
        known = admin.execute("SELECT request_key FROM event_keys LIMIT 1").fetchone()
        assert known is not None
        with pytest.raises(psycopg.errors.UniqueViolation):  # by the back door, too
            admin.execute("INSERT INTO events_from_1 VALUES (24, 'o/x', 99, 't', '{}', %s)", (known[0],))
        admin.execute("ALTER TABLE event_keys DISABLE TRIGGER event_keys_no_change")
        admin.execute("CREATE TABLE kept_keys AS SELECT * FROM event_keys WHERE position = 5")
        admin.execute("DELETE FROM event_keys WHERE position = 5")
        with pytest.raises(Conflict, match="could happen twice"):
            dropping.drop()
        admin.execute("INSERT INTO event_keys SELECT * FROM kept_keys")
    assert dropping.answers() == before


def test_dropping_while_commands_come_in(dropping: Dropping) -> None:
    """And two who drop at once: every partition goes once, every debit is there once."""
    market, owner = dropping.market, dropping.market.accounts[0]
    dropping.grow(dropping.log.head() + EACH)
    dropping.write()
    writer = QuotaApplication(market.settings.model_copy(update={"archive": dropping.archive}), market.clock)
    stop, made = threading.Event(), []

    def debit() -> None:
        while not stop.is_set():
            fields = {"model": "alpha", "usage": {"input": 1}, "on_insufficient": "overdraw"}
            made.append(writer.submit("debit", named(owner, request_id=f"d{len(made)}", **fields)))
            with pytest.raises(UnknownModel):  # whose batch looks keys up while it holds the log open
                writer.submit("debit", named(owner, request_id=f"u{len(made)}", **{**fields, "model": "none"}))

    failures: list[TokengridError] = []
    dropped: list[tuple[int, int]] = []

    def drop() -> None:
        try:
            dropped.extend(dropping.drop())
        except TokengridError as error:
            failures.append(error)

    threads = [threading.Thread(target=debit), threading.Thread(target=drop), threading.Thread(target=drop)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    stop.set()
    threads[0].join()
    assert sorted(dropped) == sorted(set(dropped))
    assert dropped
    assert all(isinstance(failure, Conflict) for failure in failures)
    events = writer.log.read(0, 100_000)
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    assert len({answer["position"] for answer in made}) == len(made) > 0
    writer.close()


def test_a_partition_dropped_while_they_are_listed(dropping: Dropping) -> None:
    dropping.grow(dropping.log.head() + EACH)
    dropping.write()
    url = dropping.market.settings.database_url("quota").replace("+psycopg", "")
    with psycopg.connect(url) as asking:
        asking.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        asking.execute("SELECT 1")  # our snapshot is of before
        assert dropping.drop()
        assert partitions(asking) == dropping.log.recorder.partitions()


def test_new_partitions_come_by_themselves(dropping: Dropping) -> None:
    head = dropping.log.head()
    dropping.grow(head + 3 * EACH)
    there = dropping.log.recorder.partitions()
    assert [(p.first, p.last) for p in there] == [(n * EACH + 1, (n + 1) * EACH) for n in range(len(there))]


def test_a_log_from_before_there_were_partitions(postgres_database: str) -> None:
    made = engine(postgres_database)
    migrate(made, "quota", "0005")
    row = "INSERT INTO events VALUES (:p, 'o/a', :p, 'quota.AccountClosed:1', '{}', :key, NULL)"
    with made.begin() as connection:
        for position in range(1, 6):
            connection.execute(sa.text(row), {"p": position, "key": f"k{position}" if position > 1 else None})
    migrate(made, "quota")
    with contextlib.closing(EventLog(postgres_database, partition=EACH)) as log:
        assert [e.position for e in log.read(0, 10)] == [1, 2, 3, 4, 5]
        assert {key: e.version for key, e in log.known(["k1", "k2", "k5"]).items()} == {"k2": 2, "k5": 5}
        closed = AccountClosed(at=START, recorded_at=START, request_id="r")
        with pytest.raises(Conflict):
            log.append([NewEvent("o/a", 6, closed, "k5")], 5)
        with pytest.raises(IntegrityError):  # in another partition than the new one would be
            log.recorder.insert_events([StoredEvent("o/a", 5, closed.TOPIC, b"{}")])
        log.append([NewEvent("o/a", 6, closed, "k6")], 5)
        assert [(p.first, p.last) for p in log.recorder.partitions()] == [(1, 5), (6, 5 + EACH)]
        assert log.last_version("o/a") == 6
    made.dispose()


def test_who_appends_by_the_librarys_door_needs_one_connection(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two, writers who wait for one another could have all of the pool between them."""
    made = engine(postgres_database)
    migrate(made, "quota")
    made.dispose()
    with contextlib.closing(EventLog(postgres_database, partition=EACH)) as log:
        real, held = log.recorder.datastore.get_connection, []

        @contextlib.contextmanager
        def counted() -> Iterator[object]:
            assert not held
            held.append(1)
            with real() as connection:
                yield connection
            held.pop()

        monkeypatch.setattr(log.recorder.datastore, "get_connection", counted)
        for n in range(1, 3 * EACH, 10):
            log.recorder.insert_events([StoredEvent("o/a", n + k, "t:1", b"{}") for k in range(10)])
        assert len(log.recorder.partitions()) >= 3
