"""The archive: exact bytes back, proofs and replay from it, kills, restores, and what hostile files do."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.archive import databases, writing
from services.audit.archive import manifest as m
from services.audit.archive.databases import Rows, restore
from services.audit.archive.queries import statement, sums
from services.audit.archive.reading import LogArchive
from services.audit.archive.run import write_archive
from services.audit.archive.source import ArchiveSource
from services.audit.archive.verifying import verify_log
from services.audit.archive.writing import write_log
from services.audit.replay.account import Account
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.proofs import Proofs
from services.audit.replay.reader import LogReader
from services.quota.application import QuotaApplication
from services.quota.schemas import Statement
from shared.config import Settings
from shared.contracts.schema import parse
from shared.errors import (
    AuditFailed,
    Busy,
    Conflict,
    MalformedCommand,
    NotCaughtUp,
    SetupFailed,
    Unavailable,
    UnknownAccount,
)
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.merkle import root_at, verify_consistency, verify_inclusion
from tests.auditing import audit
from tests.folders import brief_folder
from tests.unit.audit_world import CATALOGUE, EAST, JUNE, LONG_AGO, WEST, InProcess, Market
from tests.waiting import eventually

LOGS = ("catalog", "quota", "routing", "billing")


class Client(InProcess):
    """The market's client, with the methods that finding a checkpoint needs."""

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        for method in ("checkpoint", "checkpoints"):
            ask = getattr(market.audit, method)
            self._methods["audit", method] = lambda _ask=ask, **query: _ask(query)


def a_few_days(folder: Path, happenings: int = 150, shards: int = 1) -> Market:
    """A market in June, billed in July."""
    market = Market(folder, 7, shards)
    market.publish(LONG_AGO, **CATALOGUE)
    market.follow()
    for n in range(3):
        market.open(EAST, f"e{n}", "payg", 10**9)
        market.open(WEST, f"w{n}", "family", 0)
        market.grant((EAST, f"e{n}"))
        market.grant((WEST, f"w{n}"))
    for n in range(happenings):
        market.happen()
        if not n % 10:
            market.follow()  # and seal
    market.clock.now = datetime(2026, 7, 2, tzinfo=UTC)
    market.close_period(JUNE)
    return market


class World:
    """A market of some days, and its archive."""

    def __init__(self, folder: Path) -> None:
        self.market = a_few_days(folder / "market")
        assert self.market.quota.shards[0].log.head() > 256, "a tile of level 1 is wanted"
        self.client = Client(self.market)
        self.settings = self.market.quota.settings
        self.archive = folder / "archive"
        self.manifests = write_archive(self.client, self.settings, self.archive)
        self.rows = Rows(self.settings.database_url("quota"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with brief_folder() as folder:
        made = World(Path(folder))
        yield made
        made.market.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with brief_folder() as name:
        yield Path(name)


@pytest.fixture
def changed(world: World, folder: Path) -> Path:
    """A copy of the archive, to be changed."""
    return Path(shutil.copytree(world.archive, folder / "archive"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART_MAX", 40)
    monkeypatch.setattr(writing, "ROW_GROUP", 16)
    monkeypatch.setattr(writing, "PAGE", 7)


def replayed(client: Any, keys: dict[str, str] | None = None) -> tuple[dict[str, Account], Findings, Proofs]:
    """What the auditor's ledger says of quota's log, and what it finds of the signatures."""
    findings = Findings()
    prices = Prices()
    proofs = Proofs(client, keys, findings, seed=1)
    LogReader(client, "audit", proofs.apply, findings).read_on()
    catalog = LogReader(client, "catalog", prices.apply, findings)
    catalog.read_on()
    readers: dict[str, LogReader] = {}
    ledger = Ledger(prices, findings, lambda *_: None, lambda p: readers["quota"].event_at(p)[1:])
    readers["quota"] = LogReader(client, "quota", ledger.apply, findings)
    for log in ("routing", "billing"):
        readers[log] = LogReader(client, log, lambda *_: None, findings)
    for reader in readers.values():
        reader.wanted.update(proofs.signed.get(reader.log, {}))
        reader.read_on()
        proofs.check(reader, reader.read_on, wait_s=0)
    ledger.finish()
    return ledger.accounts, findings, proofs


# --- exactly what was stored -------------------------------------------------------------------
def test_every_log_comes_back_byte_for_byte(world: World) -> None:
    for service in (*LOGS, "audit"):
        with Rows(world.settings.database_url(service)) as stored:
            expected = stored.read(0, 10_000)
        opened = LogArchive.open(world.archive, service)
        assert [row for rows in opened.rows() for row in rows] == expected
        assert len(expected) == opened.manifest.size > 0


def test_days_are_sections_of_the_log_and_end_in_shanghai(world: World) -> None:
    parts = LogArchive.open(world.archive, "quota").manifest.parts
    assert [part.day for part in parts] == sorted(part.day for part in parts)
    for part in parts:
        assert writing.day_of(world.rows.read(part.first - 1, 1)[0].state) == part.day
        assert part.file.path.startswith(f"day={part.day}/")


def test_it_answers_as_the_services_do(world: World) -> None:
    source = ArchiveSource(world.archive)
    for log in LOGS:
        head = world.client.call(log, "head")
        assert source.call(log, "head") == head
        for after, limit in ((0, 3), (1, 1000), (head - 1, 10), (head, 10), (head + 5, 10)):
            answer = source.call(log, "events", after=after, limit=limit)
            assert answer["events"] == world.client.call(log, "events", after=after, limit=limit)["events"]
            assert (answer["log"], answer["head"]) == (log, head)


@pytest.mark.parametrize(
    "asked",
    [
        {"after": -1}, {"after": "0"}, {"after": True}, {"limit": 0}, {"limit": 5001}, {"limit": None},
        {"shard": 1}, {"shard": -1}, {"shard": "x"}, {"nothing": 1}, {"after": 2**64},
    ],
)  # fmt: skip
def test_no_section_of_a_log_is_refused(world: World, asked: dict[str, Any]) -> None:
    with pytest.raises(MalformedCommand):
        ArchiveSource(world.archive).call("quota", "events", **asked)


def test_what_is_not_in_an_archive_is_refused(world: World, folder: Path) -> None:
    source = ArchiveSource(world.archive)
    for service, method, asked in (
        ("quota", "balances", {}), ("nobody", "head", {}), ("audit", "inclusion", {"log": "nothing", "position": 1}),
        ("audit", "inclusion", {"log": ["quota"], "position": 1}), ("audit", "seal", {"log": "audit", "position": 1}),
    ):  # fmt: skip
        with pytest.raises(MalformedCommand):
            source.call(service, method, **asked)
    with pytest.raises(NotCaughtUp):
        source.call("audit", "seal", log="quota", position=10**6)
    with pytest.raises(SetupFailed):
        ArchiveSource(folder / "nowhere")


# --- replay and proofs -------------------------------------------------------------------------
def test_the_replay_from_the_archive_is_the_replay_from_the_services(world: World) -> None:
    accounts, findings, proofs = replayed(ArchiveSource(world.archive))
    assert not findings.count, findings.differences
    live, _, of_services = replayed(world.client)
    assert {s: a.state() for s, a in accounts.items()} == {s: a.state() for s, a in live.items()}
    assert accounts
    assert proofs.verified == {log: of_services.verified[log] for log in proofs.verified}


def test_proofs_from_the_archive_lead_to_the_signed_root(world: World) -> None:
    source = ArchiveSource(world.archive)
    for log in LOGS:
        signed = source.call("audit", "checkpoint", log=log)
        root = open_checkpoint(signed["note"], VerifierKey.parse(signed["verifier_key"])).checkpoint.root
        size = signed["size"]
        for position in {1, size // 2, size} - {0}:
            answer = source.call("audit", "inclusion", log=log, position=position)
            assert answer == world.client.call("audit", "inclusion", log=log, position=position, size=size)
            proof = [bytes.fromhex(node) for node in answer["proof"]]
            verify_inclusion(bytes.fromhex(answer["leaf_sha256"]), position - 1, size, proof, root)
        first = max(size // 3, 1)
        answer = source.call("audit", "consistency", log=log, first=first)
        assert answer == world.client.call("audit", "consistency", log=log, first=first, second=size)
        earlier = LogArchive.open(world.archive, log).hashes(first)
        proof = [bytes.fromhex(node) for node in answer["proof"]]
        verify_consistency(first, root_at(earlier, first), size, root, proof)


def test_verify_says_what_it_checked(world: World) -> None:
    keys = world.client.call("audit", "status")["verifier_keys"]
    for log in LOGS:
        assert verify_log(world.archive, log, keys[log])["signed_by"] == keys[log]
    assert verify_log(world.archive, "audit")["signed_by"] == ""
    with pytest.raises(AuditFailed, match="not signed"):
        verify_log(world.archive, "audit", keys["quota"])
    with pytest.raises(AuditFailed):
        verify_log(world.archive, "quota", keys["billing"])


def test_an_accounts_statement_is_that_of_quota(world: World) -> None:
    for operator, account in world.market.accounts:
        query = parse(Statement, {"operator": operator, "account": account, "limit": 5000})
        expected = json.loads(json.dumps(world.market.quota.statement(query)["events"], default=str))
        found = statement(world.archive, operator, account)
        assert [e["version"] for e in found] == [e["version"] for e in expected]
        assert [e["request_id"] for e in found] == [e["request_id"] for e in expected]
        assert [(e["kind"], e["position"]) for e in found] == [(e["kind"], e["position"]) for e in expected]
    with pytest.raises(UnknownAccount):
        statement(world.archive, EAST, "' OR 1=1 --")


def test_sums_of_topics(world: World) -> None:
    found = sums(world.archive, "quota")
    assert sum(topic["events"] for topic in found.values()) == world.client.call("quota", "head")


# --- bit by bit, and killed --------------------------------------------------------------------
class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


@pytest.mark.usefixtures("small_parts")
def test_a_kill_at_any_write_costs_nothing_but_the_run(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every durable step is the last once; what is there then is the old archive, and the next run ends as any."""
    sizes = [c["size"] for c in world.client.call("audit", "checkpoints", log="quota", limit=1000)["checkpoints"]]
    size = next(size for size in sizes if size > 60)
    about = msgspec.structs.replace(_about(world), note=_note(world, size))
    whole = write_log(folder / "whole", about, world.rows.read, size)
    published = m.publish

    def run(place: Path, die_at: int) -> bool:
        steps = iter(range(die_at))

        def publish(writing_: Path, target: Path) -> None:
            if next(steps, None) is None:
                raise Killed
            published(writing_, target)

        with monkeypatch.context() as patch:
            patch.setattr(m, "publish", publish)
            try:
                write_log(place, about, world.rows.read, size)
            except Killed:
                return False
        return True

    for die_at in (0, 1, 2, 3, 4, 7, 11):
        place = folder / f"killed-{die_at}"
        for _ in range(2):
            if run(place, die_at):
                break
            assert m.load(m.log_folder(place, "quota")) is None  # a reader sees nothing that is half
        assert write_log(place, about, world.rows.read, size) == whole
        assert verify_log(place, "quota")["events"] == whole.size
        assert _files(place) == _files(folder / "whole")


def test_a_process_that_is_killed_goes_on(world: World, folder: Path) -> None:
    """The real thing: kill -9 while files are written, as soon as some are there."""
    script = """if True:
        import sys
        from pathlib import Path
        import msgspec
        from services.audit.archive import manifest, writing
        from services.audit.archive.databases import Rows
        writing.PART_MAX = 5
        about = msgspec.json.decode(sys.argv[2], type=manifest.Manifest)
        with Rows(sys.argv[3]) as rows:
            writing.write_log(Path(sys.argv[1]), about, rows.read, int(sys.argv[4]))
    """
    about = msgspec.json.encode(_about(world)).decode()
    url = world.settings.database_url("quota")
    command = [sys.executable, "-c", script, str(folder), about, url, str(about_size(world))]
    place = m.log_folder(folder, "quota")
    for files in (1, 20):
        with subprocess.Popen(command) as process:
            eventually(lambda n=files: len(list(place.glob("day=*/*.parquet"))) >= n, within_s=60)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert m.load(place) is None
        unfinished = m.load(place, m.UNFINISHED)
        assert unfinished is None or len(unfinished.parts) >= files - 1
    read: list[int] = []

    def reading(after: int, limit: int) -> list[Any]:
        read.append(after)
        return world.rows.read(after, limit)

    assert write_log(folder, _about(world), reading, about_size(world)).root_sha256 == world.manifests[0].root_sha256
    assert read[0] >= 5 * 15, "what was written is not read again"
    assert verify_log(folder, "quota")["events"] == about_size(world)


def test_a_database_that_goes_away_costs_nothing(world: World, folder: Path, small_parts: None) -> None:
    def failing(after: int, limit: int) -> list[Any]:
        if after > 90:
            raise Unavailable("gone")
        return world.rows.read(after, limit)

    with pytest.raises(Unavailable):
        write_log(folder, _about(world), failing, about_size(world))
    started: list[int] = []

    def reading(after: int, limit: int) -> list[Any]:
        started.append(after)
        return world.rows.read(after, limit)

    assert write_log(folder, _about(world), reading, about_size(world)).size == about_size(world)
    assert started[0] > 0


def test_each_shard_has_an_archive_of_its_own(folder: Path) -> None:
    market = a_few_days(folder / "market", 30, shards=2)
    try:
        settings = market.quota.settings
        write_archive(Client(market), settings, folder / "archive")
        source = ArchiveSource(folder / "archive")
        for shard, of in enumerate(market.quota.shards):
            assert source.call("quota", "head", shard=shard) == of.log.head()
            found = source.call("quota", "events", after=2, limit=7, shard=shard)
            assert found["log"] == f"quota-{shard}"
            assert found["events"] == [e._asdict() for e in of.log.read(2, 7)]
        with pytest.raises(MalformedCommand):
            source.call("quota", "head", shard=2)
        for operator, account in market.accounts:
            assert statement(folder / "archive", operator, account)[0]["kind"] == "AccountOpened"
        shutil.rmtree(folder / "archive" / "log=quota-0")
        with pytest.raises(MalformedCommand, match="not all logs"):
            ArchiveSource(folder / "archive").call("quota", "head", shard=1)
    finally:
        market.close()


@pytest.mark.usefixtures("small_parts")
def test_an_archive_grows_and_stays_usable(world: World, folder: Path) -> None:
    keys = world.client.call("audit", "status")["verifier_keys"]
    sizes = [c["size"] for c in world.client.call("audit", "checkpoints", log="quota", limit=1000)["checkpoints"]]
    assert len(sizes) > 5
    for size in (sizes[len(sizes) // 3], sizes[-2]):
        (made,) = write_archive(world.client, world.settings, folder, to={"quota": size})
        assert made.size == size
        assert verify_log(folder, "quota", keys["quota"])["events"] == size
        again = write_archive(world.client, world.settings, folder, to={"quota": max(size - 3, 1)})
        assert again == [made], "what is archived is not archived again"
    write_archive(world.client, world.settings, folder)
    assert verify_log(folder, "quota", keys["quota"])["root_sha256"] == world.manifests[0].root_sha256


def test_a_day_cuts_every_log_where_it_is_sealed(world: World, folder: Path) -> None:
    write_archive(world.client, world.settings, folder, before=date(2026, 6, 3))
    head = ArchiveSource(folder).call("quota", "head")
    assert 0 < head < world.client.call("quota", "head")
    assert world.rows.before(date(2026, 6, 3)) <= head
    _, findings, _ = replayed(ArchiveSource(folder))
    assert not findings.count, findings.differences


def test_two_runs_at_once_are_refused(world: World, folder: Path) -> None:
    def read(after: int, limit: int) -> list[Any]:
        with pytest.raises(Busy):
            write_log(folder, _about(world), world.rows.read, about_size(world))
        return world.rows.read(after, limit)

    assert write_log(folder, _about(world), read, about_size(world)).size == about_size(world)


# --- logs and files that are not what they were ----------------------------------------------------
def test_a_log_that_was_changed_is_not_archived(world: World, changed: Path, folder: Path) -> None:
    before = _files(changed)

    def another(after: int, limit: int) -> list[Any]:
        page = world.rows.read(after, limit)
        return [row._replace(state=row.state.replace(b'"amount":', b'"amount":1')) for row in page]

    with pytest.raises(AuditFailed, match="not the log that was signed"):
        write_log(folder / "new", _about(world), another, about_size(world))
    assert m.load(m.log_folder(folder / "new", "quota")) is None
    for read in (lambda *_: [], lambda after, limit: world.rows.read(after + 1, limit)):
        with pytest.raises(AuditFailed, match="no whole section"):
            write_log(changed, _about(world), read, about_size(world) + 10)
    assert _files(changed) == before


@pytest.mark.parametrize("what", ["flipped", "cut", "gone", "swapped"])
@pytest.mark.parametrize("pattern", ["day=*/*.parquet", "tile/1/**/*"])
def test_a_file_that_was_changed_is_found(world: World, changed: Path, what: str, pattern: str) -> None:
    paths = sorted(p for p in (changed / "log=quota").glob(pattern) if p.is_file())
    data = paths[0].read_bytes()
    if what == "flipped":
        paths[0].write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif what == "cut":
        paths[0].write_bytes(data[:-9])
    elif what == "gone":
        paths[0].unlink()
    else:
        paths[0].write_bytes(paths[-1].read_bytes() if len(paths) > 1 else b"")
    with pytest.raises(AuditFailed):
        verify_log(changed, "quota")


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[1]", b'{"format":"tokengrid/archive/v9"}', b"\xff\xfe", b"null"],
)
def test_no_manifest_is_refused(changed: Path, text: bytes) -> None:
    (changed / "log=quota" / m.MANIFEST).write_bytes(text)
    with pytest.raises(AuditFailed):
        ArchiveSource(changed)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "day=2026-06-01/../x.parquet"])
def test_a_manifest_names_no_file_elsewhere(changed: Path, path: str) -> None:
    at = changed / "log=quota" / m.MANIFEST
    found = json.loads(at.read_text())
    found["parts"][0]["file"]["path"] = path
    at.write_text(json.dumps(found))
    with pytest.raises(AuditFailed):
        ArchiveSource(changed)


def test_a_hash_changed_with_its_file_is_still_found(changed: Path, world: World) -> None:
    """Whoever changes an event, its file's hash and the manifest's root cannot sign."""
    folder = changed / "log=quota"
    shutil.rmtree(folder)

    def another(after: int, limit: int) -> list[Any]:
        page = world.rows.read(after, limit)
        return [row._replace(state=row.state.replace(b'"amount":', b'"amount":1')) for row in page]

    about = m.Manifest(service="quota", shard=0, log="quota")
    made = write_log(changed, about, another, about_size(world))
    at = folder / m.MANIFEST
    honest = _about(world)
    at.write_text(json.dumps({**json.loads(at.read_text()), "note": honest.note, "verifier_key": honest.verifier_key}))
    assert made.size == about_size(world)
    with pytest.raises(AuditFailed, match="not the log that was signed"):
        verify_log(changed, "quota")


# --- back into a database ------------------------------------------------------------------------
def test_a_restored_log_has_the_same_root_and_balances(world: World, folder: Path) -> None:
    settings = Settings(var=folder / "restored")
    url = settings.database_url("quota")
    archive = LogArchive.open(world.archive, "quota")
    assert restore(archive, url) == archive.manifest.size
    assert restore(archive, url) == 0, "nothing twice"
    with Rows(url) as rows:
        assert rows.read(0, 10_000) == world.rows.read(0, 10_000)
    app = QuotaApplication(settings)
    try:
        catalogue = world.market.catalog.log.read(0, 1000)
        app.follow_catalog([e._asdict() for e in catalogue])
        auditor = audit(app, catalogue)  # invariants, memory and read model
        expected, _, _ = replayed(world.client)
        assert {s: a.state() for s, a in auditor.ledger.accounts.items()} == {s: a.state() for s, a in expected.items()}
        assert auditor._quota.tree.root().hex() == archive.manifest.root_sha256
    finally:
        app.close()


def test_a_restore_goes_on_where_it_was_killed_and_refuses_another_log(world: World, folder: Path) -> None:
    archive = LogArchive.open(world.archive, "quota")
    url = Settings(var=folder).database_url("quota")

    def die(_log: str, _done: int, _total: int) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "RESTORED_AT_ONCE", 50)
        with pytest.raises(Killed):
            restore(archive, url, die)
        assert restore(archive, url) == archive.manifest.size - 50
    other = LogArchive.open(world.archive, "billing")
    with pytest.raises(Conflict):
        restore(archive=LogArchive(other.folder, other.manifest), url=url)
    with Rows(url) as rows:
        assert rows.head() == archive.manifest.size


def about_size(world: World) -> int:
    return world.manifests[0].size


def _about(world: World) -> m.Manifest:
    made = world.manifests[0]
    return m.Manifest(service="quota", shard=0, log="quota", note=made.note, verifier_key=made.verifier_key)


def _note(world: World, size: int) -> str:
    listed = world.client.call("audit", "checkpoints", log="quota", limit=1000)["checkpoints"]
    return next(c["note"] for c in listed if c["size"] == size)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
