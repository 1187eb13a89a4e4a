"""A published tree: a client that knows the layout alone comes from its files to the signed root, and to each event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.audit.published import publish
from shared.errors import MalformedCommand, NotCaughtUp
from shared.transparency import merkle
from shared.transparency.checkpoint import open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.leaf import decode
from shared.transparency.tiles import TILE_WIDTH, Tile, TileHashes, bundle_entries
from tests.unit.audit_world import EAST, Market, two_months


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    made = two_months(tmp_path_factory.mktemp("market"), seed=5)
    yield made
    made.close()


def read(folder: Path, key: VerifierKey) -> list[bytes]:
    """All entries, after everything was verified, from the files alone."""
    found = open_checkpoint((folder / "checkpoint").read_bytes(), key).checkpoint
    hashes = TileHashes(lambda tile: (folder / tile.path).read_bytes(), found.size)
    assert merkle.root_at(hashes, found.size) == found.root
    entries: list[bytes] = []
    for index in range(-(-found.size // TILE_WIDTH)):
        width = min(TILE_WIDTH, found.size - index * TILE_WIDTH)
        entries += bundle_entries((folder / Tile(None, index, width).path).read_bytes(), width)
    assert [merkle.leaf_hash(entry) for entry in entries] == [hashes(0, n) for n in range(found.size)]
    return entries


def test_from_the_files_to_the_root_and_to_each_event_and_again_when_it_has_grown(
    market: Market, tmp_path: Path
) -> None:
    key = VerifierKey.parse(market.audit.status()["verifier_keys"]["quota"])
    for _ in range(2):
        size = publish(market.client, "quota", tmp_path)
        entries = read(tmp_path, key)
        logged = market.quota.shards[0].log.read(0, 100_000)
        assert len(entries) == size == len(logged)
        assert [(e.position, e.state.encode()) for e in logged] == [
            (decode(x).position, decode(x).state) for x in entries
        ]
        account = f"e{size}"
        market.open(EAST, account, "payg", 0)
        grant = {"command": "grant", "operator": EAST, "account": account, "amount": 1, "source": "adjustment"}
        market.quota.execute([grant | {"request_id": f"g{n}"} for n in range(300)])
        market.follow()
    assert not list(tmp_path.rglob(".*"))


def test_what_is_not_there_is_not_published(market: Market, tmp_path: Path) -> None:
    with pytest.raises(MalformedCommand):
        publish(market.client, "nothing", tmp_path)
    empty = Market(tmp_path / "empty", 1)
    with pytest.raises(NotCaughtUp):
        publish(empty.client, "quota", tmp_path / "files")
    empty.close()
    assert not (tmp_path / "files").exists()
