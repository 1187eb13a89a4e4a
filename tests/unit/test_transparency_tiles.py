"""Tiles: their paths, which ones a tree has, and hashes computed from nothing but them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from shared.errors import AuditFailed, LimitExceeded, MalformedCommand
from shared.transparency import merkle
from shared.transparency.tiles import Tile, TileHashes, bundle_entries, entry_bundle, grow, tile_bytes, tiles_of

SIZE = 70_000
HASHES = merkle.StoredHashes(merkle.leaf_hash(n.to_bytes(4, "big")) for n in range(SIZE))


def _held(tiles: dict[tuple[int, int], bytes]) -> Callable[[int, int], bytes]:
    return lambda level, index: tiles[level, index]


def files_of(size: int) -> dict[str, bytes]:
    return {tile.path: tile_bytes(HASHES, tile) for tile in tiles_of(size)}


class TestPaths:
    @pytest.mark.parametrize(
        ("tile", "path"),
        [
            (Tile(0, 0), "tile/0/000"),
            (Tile(0, 1234067), "tile/0/x001/x234/067"),
            (Tile(63, 999), "tile/63/999"),
            (Tile(1, 1000), "tile/1/x001/000"),
            (Tile(0, 273, 112), "tile/0/273.p/112"),
            (Tile(None, 0, 15), "tile/entries/000.p/15"),
        ],
    )
    def test_path_and_back(self, tile: Tile, path: str) -> None:
        assert tile.path == path
        assert Tile.parse(path) == tile

    @pytest.mark.parametrize(
        "path",
        [
            "tile/0/0",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000/",
            "tile/0/000\n",
            "/tile/0/000",
            "tile/0/../000",
            "tile/0/٠٠٠",
            "",
        ],
    )
    def test_no_other_spelling_is_a_path(self, path: str) -> None:
        with pytest.raises(MalformedCommand):
            Tile.parse(path)


class TestTilesOfATree:
    def test_the_standards_example(self) -> None:
        tiles = list(tiles_of(SIZE))
        assert sum(t.level == 0 and t.width == 256 for t in tiles) == 273
        assert [t for t in tiles if t.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
        assert [t for t in tiles if t.level == 1 and t.width == 256] == [Tile(1, 0)]
        assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
        assert list(tiles_of(0)) == []

    def test_growth_gives_only_the_new_tiles(self) -> None:
        for after, size in ((0, 255), (255, 256), (256, 257), (300, 300), (511, 70_000), (65_535, 65_536)):
            assert set(tiles_of(size, after)) == set(tiles_of(size)) - set(tiles_of(after))

    @pytest.mark.parametrize(
        "cuts", [(0, 1, 255, 256, 257, 1000), (0, 65_535, 65_536, 65_537, SIZE), (0, 300, 300, 70_000)]
    )
    def test_growing_by_pages_gives_the_tiles_of_the_whole(self, cuts: tuple[int, ...]) -> None:
        held: dict[tuple[int, int], bytes] = {}
        for before, after in pairwise(cuts):
            leaves = [HASHES(0, n) for n in range(before, after)]
            held.update({(level, index): content for level, index, content in grow(_held(held), before, leaves)})
            assert {Tile(*key, len(content) // 32).path: content for key, content in held.items()} == files_of(after)

    def test_growing_on_a_tile_of_another_width_is_refused(self) -> None:
        with pytest.raises(AuditFailed, match="has not the hashes of its width"):
            list(grow(lambda _level, _index: b"", 3, [HASHES(0, 3)]))

    def test_root_and_proofs_from_tiles_alone(self) -> None:
        files = files_of(SIZE)
        hashes = TileHashes(lambda tile: files[tile.path], SIZE)
        root = merkle.root_at(hashes, SIZE)
        assert root == merkle.root_at(HASHES, SIZE)
        for index in (0, 255, 256, 65_535, 65_536, SIZE - 1):
            proof = merkle.inclusion_proof(hashes, index, SIZE)
            merkle.verify_inclusion(hashes(0, index), index, SIZE, proof, root)
        for older in (1, 255, 256, 65_536, SIZE - 1):
            proof = merkle.consistency_proof(hashes, older, SIZE)
            merkle.verify_consistency(older, merkle.root_at(HASHES, older), SIZE, root, proof)

    def test_a_tile_of_the_wrong_length_is_refused(self) -> None:
        for content in (b"", tile_bytes(HASHES, Tile(0, 0, 9)), tile_bytes(HASHES, Tile(0, 0, 10)) + b"\0"):
            with pytest.raises(AuditFailed):
                TileHashes(lambda _, content=content: content, 10)(0, 0)  # type: ignore[misc]

    def test_a_hash_beyond_the_size_is_refused(self) -> None:
        hashes = TileHashes(lambda tile: tile_bytes(HASHES, tile), 10)
        for level, index in ((0, 10), (1, 5), (4, 0), (0, -1), (-1, 0)):
            with pytest.raises(AuditFailed):
                hashes(level, index)

    def test_a_changed_tile_gives_another_root(self) -> None:
        files = files_of(300)
        changed = bytearray(files["tile/0/000"])
        changed[0] ^= 1
        files["tile/0/000"] = bytes(changed)
        # The root needs level 1 only: a proof of the leaf is where the change shows.
        hashes = TileHashes(lambda tile: files[tile.path], 300)
        proof = merkle.inclusion_proof(hashes, 1, 300)
        with pytest.raises(AuditFailed):
            merkle.verify_inclusion(hashes(0, 1), 1, 300, proof, merkle.root_at(HASHES, 300))


class TestBundles:
    def test_the_published_form(self) -> None:
        assert entry_bundle([b"one", b"", b"three"]).hex() == "00036f6e65" + "0000" + "00057468726565"

    def test_bundle_and_back(self) -> None:
        entries = [b"x" * n for n in (0, 1, 65_535)]
        assert bundle_entries(entry_bundle(entries), 3) == entries

    def test_an_entry_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(LimitExceeded):
            entry_bundle([b"x" * 65_536])

    def test_a_bundle_that_was_cut_or_extended_is_refused(self) -> None:
        whole = entry_bundle([b"one", b"two"])
        for data, width in ((whole[:-1], 2), (whole[:6], 2), (whole + b"\0", 2), (whole, 1), (whole, 3), (b"", 1)):
            with pytest.raises(AuditFailed):
                bundle_entries(data, width)
