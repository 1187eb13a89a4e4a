"""The logs read where no service answers: the same findings as with services, and what was not asked is told."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from services.audit.replay import AuditReport, run_audit
from services.audit.report import render_html
from services.audit.sources import snapshot, urls_in
from shared.errors import MalformedCommand, SetupFailed, TokengridError
from tests.unit.audit_world import JULY, Market


@pytest.fixture(scope="module", autouse=True)
def _sealed(market: Market) -> None:
    market.audit.seal({"log": "quota", "position": 0})


def alike(report: AuditReport) -> dict[str, object]:
    """What two reports of the same logs have in common, whether services answered or not."""
    apart = ("seconds", "not_asked", "balances_match")
    shown = {field.name: getattr(report, field.name) for field in dataclasses.fields(report) if field.name not in apart}
    return shown | {"checkpoints": {log: head["root_sha256"] for log, head in report.checkpoints.items()}}


def test_a_snapshot_gives_the_same_report_and_tells_what_was_not_asked(market: Market) -> None:
    keys = market.audit.status()["verifier_keys"]
    asked = run_audit(market.client, JULY, verifier_keys=keys)
    with snapshot(urls_in(market.settings.var)) as logs:
        report = run_audit(logs, JULY, verifier_keys=keys, asks=False)
        unproven = run_audit(logs, JULY, asks=False)
    assert report.ok
    assert alike(report) == alike(asked)
    assert asked.balances_match is True
    assert asked.not_asked == ()
    assert report.balances_match is None
    assert not any("unproven" in each for each in report.not_asked)
    assert unproven.ok
    assert sum("unproven" in each for each in unproven.not_asked) == 4
    assert "not asked" in render_html(report)


def test_what_was_changed_in_a_database_is_found_and_the_snapshot_changes_nothing(
    market: Market, tmp_path: Path
) -> None:
    for path in market.settings.var.glob("*.db"):
        with sqlite3.connect(path) as here, sqlite3.connect(tmp_path / path.name) as there:
            here.backup(there)
    with sqlite3.connect(tmp_path / "quota.db") as database:
        database.execute("DROP TRIGGER events_no_update")
        database.execute("UPDATE events SET state = CAST(replace(state, ' ', '') || ' ' AS BLOB) WHERE position = 9")
    before = (tmp_path / "quota.db").read_bytes()
    keys = market.audit.status()["verifier_keys"]
    with snapshot(urls_in(tmp_path)) as logs:
        report = run_audit(logs, JULY, verifier_keys=keys, asks=False)
    assert not report.log_verified
    assert {d.what for d in report.differences} == {"log is not the one that was signed"}
    assert (tmp_path / "quota.db").read_bytes() == before


def test_a_key_that_did_not_sign_is_found(market: Market) -> None:
    keys = market.audit.status()["verifier_keys"]
    with snapshot(urls_in(market.settings.var)) as logs:
        report = run_audit(logs, JULY, verifier_keys=keys | {"quota": keys["billing"]}, asks=False)
    assert not report.log_verified


def test_a_source_refuses_other_questions(market: Market) -> None:
    with snapshot(urls_in(market.settings.var)) as logs:
        for service, method, asked in (
            ("quota", "balances", {}),
            ("elsewhere", "head", {}),
            ("quota", "head", {"shard": 1}),
            ("quota", "head", {"shard": -1}),
            ("quota", "head", {"shard": True}),
            ("quota", "events", {"after": "0"}),
            ("quota", "events", {"after": 2**70}),
            ("quota", "events", {"limit": 0}),
        ):
            with pytest.raises(MalformedCommand):
                logs.call(service, method, **asked)
        assert logs.call("quota", "events", after=2**62, limit=10)["events"] == []


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_what_is_no_database_is_told(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match=r"There is no database"), snapshot(urls_in(tmp_path)):
        pass
    for service in ("audit", "quota", "billing", "routing", "catalog"):
        (tmp_path / f"{service}.db").write_bytes(content)
    with pytest.raises(TokengridError, match="cannot be read"), snapshot(urls_in(tmp_path)):
        pass
    with pytest.raises(SetupFailed), snapshot({"quota": "mysql://somewhere/x"}):
        pass
    with pytest.raises(SetupFailed), snapshot({"quota": "nothing"}):
        pass
