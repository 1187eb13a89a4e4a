"""C2SP tlog-tiles: a tree's hashes, and its entries, as files of 256 each that never change.

Paths and bytes only; it must not read or write a file. What tiles say is proved by nothing but the
root of a checkpoint: verify what you compute from them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shared.errors import AuditFailed, LimitExceeded, MalformedCommand
from shared.transparency.merkle import HASH_BYTES, SIZE_MAX, HashReader, node_hash

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 2**16 - 1
_FULL_BYTES = TILE_WIDTH * HASH_BYTES

_U16 = struct.Struct(">H")
_PATH = re.compile(
    r"tile/(?P<level>[0-9]|[1-5][0-9]|6[0-3]|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z",
    re.ASCII,
)


@dataclass(frozen=True)
class Tile:
    """The `index`-th tile of a level, `width` hashes wide (256: full). Level None is an entry bundle."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{_index_path(self.index)}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """From a path. Raises MalformedCommand unless it is spelled exactly as `path` spells it."""
        match = _PATH.match(path)
        if match:
            level = None if match["level"] == "entries" else int(match["level"])
            index = int(match["index"].replace("x", "").replace("/", ""))
            tile = cls(level, index, int(match["width"] or TILE_WIDTH))
            if tile.path == path:  # refuses x000/001, .p/256 and the like
                return tile
        raise MalformedCommand(f"not the path of a tile: {path!r}", {"fields": {"path": ["not a tile"]}})


def tiles_of(size: int, after: int = 0) -> Iterator[Tile]:
    """The hash tiles of a tree of `size` leaves, level by level; only those that a tree of `after`
    leaves did not have. Bundles are those of level 0, with level None."""
    for level in range(LEVEL_MAX + 1):
        count, known = size >> (TILE_HEIGHT * level), after >> (TILE_HEIGHT * level)
        if count == 0:
            return
        if count == known:
            continue
        full, width = divmod(count, TILE_WIDTH)
        for index in range(known // TILE_WIDTH, full):
            yield Tile(level, index)
        if width:
            yield Tile(level, full, width)


def grow(fetch: Callable[[int, int], bytes], size: int, leaves: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """What becomes of a tree of `size` leaves when these leaf hashes are appended: level, index and content of every
    hash tile that changes. `fetch(level, index)` gives the content of a tile that is not full yet.

    A level is one piece of work, whatever its length: a hash costs little more than hashing it.
    """
    hashes: Sequence[bytes] = leaves
    for level in range(LEVEL_MAX + 1):
        if not hashes:
            return
        index, begun = divmod(size, TILE_WIDTH)
        content = (fetch(level, index) if begun else b"") + b"".join(hashes)
        if len(content) != (begun + len(hashes)) * HASH_BYTES:
            raise AuditFailed(f"{Tile(level, index, begun or TILE_WIDTH).path} has not the hashes of its width")
        parts = [content[start : start + _FULL_BYTES] for start in range(0, len(content), _FULL_BYTES)]
        for n, part in enumerate(parts):
            yield level, index + n, part
        hashes = [_tile_root(part) for part in parts if len(part) == _FULL_BYTES]
        size = index


def _tile_root(content: bytes) -> bytes:
    """The root of a full tile's subtree."""
    nodes = [content[n : n + HASH_BYTES] for n in range(0, _FULL_BYTES, HASH_BYTES)]
    while len(nodes) > 1:
        nodes = [node_hash(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
    return nodes[0]


def tile_bytes(hashes: HashReader, tile: Tile) -> bytes:
    """A hash tile's content: its `width` hashes, one after another."""
    if tile.level is None:
        raise ValueError("an entry bundle is not made of hashes")
    first = tile.index * TILE_WIDTH
    return b"".join(hashes(TILE_HEIGHT * tile.level, first + n) for n in range(tile.width))


class TileHashes:
    """A HashReader over the tiles of a tree of `size` leaves. `fetch(tile)` gives a tile's content; the
    narrowest tile that this size is sure to have is asked for. Raises AuditFailed for one of the wrong length."""

    def __init__(self, fetch: Callable[[Tile], bytes], size: int) -> None:
        if not 0 <= size <= SIZE_MAX:
            raise AuditFailed("size out of bounds")
        self._fetch = fetch
        self._size = size

    def __call__(self, level: int, index: int) -> bytes:
        if level < 0 or index < 0 or (index + 1) << level > self._size:
            raise AuditFailed(f"a tree of size {self._size} has no complete subtree {index} at level {level}")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, offset = divmod(index << height, TILE_WIDTH)
        width = min(TILE_WIDTH, (self._size >> (TILE_HEIGHT * tile_level)) - tile_index * TILE_WIDTH)
        tile = Tile(tile_level, tile_index, width)
        content = self._fetch(tile)
        if len(content) != width * HASH_BYTES:
            raise AuditFailed(f"{tile.path} has {len(content)} bytes, not {width * HASH_BYTES}")
        nodes = [content[n * HASH_BYTES : (n + 1) * HASH_BYTES] for n in range(offset, offset + (1 << height))]
        while len(nodes) > 1:
            nodes = [node_hash(left, right) for left, right in zip(nodes[::2], nodes[1::2], strict=True)]
        return nodes[0]


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries (canonical leaf bytes), each behind its length in two bytes. Raises LimitExceeded for one
    above 65,535 bytes: the format cannot hold it."""
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise LimitExceeded("entry is too long for a bundle", {"limit": ENTRY_BYTES_MAX})
    return b"".join(_U16.pack(len(entry)) + entry for entry in entries)


def bundle_entries(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises AuditFailed unless there are exactly so many."""
    entries, offset = [], 0
    while offset < len(data):
        start = offset + _U16.size
        if start > len(data):
            raise AuditFailed("bundle ends within a length")
        offset = start + _U16.unpack_from(data, offset)[0]
        if offset > len(data):
            raise AuditFailed("bundle ends within an entry")
        entries.append(data[start:offset])
    if len(entries) != width:
        raise AuditFailed(f"bundle has {len(entries)} entries, not {width}")
    return entries


def _index_path(index: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[n : n + 3] for n in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
