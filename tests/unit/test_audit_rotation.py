"""Keys that take each other's place: announced, with an overlap, and believed by whoever trusts either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from services.audit.keys import make_key
from services.audit.replay.findings import Findings
from services.audit.replay.proofs import Proofs
from shared.errors import AuditFailed, SetupFailed
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import SigningKey
from shared.transparency.note import Note, sign
from shared.transparency.rotation import Rotation, open_rotation, sign_rotation
from tests.unit.test_audit_sealing import World, events

OLD, NEW = SigningKey.generate("tokengrid"), SigningKey.generate("tokengrid")


def started(folder: Path, key: SigningKey, next_key: SigningKey | None = None) -> World:
    following = None if next_key is None else SecretStr(next_key.secret_text())
    return World(folder, audit_key=SecretStr(key.secret_text()), audit_next_key=following)


def lived(folder: Path, *starts: tuple[SigningKey, SigningKey | None]) -> World:
    """A start and a hundred more events with each of these keys; the last process."""
    for number, (key, following) in enumerate(starts):
        world = started(folder, key, following)
        world.app.follow("quota", events(100 * number, 100 * (number + 1)))
        world.seal(100 * (number + 1))
        if number + 1 < len(starts):
            world.close()
    return world


@pytest.fixture
def rotated(tmp_path: Path) -> Iterator[World]:
    """With the old key, with both, with the new one."""
    world = lived(tmp_path, (OLD, None), (OLD, NEW), (NEW, None))
    yield world
    world.close()


def of_quota(key: SigningKey) -> SigningKey:
    return SigningKey("tokengrid/quota", key.kind, key.seed)


def judged(world: World, key: SigningKey, change: Any = lambda fields: fields) -> tuple[Proofs, list[str]]:
    """What a replay says of audit's log that trusts one key alone."""
    findings = Findings()
    proofs = Proofs(None, {"quota": str(of_quota(key).verifier)}, findings, 0)  # type: ignore[arg-type] # nobody is asked
    for logged in world.app.log.read(0, 100):
        proofs.apply(logged.position, logged.stream, logged.topic, change(logged.fields))
    return proofs, [d.what for d in findings.differences]


def test_during_the_overlap_both_keys_sign_and_afterwards_the_new_one(rotated: World) -> None:
    notes = [checkpoint["note"] for checkpoint in rotated.app.checkpoints({"log": "quota"})["checkpoints"]]
    assert [len(Note.parse(note).signatures) for note in notes] == [1, 2, 1]
    for key, signed in ((OLD, (True, True, False)), (NEW, (False, True, True))):
        for note, by_it in zip(notes, signed, strict=True):
            if by_it:
                open_checkpoint(note, of_quota(key).verifier)
            else:
                with pytest.raises(AuditFailed):
                    open_checkpoint(note, of_quota(key).verifier)
    assert [e.topic for e in rotated.app.log.read(0, 10)].count("audit.KeyAnnounced:1") == 1


@pytest.mark.parametrize("key", [OLD, NEW], ids=["old", "new"])
def test_whoever_trusts_one_of_them_believes_all_checkpoints(rotated: World, key: SigningKey) -> None:
    proofs, wrong = judged(rotated, key)
    assert wrong == []
    assert sorted(proofs.signed["quota"]) == [100, 200, 300]


def test_no_rotation_is_believed_that_the_trusted_key_did_not_sign(rotated: World) -> None:
    def forged(fields: dict[str, Any]) -> dict[str, Any]:
        if "new_key" not in fields:
            return fields
        stranger = SigningKey.generate("tokengrid/quota")
        return fields | {"note": str(sign_rotation(stranger, of_quota(NEW)))}

    proofs, wrong = judged(rotated, OLD, forged)
    assert wrong == ["rotation between keys that nobody trusts"]
    assert sorted(proofs.signed["quota"]) == [100, 200]


def test_without_an_overlap_another_key_is_refused(tmp_path: Path) -> None:
    lived(tmp_path, (OLD, None)).close()
    with pytest.raises(SetupFailed, match="restore that key"):
        started(tmp_path, NEW)
    with pytest.raises(SetupFailed, match="must be another one"):
        started(tmp_path, OLD, OLD)
    with pytest.raises(SetupFailed, match="must be another one"):
        started(tmp_path, OLD, SigningKey.generate("other"))


def test_the_next_key_can_come_from_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    World(tmp_path).close()
    made = make_key(tmp_path / "audit" / "next-key", "tokengrid")
    with pytest.raises(SetupFailed, match="there already"):
        make_key(tmp_path / "audit" / "next-key", "tokengrid")
    world = World(tmp_path)
    world.app.follow("quota", events(0, 10))
    world.seal(10)
    told = str(world.app.status()) + str([e.state for e in world.app.log.read(0, 10)])
    world.close()
    assert str(of_quota(made).verifier) in told
    assert made.secret_text().split("+", 4)[4] not in told
    (tmp_path / "audit" / "next-key").rename(tmp_path / "audit" / "key")
    World(tmp_path).close()


def test_only_a_statement_of_both_keys_is_one() -> None:
    assert open_rotation(str(sign_rotation(OLD, NEW))) == Rotation(OLD.verifier, NEW.verifier)
    text = Rotation(OLD.verifier, NEW.verifier).text
    same = Rotation(OLD.verifier, OLD.verifier).text
    for note in (sign(text, OLD), sign(text, NEW), sign(same, OLD), sign("x\n", OLD)):
        with pytest.raises(AuditFailed):
            open_rotation(str(note))
