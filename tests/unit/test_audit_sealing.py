"""The audit application: trees grown by pages, checkpoints signed once and never against each other, proofs."""

from __future__ import annotations

import base64
import os
import random
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from services.audit.application import AuditApplication
from shared import telemetry
from shared.clock import FrozenClock
from shared.config import Settings
from shared.errors import AuditFailed, Conflict, MalformedCommand, NotCaughtUp, SetupFailed
from shared.transparency import merkle
from shared.transparency.checkpoint import Opened, open_checkpoint, verify_extends
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey
from shared.transparency.leaf import Leaf
from shared.transparency.tiles import Tile, TileHashes

NOW = datetime(2026, 6, 18, 4, tzinfo=UTC)


def events(after: int, to: int, salt: str = "") -> list[dict[str, Any]]:
    """A section of a log, as a follower brings it."""
    return [
        {
            "position": p,
            "stream": f"s{p % 7}",
            "version": p // 7 + 1,
            "topic": "quota.Something:1",
            "state": f'{{"n":{p}{salt}}}',
            "trace": None,
        }
        for p in range(after + 1, to + 1)
    ]


def leaves(to: int) -> list[bytes]:
    return [
        Leaf("quota", e["position"], e["stream"], e["version"], e["topic"], e["state"].encode()).hash()
        for e in events(0, to)
    ]


class World:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(var=folder, **settings)
        self.apps: list[AuditApplication] = []
        self.app = self.start()

    def start(self) -> AuditApplication:
        """A (further) process of the service on the same database."""
        app = AuditApplication(self.settings, FrozenClock(NOW))
        self.apps.append(app)
        return app

    def close(self) -> None:
        for app in self.apps:
            app.close()

    def seal(self, position: int = 0) -> dict[str, Any]:
        return self.app.seal({"log": "quota", "position": position})

    def opened(self, answer: dict[str, Any]) -> Opened:
        return open_checkpoint(answer["note"], VerifierKey.parse(answer["verifier_key"]))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# --- trees and checkpoints ---------------------------------------------------------------------------
def test_the_tree_is_the_same_however_the_log_comes(world: World, seed: int) -> None:
    choice = random.Random(seed)
    position = 0
    while position < 3000:
        to = min(position + choice.choice((1, 2, 100, 255, 256, 257, 700)), 3000)
        assert world.app.follow("quota", events(position, to)) == to
        checkpoint = world.opened(world.seal(to)).checkpoint
        assert (checkpoint.origin, checkpoint.size) == ("tokengrid/quota", to)
        assert checkpoint.root == merkle.root_at(merkle.StoredHashes(leaves(to)), to)
        position = to


def test_sealing_again_gives_the_same_checkpoint_and_writes_nothing(world: World) -> None:
    world.app.follow("quota", events(0, 10))
    first = world.seal(10)
    head = world.app.log.head()
    assert world.seal(3) == first
    assert world.app.checkpoint({"log": "quota"}) == first
    assert world.app.log.head() == head == 1


def test_what_is_not_followed_is_not_signed(world: World) -> None:
    world.app.follow("quota", events(0, 10))
    with pytest.raises(NotCaughtUp) as refusal:
        world.seal(11)
    assert refusal.value.details == {"log": "quota", "position": 10, "head": 11}
    assert world.app.log.head() == 0


def test_only_logs_that_grew_are_sealed_by_themselves(world: World) -> None:
    assert world.app.seal_grown() == []
    world.app.follow("quota", events(0, 10))
    world.app.follow("billing", events(0, 1))
    assert world.app.seal_grown() == ["quota", "billing"]
    assert world.app.seal_grown() == []
    world.app.follow("quota", events(10, 11))
    assert world.app.seal_grown() == ["quota"]
    assert world.app.status()["sealed"] == {"catalog": 0, "quota": 11, "routing": 0, "billing": 1}


def test_an_empty_log_has_a_checkpoint_when_asked_for(world: World) -> None:
    assert world.app.checkpoint({"log": "quota"})["note"] == ""
    checkpoint = world.opened(world.seal()).checkpoint
    assert (checkpoint.size, checkpoint.root) == (0, merkle.EMPTY_ROOT)
    world.app.follow("quota", events(0, 1))
    assert world.opened(world.seal(1)).checkpoint.size == 1


def test_a_tree_that_was_tampered_with_is_never_signed_again(world: World) -> None:
    world.app.follow("quota", events(0, 10))
    world.seal(10)
    with world.app.engine.begin() as connection:
        row = bytes(connection.execute(sa.text("SELECT hashes FROM tiles")).scalar_one())
        connection.execute(sa.text("UPDATE tiles SET hashes = :h"), {"h": bytes(32) + row[32:]})
    world.app.follow("quota", events(10, 11))
    with pytest.raises(AuditFailed):
        world.seal(11)
    with pytest.raises(AuditFailed):
        world.app.seal_grown()
    assert world.app.log.head() == 1


def test_a_page_moves_tree_and_position_together_or_not_at_all(world: World) -> None:
    world.app.follow("quota", events(0, 300))
    damaged = events(300, 310)
    damaged[5]["version"] = 0  # no leaf can have that
    with pytest.raises(AuditFailed):
        world.app.follow("quota", damaged)
    assert world.app.follow("quota", []) == 300
    with pytest.raises(Conflict):
        world.app.follow("quota", events(305, 310))
    world.app.follow("quota", events(290, 310))  # delivered twice in part
    assert world.opened(world.seal(310)).checkpoint.root == merkle.root_at(merkle.StoredHashes(leaves(310)), 310)


def test_two_processes_and_a_restart_go_on_with_one_log_of_checkpoints(world: World) -> None:
    other = world.start()
    world.app.follow("quota", events(0, 10))
    world.seal(10)
    other.follow("quota", events(10, 20))
    other.seal({"log": "quota", "position": 20})
    assert world.seal(20)["version"] == 2
    third = world.start()
    third.follow("quota", events(20, 30))
    assert third.seal({"log": "quota", "position": 30})["version"] == 3
    found = world.app.checkpoints({"log": "quota"})
    assert [c["size"] for c in found["checkpoints"]] == [10, 20, 30]


def test_checkpoints_come_in_pages(world: World) -> None:
    for n in range(1, 6):
        world.app.follow("quota", events(n - 1, n))
        world.seal(n)
    first = world.app.checkpoints({"log": "quota", "limit": 2})
    assert ([c["size"] for c in first["checkpoints"]], first["more"]) == ([1, 2], True)
    rest = world.app.checkpoints({"log": "quota", "after": 2, "limit": 3})
    assert ([c["version"] for c in rest["checkpoints"]], rest["more"]) == ([3, 4, 5], False)


def test_what_is_not_signed_yet_is_a_metric(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []

    class Gauge:
        def set(self, value: int, attributes: dict[str, str]) -> None:
            told.append((value, attributes["log"]))

    monkeypatch.setattr(telemetry, "gauge", lambda name, *_: Gauge())
    world.app.follow("quota", events(0, 10))
    world.app.seal_grown()
    world.app.follow("quota", events(10, 17))
    world.app.seal_grown()
    world.app.seal_grown()
    assert [value for value, log in told if log == "quota"] == [10, 7, 0]


# --- proofs --------------------------------------------------------------------------------------------
def test_proofs_verify_at_every_kind_of_size(world: World) -> None:
    world.app.follow("quota", events(0, 600))
    stored = merkle.StoredHashes(leaves(600))
    for size in (1, 2, 255, 256, 257, 511, 512, 600):
        root = merkle.root_at(stored, size)
        for position in {1, size, (size + 1) // 2, min(size, 256)}:
            answer = world.app.inclusion({"log": "quota", "position": position, "size": size})
            proof = [bytes.fromhex(node) for node in answer["proof"]]
            assert answer["leaf_sha256"] == leaves(position)[-1].hex()
            merkle.verify_inclusion(leaves(position)[-1], position - 1, size, proof, root)
        answer = world.app.consistency({"log": "quota", "first": size, "second": 600})
        proof = [bytes.fromhex(node) for node in answer["proof"]]
        merkle.verify_consistency(size, root, 600, merkle.root_at(stored, 600), proof)


def test_tiles_are_those_of_the_tree_and_lead_to_its_root(world: World) -> None:
    world.app.follow("quota", events(0, 600))

    def fetch(tile: Tile) -> bytes:
        return base64.b64decode(world.app.tile({"log": "quota", "path": tile.path})["hashes"])

    assert fetch(Tile(0, 1)) == b"".join(leaves(512)[256:])
    for size in (1, 255, 256, 257, 600):
        assert merkle.root_at(TileHashes(fetch, size), size) == merkle.root_at(merkle.StoredHashes(leaves(size)), size)


def test_without_a_size_proofs_lead_to_the_latest_checkpoint(world: World) -> None:
    world.app.follow("quota", events(0, 10))
    old = world.opened(world.seal(10)).checkpoint
    world.app.follow("quota", events(10, 300))
    new = world.opened(world.seal(300)).checkpoint
    world.app.follow("quota", events(300, 301))
    answer = world.app.consistency({"log": "quota", "first": 10})
    verify_extends(old, new, [bytes.fromhex(node) for node in answer["proof"]])
    assert world.app.inclusion({"log": "quota", "position": 10})["size"] == 300


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("inclusion", {"log": "quota", "position": 0}, MalformedCommand),
        ("inclusion", {"log": "quota", "position": 11, "size": 10}, MalformedCommand),
        ("inclusion", {"log": "quota", "position": 1, "size": 11}, NotCaughtUp),
        ("consistency", {"log": "quota", "first": 0, "second": 10}, MalformedCommand),
        ("consistency", {"log": "quota", "first": 9, "second": 8}, MalformedCommand),
        ("consistency", {"log": "quota", "first": 9, "second": 11}, NotCaughtUp),
        ("tile", {"log": "quota", "path": "tile/0/000"}, NotCaughtUp),
        ("tile", {"log": "quota", "path": "tile/0/000.p/11"}, NotCaughtUp),
        ("tile", {"log": "quota", "path": "tile/1/000.p/1"}, NotCaughtUp),
        ("tile", {"log": "quota", "path": "tile/63/x999/x999/x999/x999/x999/x999/999"}, NotCaughtUp),
        ("tile", {"log": "quota", "path": "tile/entries/000.p/1"}, MalformedCommand),
        ("tile", {"log": "quota", "path": "tile/0/../000"}, MalformedCommand),
        ("checkpoint", {"log": "audit"}, MalformedCommand),
        ("checkpoint", {}, MalformedCommand),
        ("checkpoints", {"log": "quota", "extra": 1}, MalformedCommand),
        ("seal", {"log": "nothing", "position": 0}, MalformedCommand),
        ("seal", {"log": "quota", "position": -1}, MalformedCommand),
    ],
)
def test_what_makes_no_sense_is_refused(
    world: World, method: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    world.app.follow("quota", events(0, 10))
    with pytest.raises(error):
        getattr(world.app, method)(fields)
    assert world.app.log.head() == 0


# --- the key -------------------------------------------------------------------------------------------
def test_the_key_is_made_once_for_its_owner_alone(world: World, tmp_path: Path) -> None:
    path = tmp_path / "audit" / "key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    text = path.read_text()
    assert world.start().status()["verifier_keys"] == world.app.status()["verifier_keys"]
    assert path.read_text() == text


def test_the_key_is_in_no_event_and_no_answer(world: World, tmp_path: Path) -> None:
    world.app.follow("quota", events(0, 10))
    secret = (tmp_path / "audit" / "key").read_text().strip().split("+", 4)[4]
    said = [repr(world.seal(10)), repr(world.app.status()), *(e.state for e in world.app.log.read(0, 10))]
    assert not any(secret in each or "PRIVATE" in each for each in said)


def test_a_key_that_others_can_read_is_refused(world: World, tmp_path: Path) -> None:
    os.chmod(tmp_path / "audit" / "key", 0o640)
    with pytest.raises(SetupFailed, match="others can read"):
        world.start()


def test_the_key_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate("example.org/power")
    monkeypatch.setenv("TOKENGRID_AUDIT_KEY", key.secret_text())
    world = World(tmp_path)
    assert not (tmp_path / "audit").exists()
    assert world.app.status()["verifier_keys"]["quota"].startswith("example.org/power/quota+")
    assert key.secret_text() not in repr(world.settings)
    world.close()


@pytest.mark.parametrize("text", ["", "secret", SigningKey.generate("w", COSIGNATURE).secret_text()])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupFailed) as refusal:
        World(tmp_path, audit_key=SecretStr(text))
    assert not text or text not in str(refusal.value)


def test_another_key_cannot_go_on_with_a_log_of_checkpoints(world: World, tmp_path: Path) -> None:
    world.app.follow("quota", events(0, 10))
    world.seal(10)
    (tmp_path / "audit" / "key").unlink()
    with pytest.raises(SetupFailed, match="restore that key"):
        world.start()
