"""The archive: exact bytes back, proofs, replay and statements from it, restores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.archive import databases, writing
from services.audit.archive.databases import Rows, restore
from services.audit.archive.queries import statement, sums
from services.audit.archive.source import ArchiveSource
from services.audit.archive.verifying import verify_log
from services.audit.replay import run_audit
from services.quota.application import QuotaApplication
from services.quota.schemas import Statement
from shared.archive.reading import LogArchive
from shared.config import Settings
from shared.contracts.schema import parse
from shared.errors import (
    AuditFailed,
    Conflict,
    MalformedCommand,
    NotCaughtUp,
    SetupFailed,
    UnknownAccount,
)
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.merkle import root_at, verify_consistency, verify_inclusion
from tests.auditing import audit
from tests.folders import brief_folder
from tests.unit.archive_world import Killed, World, replayed
from tests.unit.audit_world import EAST, JUNE

LOGS = ("catalog", "quota", "routing", "billing")


@pytest.fixture
def folder() -> Iterator[Path]:
    with brief_folder() as name:
        yield Path(name)


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


def test_a_whole_audit_by_columns_and_by_pages_comes_to_one_report(world: World) -> None:
    source = ArchiveSource(world.archive)

    class ByPages:
        call = staticmethod(source.call)

    keys = source.call("audit", "status")["verifier_keys"]
    for period in ("2026-05", JUNE):
        by_columns, by_pages = (
            run_audit(client, period, verifier_keys=keys, asks=False) for client in (source, ByPages())
        )
        assert by_columns.ok, by_columns.differences
        assert replace(by_columns, seconds=0) == replace(by_pages, seconds=0)
