"""A replay that is killed goes on where it was and comes to the same report; a state that is not its own is refused."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit import resuming
from services.audit.archive.source import ArchiveSource
from services.audit.replay import AuditReport, reader, run_audit, state
from services.audit.replay.run import _Audit
from services.audit.sources import snapshot, urls_in
from shared.errors import Busy, SetupFailed
from tests.unit.archive_world import World
from tests.unit.audit_scene import Keep, Killed
from tests.unit.audit_world import JUNE, Tampering
from tokengrid import cli

ROOT = Path(__file__).parents[2]
# What is in an audit's parts beside what they have folded: how they are wired.
WIRED = {
    "_findings", "_prices", "_ordered", "_handlers", "topics", "_apply", "period", "subscriptions", "_shards",
    "_period", "_heard", "_log", "requests", "_fetch", "index", "factors", "_of_length", "_of_words", "_offsets",
    "many", "log", "_service", "_which", "tree", "wanted", "_client", "_fold", "_progress", "_leaf_hash", "debits",
}  # fmt: skip
COMPARED = {"judged", "statements_computed"}  # when all is folded: a run that goes on compares again


@pytest.fixture(autouse=True)
def saves_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "EVERY", 40)
    monkeypatch.setattr(state, "SHARE", 0)
    monkeypatch.setattr(reader, "SECTION", 64)
    monkeypatch.setattr(reader, "PAGE", 64)


def audited(source: Any, keep: Keep | None = None, period: str = JUNE, **options: Any) -> AuditReport:
    return replace(run_audit(source, period, asks=False, keep=keep, **options), seconds=0)


def by_pages(world: World) -> Any:
    """The archive, without its columns."""
    return type("ByPages", (), {"call": staticmethod(ArchiveSource(world.archive).call)})()


@pytest.mark.parametrize("source_of", [by_pages, lambda world: ArchiveSource(world.archive)], ids=["pages", "columns"])
def test_killed_behind_any_saving_it_comes_to_the_same_report(world: World, source_of: Callable[[World], Any]) -> None:
    source = source_of(world)
    undisturbed, whole = Keep(), audited(source)
    assert audited(source, undisturbed) == whole
    assert undisturbed.saved >= 8
    for number in range(1, undisturbed.saved + 1):
        keep = Keep(killed_at=number)
        with pytest.raises(Killed):
            audited(source, keep)
        again = Keep(keep.kept)
        assert audited(source, again) == whole, number
        assert again.saved < undisturbed.saved


def test_killed_again_and_again_it_comes_to_the_same_report(world: World) -> None:
    source = ArchiveSource(world.archive)
    keep, runs = Keep(killed_at=1), 0
    while True:
        try:
            found = audited(source, keep)
            break
        except Killed:
            keep, runs = Keep(keep.kept, killed_at=1), runs + 1
    assert runs >= 8
    assert found == audited(source)


def test_what_was_found_before_it_was_killed_is_in_the_report_once(world: World) -> None:
    tampering = Tampering(by_pages(world))
    for position in (40, 200, world.size - 5):
        tampering.event("quota", position, lambda e: e.update(recorded_at="2026-06-01T00:00:00Z", amount=7))
    whole = audited(tampering)
    assert whole.differences_count > 3
    for number in (2, 5, 8):
        keep = Keep(killed_at=number)
        with pytest.raises(Killed):
            audited(tampering, keep)
        assert audited(tampering, Keep(keep.kept)) == whole


def test_it_goes_on_from_databases(world: World) -> None:
    with snapshot(urls_in(Path(world.settings.var))) as logs:
        keep = Keep(killed_at=6)
        with pytest.raises(Killed):
            audited(logs, keep)
        assert audited(logs, Keep(keep.kept)) == audited(logs)


def test_nothing_that_is_folded_is_forgotten(world: World) -> None:
    """Whoever adds something to a part of an audit must say whether it is to be saved."""
    audit = _Audit(ArchiveSource(world.archive), JUNE, None, None, 0, False, None)
    audit._fold_all()
    ledger = audit.ledgers[0]
    parts = [getattr(audit, name) for name in state.PARTS]
    parts += [audit.metered, ledger, ledger.requests, ledger.requests.index, audit.readers["quota"]]
    assert {type(part) for part in parts} == set(state.KEPT)
    for part in parts:
        assert set(vars(part)) - WIRED - COMPARED == set(state.KEPT[type(part)]), type(part)


# -- a state that is not its own ------------------------------------------------------------------------
@pytest.fixture
def kept(world: World) -> bytes:
    keep = Keep(killed_at=8)
    with pytest.raises(Killed):
        audited(ArchiveSource(world.archive), keep)
    assert keep.kept is not None
    return keep.kept


@pytest.mark.parametrize(
    ("other", "named"),
    [({"period": "2026-05"}, "month"), ({"seed": 3}, "seed"), ({"verifier_keys": {}}, None)],
    ids=["month", "seed", "same keys"],
)
def test_of_another_audit_it_is_refused(world: World, kept: bytes, other: dict[str, Any], named: str | None) -> None:
    keep = Keep(kept)
    if named is None:
        audited(ArchiveSource(world.archive), keep, **other)
        return
    with pytest.raises(SetupFailed, match=named):
        audited(ArchiveSource(world.archive), keep, **other)
    assert (keep.kept, keep.saved) == (kept, 0)


def test_with_another_key_it_is_refused(world: World, kept: bytes) -> None:
    keys = ArchiveSource(world.archive).call("audit", "status")["verifier_keys"]
    with pytest.raises(SetupFailed, match="another keys"):
        audited(ArchiveSource(world.archive), Keep(kept), verifier_keys=keys)


def test_of_another_version_of_the_program_it_is_refused(
    world: World, kept: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.replay.run.program", lambda: "another")
    with pytest.raises(SetupFailed, match="version of this program"):
        audited(ArchiveSource(world.archive), Keep(kept))


@pytest.mark.parametrize("log", ["audit", "quota", "billing"])
def test_of_another_source_it_is_refused(world: World, log: str) -> None:
    source = by_pages(world)
    keep = Keep(killed_at=8)
    with pytest.raises(Killed):
        audited(source, keep)
    assert keep.kept is not None
    position = state.decode(keep.kept)["audit" if log == "audit" else "readers"]
    position = position["position"] if log == "audit" else position[log]["position"]
    assert position
    tampering = Tampering(source)
    tampering.event(log, position, lambda e: e.update(fingerprint="another"))
    with pytest.raises(SetupFailed, match="another source"):
        audited(tampering, Keep(keep.kept))


def test_of_a_log_that_is_shorter_now_it_is_refused(world: World, kept: bytes) -> None:
    source = ArchiveSource(world.archive)

    class Cut:
        def call(self, service: str, method: str, /, **asked: Any) -> Any:
            answer = source.call(service, method, **asked)
            if service == "quota" and method == "events":
                return answer | {"events": [e for e in answer["events"] if e["position"] < 50]}
            return answer

        columns = staticmethod(source.columns)

    with pytest.raises(SetupFailed, match="another event, or none"):
        audited(Cut(), Keep(kept))


def hostile(of: Any) -> bytes:
    class Harm:
        def __reduce__(self) -> Any:
            return of

    return pickle.dumps({"about": Harm()})


NO_STATES = [
    b"", b"\x80", b"nonsense", pickle.dumps([1]), pickle.dumps({}), pickle.dumps({"about": 7}),
    hostile((os.getcwd, ())), hostile((eval, ("1",))), hostile((getattr, (int, "real"))),
]  # fmt: skip


@pytest.mark.parametrize("data", NO_STATES)
def test_what_is_no_state_is_refused_and_runs_nothing(world: World, data: bytes) -> None:
    with pytest.raises(SetupFailed):
        audited(ArchiveSource(world.archive), Keep(data))


def test_a_state_with_something_missing_is_refused(world: World, kept: bytes) -> None:
    chance = random.Random(1)
    for _ in range(10):
        spoiled = state.decode(kept)
        place = chance.choice([spoiled, spoiled["parts"], spoiled["readers"]["quota"], spoiled["ledgers"][0]])
        del place[chance.choice([name for name in place if name != "about"])]
        refused(world, spoiled)
    for audit in (None, 7, {}, {"position": "1"}):
        refused(world, state.decode(kept) | {"audit": audit})


def refused(world: World, spoiled: dict[str, Any]) -> None:
    with pytest.raises(SetupFailed, match="not the state of a replay"):
        audited(ArchiveSource(world.archive), Keep(state.encode(spoiled)))


# -- its folder -----------------------------------------------------------------------------------------
def test_a_folder_gives_back_what_was_saved_last_and_nothing_once_it_is_removed(tmp_path: Path) -> None:
    with resuming.opened(tmp_path / "new") as folder:
        assert folder.load() is None
        folder.save(b"one")
        folder.save(b"two")
    with resuming.opened(tmp_path / "new") as folder:
        assert folder.load() == b"two"
        folder.remove()
        assert folder.load() is None


def test_any_damage_is_told_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    with resuming.opened(tmp_path) as folder:
        folder.save(b"some state")
        whole = folder.path.read_bytes()
        spoiled = [whole[:n] for n in range(len(whole))]
        spoiled += [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole))]
        for data in (*spoiled, whole + b"x", b"\0" * 100):
            folder.path.write_bytes(data)
            with pytest.raises(SetupFailed, match=r"damaged|of another format"):
                folder.load()
            assert folder.path.read_bytes() == data


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with resuming.opened(tmp_path), pytest.raises(Busy), resuming.opened(tmp_path):
        pass
    with pytest.raises(SetupFailed), resuming.opened(Path("/proc/nowhere")):
        pass


# -- kill -9 --------------------------------------------------------------------------------------------
def started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.replay_process", JUNE, "--from", "archive", "--json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def killed(process: subprocess.Popen[str], savings: int) -> int:
    """Let it save so often, and kill it while it reads on; how often it has saved."""
    assert process.stdin is not None
    assert process.stderr is not None
    for line in process.stderr:
        if line != "saved\n":
            continue
        savings -= 1
        process.stdin.write("\n")
        process.stdin.flush()
        if not savings:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(60) == -signal.SIGKILL
    return savings


def test_a_process_that_is_killed_goes_on_and_reports_the_same_bytes(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last that goes on is this one: another process than those that were killed, and one start less."""
    archive, folder = ("--archive", str(world.archive)), tmp_path / "state"
    undisturbed = json.dumps(json.loads(json.dumps(audited(ArchiveSource(world.archive)).as_dict())))
    for savings in (3, 4):
        assert killed(started(*archive, "--state", str(folder)), savings) == 0
        data = (folder / resuming.FILE).read_bytes()
        assert data.startswith(resuming.FORMAT)
    capsys.readouterr()
    assert cli.run(["audit", "replay", JUNE, "--from", "archive", "--json", *archive, "--state", str(folder)]) == 0
    assert json.dumps(json.loads(capsys.readouterr().out) | {"seconds": 0}) == undisturbed
    assert not (folder / resuming.FILE).exists()


def test_what_is_no_state_is_told_on_the_command_line(world: World, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / resuming.FILE).write_bytes(b"nonsense")
    archive = ["--from", "archive", "--archive", str(world.archive)]
    assert cli.run(["audit", "replay", JUNE, *archive, "--state", str(tmp_path)]) == 1
    assert "is not the state of a replay" in capsys.readouterr().err
    assert (tmp_path / resuming.FILE).read_bytes() == b"nonsense"


@pytest.mark.parametrize("within", ["", "state", "../pages/state"])
def test_a_state_among_the_pages_is_refused_before_anything_is_read(
    world: World, tmp_path: Path, capsys: Any, within: str
) -> None:
    pages = tmp_path / "pages"
    folders = ("--pages", str(pages), "--state", str(pages / within))
    assert cli.run(["audit", "replay", JUNE, "--from", "archive", "--archive", str(world.archive), *folders]) == 2
    assert "keep --state elsewhere" in capsys.readouterr().err
    assert not pages.exists()
