"""Witnesses: a fork, a rewrite and a cut tail collect no signature, and an alarm says which it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.audit.replay.findings import Findings
from services.audit.replay.proofs import Proofs
from services.audit.witness import Cosigned, Refused, Witness, proof_of
from shared.errors import AuditFailed, MalformedCommand, SetupFailed
from shared.transparency.checkpoint import open_checkpoint, sign_checkpoint
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey
from shared.transparency.refusal import Refusal, open_refusal
from tests.unit.test_audit_sealing import World, events

NOW_S = 1_781_755_200
OURS = SigningKey.generate("example.org/w1", COSIGNATURE)
OTHER = SigningKey.generate("example.org/w2", COSIGNATURE)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A log's own audit service, which knows our key."""
    made = World(tmp_path / "honest", witness_keys=(str(OURS.verifier), str(OTHER.verifier)))
    yield made
    made.close()


@pytest.fixture
def liar(world: World, tmp_path: Path) -> Iterator[World]:
    """Another service with the same key, which follows another log under the same name."""
    (tmp_path / "liar" / "audit").mkdir(parents=True, mode=0o700)
    key = tmp_path / "liar" / "audit" / "key"
    key.write_text((tmp_path / "honest" / "audit" / "key").read_text())
    key.chmod(0o600)
    made = World(tmp_path / "liar", witness_keys=(str(OURS.verifier),))
    yield made
    made.close()


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(OURS, tmp_path / "witness")


def grown(world: World, to: int, salt: str = "") -> dict[str, Any]:
    """The log as followed up to a position, and its checkpoint."""
    world.app.follow("quota", events(world.app.status()["followed"]["quota"], to, salt))
    return world.seal(to)


def judged(witness: Witness, world: World, answer: dict[str, Any]) -> Cosigned | Refused:
    def prove(first: int, second: int) -> Sequence[bytes]:
        return proof_of(world.app.consistency({"log": "quota", "first": first, "second": second}))

    return witness.judge(answer["note"], VerifierKey.parse(answer["verifier_key"]), prove, NOW_S)


def test_what_extends_what_was_signed_is_cosigned_and_the_checkpoint_shows_it(world: World, witness: Witness) -> None:
    for size in (10, 300, 700):
        said = judged(witness, world, grown(world, size))
        assert isinstance(said, Cosigned)
        kept = world.app.cosign({"log": "quota", "note": said.note})
        assert (kept["kind"], kept["size"], kept["replayed"]) == ("cosigned", size, False)
        assert world.app.cosign({"log": "quota", "note": said.note})["replayed"]
        for answer in (world.app.checkpoint({"log": "quota"}), world.seal(size)):
            key = VerifierKey.parse(answer["verifier_key"])
            opened = open_checkpoint(answer["note"], key, witnesses=[OURS.verifier], witnesses_min=1)
            assert opened.witnessed_s == {OURS.verifier: NOW_S}
    assert all(c["note"].count("example.org/w1 ") == 1 for c in world.app.checkpoints({"log": "quota"})["checkpoints"])


def test_two_witnesses_stand_side_by_side_and_a_later_word_replaces_an_earlier(
    world: World, witness: Witness, tmp_path: Path
) -> None:
    answer = grown(world, 10)
    second = Witness(OTHER, tmp_path / "second")
    key = VerifierKey.parse(answer["verifier_key"])
    for each, now_s in ((witness, NOW_S), (second, NOW_S), (witness, NOW_S + 60)):
        said = each.judge(answer["note"], key, lambda *_: [], now_s)
        world.app.cosign({"log": "quota", "note": said.note})
    opened = open_checkpoint(world.seal(10)["note"], key, witnesses=[OURS.verifier, OTHER.verifier], witnesses_min=2)
    assert opened.witnessed_s == {OURS.verifier: NOW_S + 60, OTHER.verifier: NOW_S}


@pytest.mark.parametrize(
    ("kind", "size", "salt"), [("fork", 300, "0"), ("rewrite", 700, "0"), ("cut", 200, ""), ("cut", 200, "0")]
)
def test_the_three_lies_are_refused_and_an_alarm_says_which(
    world: World, liar: World, witness: Witness, kind: str, size: int, salt: str
) -> None:
    assert isinstance(judged(witness, world, grown(world, 300)), Cosigned)
    said = judged(witness, liar, grown(liar, size, salt))
    assert isinstance(said, Refused)
    assert said.kind == kind
    for told in (world, liar):  # whoever hears of it keeps it
        assert told.app.refuse({"log": "quota", "note": said.note})["kind"] == kind
    statement, by = open_refusal(said.note, [OTHER.verifier, OURS.verifier])
    assert (by, statement.known.size, statement.refused.size) == (OURS.verifier, 300, size)
    # The next honest head is cosigned as if nothing had been.
    assert isinstance(judged(witness, world, grown(world, 800)), Cosigned)
    findings = Findings()
    proofs = Proofs(_Status(world), None, findings, 0)
    for logged in world.app.log.read(0, 100):
        proofs.apply(logged.position, logged.stream, logged.topic, logged.fields)
    assert [d.what for d in findings.differences] == [f"a witness refused a checkpoint: {kind}"]


class _Status:
    def __init__(self, world: World) -> None:
        self._world = world

    def call(self, service: str, method: str, /, **_: Any) -> Any:
        assert (service, method) == ("audit", "status")
        return self._world.app.status()


def test_a_rewrite_with_the_honest_logs_proof_is_one(world: World, liar: World, witness: Witness) -> None:
    judged(witness, world, grown(world, 300))
    grown(world, 700)
    lie = grown(liar, 700, "0")
    said = witness.judge(
        lie["note"],
        VerifierKey.parse(lie["verifier_key"]),
        lambda first, second: proof_of(world.app.consistency({"log": "quota", "first": first, "second": second})),
        NOW_S,
    )
    assert isinstance(said, Refused)
    assert said.kind == "rewrite"


def test_what_the_log_did_not_sign_is_not_judged_and_not_remembered(world: World, witness: Witness) -> None:
    answer = grown(world, 300)
    key = VerifierKey.parse(answer["verifier_key"])
    opened = open_checkpoint(answer["note"], key)
    stranger = SigningKey.generate(key.name)
    with pytest.raises(AuditFailed):
        witness.judge(str(sign_checkpoint(opened.checkpoint, stranger)), key, lambda *_: [], NOW_S)
    with pytest.raises(AuditFailed):
        witness.judge(answer["note"].replace("300", "301"), key, lambda *_: [], NOW_S)
    assert isinstance(judged(witness, world, answer), Cosigned)


def test_the_memory_outlives_the_process_and_is_not_guessed(world: World, liar: World, tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    judged(Witness(OURS, folder), world, grown(world, 300))
    assert isinstance(judged(Witness(OURS, folder), liar, grown(liar, 300, "0")), Refused)
    (folder / "signed.json").write_text("{")
    with pytest.raises(SetupFailed, match="restore it"):
        judged(Witness(OURS, folder), world, grown(world, 400))
    with pytest.raises(SetupFailed):
        Witness(SigningKey.generate("not-a-witness"), folder)


def test_of_two_processes_with_one_memory_neither_signs_what_contradicts_the_other(
    world: World, liar: World, tmp_path: Path
) -> None:
    true, lie = grown(world, 300), grown(liar, 300, "0")
    key = VerifierKey.parse(true["verifier_key"])
    said: list[Any] = []

    def ask(answer: dict[str, Any]) -> None:
        said.append(Witness(OURS, tmp_path / "witness").judge(answer["note"], key, lambda *_: [], NOW_S))

    threads = [threading.Thread(target=ask, args=(answer,)) for answer in (true, lie) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cosigned = {open_checkpoint(each.note, key).checkpoint.root for each in said if isinstance(each, Cosigned)}
    assert len(cosigned) == 1
    assert sum(isinstance(each, Refused) for each in said) == 4


@pytest.mark.parametrize(
    ("method", "change", "error"),
    [
        ("cosign", lambda note: note.replace("300", "299", 1), AuditFailed),
        ("cosign", lambda note: note[:-5], MalformedCommand),
        ("cosign", lambda note: "x", MalformedCommand),
        (
            "cosign",
            lambda note: "\n".join(line for line in note.split("\n") if "example.org/w1 " not in line),
            AuditFailed,
        ),
        ("refuse", lambda note: note, AuditFailed),
        ("refuse", lambda note: "x", AuditFailed),
    ],
)
def test_nobody_else_speaks_for_a_witness(
    world: World, witness: Witness, method: str, change: Any, error: type[Exception]
) -> None:
    said = judged(witness, world, grown(world, 300))
    head = world.app.log.head()
    with pytest.raises(error):
        getattr(world.app, method)({"log": "quota", "note": change(said.note)})
    assert world.app.log.head() == head


def test_a_witness_that_is_not_known_is_not_kept(world: World, tmp_path: Path) -> None:
    stranger = Witness(SigningKey.generate("example.org/w1", COSIGNATURE), tmp_path / "stranger")
    said = judged(stranger, world, grown(world, 300))
    with pytest.raises(AuditFailed):
        world.app.cosign({"log": "quota", "note": said.note})


@pytest.mark.parametrize("text", ["", "x\n", "tokengrid/refusal/v1\nlie\no\n1 AAAA\n2 AAAA\n"])
def test_what_is_no_refusal(text: str) -> None:
    with pytest.raises(AuditFailed):
        Refusal.parse(text)


def test_a_key_that_is_no_witnesses_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="not a witness"):
        World(tmp_path, witness_keys=(str(SigningKey.generate("log").verifier),))
    with pytest.raises(SetupFailed, match="WITNESS_KEYS"):
        World(tmp_path, witness_keys=("nonsense",))
