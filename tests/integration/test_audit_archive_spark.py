"""The replay on Spark, in workers of their own, against the replay of one process over the same archive."""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark", reason="the extra `spark` is not installed")
pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.archive.source import ArchiveSource
from services.audit.archive.spark_job import fold_account, root_of
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.reader import LogReader
from shared.archive.hashing import subtree
from shared.archive.reading import LogArchive
from shared.errors import AuditFailed
from shared.transparency.merkle import Tree, leaf_hash
from tests.unit.archive_world import World

BOUND_S = 110
# A short life: what the second compiler and a concurrent collector cost is never earned back.
BRIEF = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
MASTER = "local-cluster[2,1,1024]"  # two workers, each a process with a core and a gigabyte


class Sequential:
    """What the replay of one process makes of an archive."""

    def __init__(self, archive: Path) -> None:
        source = ArchiveSource(archive)
        self.findings, self.prices = Findings(), Prices()
        self.usage: collections.Counter[str] = collections.Counter()
        LogReader(source, "catalog", self.prices.apply, self.findings).read_on()
        self.ledger = Ledger(self.prices, self.findings, self._heard, lambda p: self.reader.event_at(p)[1:])
        self.reader = LogReader(source, "quota", self.ledger.apply, self.findings)
        self.reader.read_on()
        self.ledger.finish()

    def _heard(self, _position: int, _account: object, topic: str, event: Any) -> None:
        if topic == "quota.TokensDebited:1":
            self.usage.update(event["usage"])


@pytest.fixture
def archive(world: World) -> Path:
    return world.archive


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java: python -m tokengrid.servers.install java")
def test_two_workers_come_to_what_one_process_does(archive: Path, tmp_path: Path) -> None:
    arguments = f"--driver-java-options '{BRIEF}' --conf 'spark.executor.extraJavaOptions={BRIEF}' pyspark-shell"
    command = [sys.executable, "-m", "services.audit.archive.spark_job", str(archive), "--master", MASTER]
    result = subprocess.run(
        [*command, "--balances", str(tmp_path / "balances")],
        env={**os.environ, "PYSPARK_SUBMIT_ARGS": arguments, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    one = Sequential(archive)
    assert found == {
        "events": one.reader.position,
        "root_sha256": one.reader.tree.root().hex(),
        "accounts": len(one.ledger.accounts),
        "debited": one.ledger.debited,
        "usage": dict(one.usage),
        "differences_count": one.findings.count,
        "differences": [],
    }
    written = (tmp_path / "balances").read_text().splitlines()
    balances = {(state := json.loads(line)).pop("stream"): state for line in written}
    assert balances == {stream: account.state() for stream, account in one.ledger.accounts.items()}


def test_an_account_is_folded_alone_as_among_others(archive: Path) -> None:
    one = Sequential(archive)
    events: dict[str, list[tuple[int, int, str, bytes]]] = {}
    for rows in LogArchive.open(archive, "quota").rows():
        for row in rows:
            events.setdefault(row.stream, []).append((row.position, row.version, row.topic, row.state))
    for stream, of_account in events.items():
        random.Random(1).shuffle(of_account)
        folded = fold_account(one.prices, "quota", stream, of_account)
        assert (folded.state, folded.differences) == (one.ledger.accounts[stream].state(), ())
        broken = fold_account(one.prices, "quota", stream, [e for e in of_account if e[1] != 2])
        assert "versions of a stream have a gap" in {what for what, *_ in broken.differences}
        hostile = fold_account(one.prices, "quota", stream, [*of_account, (10**9, len(of_account) + 1, "x", b"[")])
        assert hostile.differences
        assert hostile.state == folded.state


def test_the_root_is_put_together_from_parts_of_any_size(seed: int) -> None:
    chance = random.Random(seed)
    for size in (0, 1, 255, 256, 257, 511, 1000, 70_000):
        leaves = [leaf_hash(n.to_bytes(8)) for n in range(size)]
        parts, first = [], 0
        while first < size:
            some = leaves[first : first + chance.choice((1, 100, 300, 5000, 20_000))]
            start = min(-first % 256, len(some))
            end = start + (len(some) - start) // 256 * 256
            roots = b"".join(subtree(some[n : n + 256]) for n in range(start, end, 256))
            parts.append((first + 1, b"".join(some[:start]), roots, b"".join(some[end:])))
            first += len(some)
        chance.shuffle(parts)
        tree = Tree()
        for leaf in leaves:
            tree.append(leaf)
        assert root_of(parts) == tree.root()
        if len(parts) > 2:
            with pytest.raises(AuditFailed):
                root_of(sorted(parts)[1:])
