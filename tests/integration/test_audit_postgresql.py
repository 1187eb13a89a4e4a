"""Audit's trees and checkpoints on a real PostgreSQL: two processes follow and seal one log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.audit.application import AuditApplication
from shared.config import Settings
from shared.errors import Conflict
from shared.transparency import merkle
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import VerifierKey
from tests.unit.test_audit_sealing import events, leaves

pytestmark = pytest.mark.servers


def test_two_processes_keep_one_tree(new_database: Callable[[str], str], tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, database=new_database("audit"))
    first, second = AuditApplication(settings), AuditApplication(settings)
    try:
        assert first.follow("quota", events(0, 700)) == 700
        assert second.follow("quota", events(0, 700)) == 700  # delivered to both: once in the tree
        with pytest.raises(Conflict):
            second.follow("quota", events(800, 900))
        assert second.seal_grown() == ["quota"]
        assert first.seal_grown() == []
        second.follow("quota", events(700, 1300))
        answer = first.seal({"log": "quota", "position": 1300})
        checkpoint = open_checkpoint(answer["note"], VerifierKey.parse(answer["verifier_key"])).checkpoint
        stored = merkle.StoredHashes(leaves(1300))
        assert (checkpoint.size, checkpoint.root) == (1300, merkle.root_at(stored, 1300))
        assert [c["size"] for c in second.checkpoints({"log": "quota"})["checkpoints"]] == [700, 1300]
        proof = second.consistency({"log": "quota", "first": 700})["proof"]
        root = merkle.root_at(stored, 700)
        merkle.verify_consistency(700, root, 1300, checkpoint.root, [bytes.fromhex(node) for node in proof])
    finally:
        first.close()
        second.close()
