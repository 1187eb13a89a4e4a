"""The replay is an implementation of its own: what it may import, and that two ways of hashing a leaf agree."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from services.audit.replay.leaves import leaf_hash_of
from shared.transparency.leaf import Leaf

ROOT = Path(__file__).parents[2]
REPLAY = sorted((ROOT / "services/audit/replay").glob("*.py"))
# numpy and pyarrow are for logs that a source has by columns.
ALLOWED = ("services.audit.replay", "shared.transparency", "shared.errors", "msgspec", "numpy", "pyarrow")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", REPLAY, ids=lambda path: path.name)
def test_the_replay_imports_nothing_of_what_it_audits(path: Path) -> None:
    foreign = {
        name
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(ALLOWED)
    }
    assert not foreign


@pytest.mark.parametrize(
    "event",
    [
        ("quota", 1, "north/acct-1", 1, "quota.AccountOpened:1", '{"at":"2026-01-01T00:00:00Z"}'),
        ("quota", 2**40, "北/账户", 9, "t", '{"note":"账单"}'),
        ("l", 3, "", 2**63 - 1, "t", ""),
    ],
)
def test_two_implementations_of_the_leaf_agree(event: tuple[str, int, str, int, str, str]) -> None:
    log, position, stream, version, topic, state = event
    leaf = Leaf(log, position, stream, version, topic, state.encode())
    assert leaf_hash_of(log)(position, stream, version, topic, state) == leaf.hash()


def test_the_leaf_agrees_with_the_published_vectors() -> None:
    page = (ROOT / "docs/reference/leaf-encoding.md").read_text()
    block = re.search(r"```json\n(.*?)```", page, re.S)
    assert block
    vectors = json.loads(block[1])
    assert len(vectors) >= 3
    for v in vectors:
        found = leaf_hash_of(v["log"])(v["position"], v["stream"], v["version"], v["topic"], v["state"])
        assert found.hex() == v["leaf_hash_hex"]
