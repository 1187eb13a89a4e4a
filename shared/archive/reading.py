"""One log of an archive: its events as they were stored, their leaf hashes, and the hashes of its tree.

Sections are read a row group at a time, and the last ones are kept. Nothing that is read is believed: a file that is
not as the archive wrote it raises AuditFailed. What the whole is worth, only the comparison of roots says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.archive import manifest as m
from shared.archive.hashing import Tiles, hashes_in, leaf_hashes
from shared.archive.shredding import Row, array_of, request_keys, states
from shared.errors import AuditFailed, SetupFailed
from shared.transparency.merkle import HASH_BYTES
from shared.transparency.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, TileHashes

# What comes of columns that are not as they were written.
MALFORMED = (pa.ArrowException, ValueError, TypeError, LookupError, AttributeError)
HASHED = ("position", "stream", "version", "topic")  # and the state


class Group(NamedTuple):
    """A row group: its first position, and its columns as Arrow arrays with the states put together again."""

    first: int
    table: Any
    states: Any

    def leaf_hashes(self, log: str) -> list[bytes]:
        return leaf_hashes(log, [*map(self.column, HASHED), self.states])

    def sliced(self, start: int, count: int) -> Group:
        return Group(self.first + start, self.table.slice(start, count), self.states.slice(start, count))

    def column(self, name: str) -> Any:
        return array_of(self.table, name)

    def lists(self, name: str) -> list[Any]:
        return self.column(name).to_pylist()  # type: ignore[no-any-return]

    def rows(self) -> list[tuple[int, str, int, str, bytes, str | None]]:
        """Position, stream, version, topic, state and trace of each event."""
        return list(zip(*map(self.lists, HASHED), self.states.to_pylist(), self.lists("trace"), strict=True))


class LogArchive:
    """The archive of one log, as its manifest names it."""

    groups_kept = 4  # decoded, in memory: 50 MB each

    def __init__(self, folder: Path, manifest: m.Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._lasts = [part.last for part in manifest.parts]
        self._groups: dict[int, Group] = {}  # the last ones that were asked for, the latest last
        self._leaves: tuple[int, list[bytes]] = (-1, [])  # the last tile of leaf hashes, and which it is
        self._tiles = {Tile.parse(file.path): file for file in manifest.tiles}
        self._fetched: dict[Tile, bytes] = {}

    @classmethod
    def open(cls, archive: Path, log: str) -> Self:
        """Raises SetupFailed when the archive has no such log."""
        folder = m.log_folder(archive, log)
        found = m.load(folder)
        if found is None:
            raise SetupFailed(f"The archive in {archive} has no log {log}.")
        if found.log != log:
            raise AuditFailed(f"{folder} is the archive of the log {found.log!r}")
        return cls(folder, found)

    # -- events -----------------------------------------------------------------------------------
    def groups(self, after: int = 0) -> Iterator[Group]:
        """The row groups with events behind `after`, in order."""
        for part in self.manifest.parts[bisect_left(self._lasts, after + 1) :]:
            file = self._parquet(part)
            first = part.first
            for number in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(number).num_rows
                if first + count > after + 1:
                    yield self._decoded(part, file, number, first)
                first += count

    def group_at(self, position: int) -> Group:
        """The row group of an event."""
        for first, group in reversed(self._groups.items()):
            if first <= position < first + len(group.table):
                return group
        group = next(self.groups(position - 1))
        if len(self._groups) == self.groups_kept:
            del self._groups[next(iter(self._groups))]
        self._groups[group.first] = group
        return group

    def page(self, after: int, limit: int) -> list[dict[str, Any]]:
        """At most `limit` events behind `after`, as a service's `events` gives them."""
        found: list[dict[str, Any]] = []
        while len(found) < limit and after < self.manifest.size:
            group = self.group_at(after + 1)
            found += _page(group.sliced(after + 1 - group.first, limit - len(found)))
            after = found[-1]["position"]
        return found

    def rows(self, after: int = 0) -> Iterator[list[Row]]:
        """All events behind `after` with all that was stored, a row group at a time."""
        for group in self.groups(after):
            columns = map(group.lists, HASHED)
            keys = request_keys(group.table).to_pylist()
            rows = map(Row, *columns, group.states.to_pylist(), keys, group.lists("trace"))
            yield [row for row in rows if row.position > after]

    def of_stream(self, stream: str) -> Iterator[list[tuple[int, str, int, str, bytes, str | None]]]:
        """The events of a stream, as `Group.rows`: those of one row group after the other."""
        for part in self.manifest.parts:
            file = self._parquet(part)
            try:
                for number in range(file.metadata.num_row_groups):
                    table = file.read_row_group(number, use_threads=False)
                    table = table.filter(pc.equal(table.column("stream"), stream))
                    if len(table):
                        yield Group(part.first, table, states(table)).rows()
            except (OSError, *MALFORMED) as error:
                raise AuditFailed(f"{part.file.path} of {self.manifest.log} cannot be read: {error}") from None

    def check(self, file: m.File) -> None:
        """That a file is the one that was archived. Raises AuditFailed."""
        path = self.folder / file.path
        if not path.is_file() or m.sha256_of(path) != file.sha256:
            raise AuditFailed(
                f"{file.path} of {self.manifest.log} is not the file that was archived", {"path": file.path}
            )

    def _parquet(self, part: m.Part) -> Any:
        try:
            file = pq.ParquetFile(self.folder / part.file.path, read_dictionary=["shape"])
        except (OSError, pa.ArrowException) as error:
            raise AuditFailed(f"{part.file.path} of {self.manifest.log} cannot be read: {error}") from None
        if file.metadata.num_rows != part.last - part.first + 1:
            raise AuditFailed(f"{part.file.path} of {self.manifest.log} has {file.metadata.num_rows} events")
        return file

    def _decoded(self, part: m.Part, file: Any, number: int, first: int) -> Group:
        try:
            table = file.read_row_group(number, use_threads=False)
            group = Group(first, table, states(table))
            positions = group.column("position").to_numpy(zero_copy_only=False)
            group.states.cast(pa.string())  # checks that it is UTF-8
        except (OSError, *MALFORMED) as error:
            raise AuditFailed(f"{part.file.path} of {self.manifest.log} cannot be read: {error}") from None
        if not np.array_equal(positions, np.arange(first, first + len(table))):
            raise AuditFailed(f"{part.file.path} of {self.manifest.log} has not the positions from {first} on")
        return group

    # -- the tree -----------------------------------------------------------------------------------
    def hashes(self, size: int | None = None) -> TileHashes:
        """The hashes of the tree of the first `size` leaves."""
        return TileHashes(self._fetch, self.manifest.size if size is None else size)

    def edge(self) -> list[list[bytes]]:
        """By level, the hashes of the tile that is not full: what a tree needs to grow on."""
        found: list[list[bytes]] = []
        count, level = self.manifest.size, 0
        while count:
            width = count % TILE_WIDTH
            tile = Tile(level, count // TILE_WIDTH, width)
            found.append(hashes_in(self._fetch(tile)) if width else [])
            count, level = count >> TILE_HEIGHT, level + 1
        return found

    def _fetch(self, tile: Tile) -> bytes:
        assert tile.level is not None, "hashes are not in entry bundles"
        if tile.level == 0:
            if self._leaves[0] != tile.index:
                first = tile.index * TILE_WIDTH
                self._leaves = (tile.index, self._hashed(first, min(TILE_WIDTH, self.manifest.size - first)))
            return b"".join(self._leaves[1][: tile.width])
        # The archive has the widest tile of each place; an earlier tree's is its beginning.
        rest = (self.manifest.size >> TILE_HEIGHT * tile.level) - tile.index * TILE_WIDTH
        widest = Tile(tile.level, tile.index, min(TILE_WIDTH, rest))
        return self.stored(widest)[: tile.width * HASH_BYTES]

    def stored(self, tile: Tile) -> bytes:
        """A tile's content as its file has it."""
        if tile not in self._fetched:
            if tile not in self._tiles:
                raise AuditFailed(f"the archive of {self.manifest.log} has no {tile.path}")
            try:
                self._fetched[tile] = (self.folder / tile.path).read_bytes()
            except OSError as error:
                raise AuditFailed(f"{tile.path} of {self.manifest.log} cannot be read: {error}") from None
        return self._fetched[tile]

    def _hashed(self, index: int, count: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            group = self.group_at(index + len(found) + 1)
            start = index + len(found) + 1 - group.first
            found += group.sliced(start, count - len(found)).leaf_hashes(self.manifest.log)
        return found

    def root(self) -> bytes:
        """The root over the events as they are read now."""
        tree = Tiles()
        for group in self.groups():
            tree.append(group.leaf_hashes(self.manifest.log))
        return tree.root()


def _page(group: Group) -> list[dict[str, Any]]:
    texts = group.states.cast(pa.string()).to_pylist()
    columns = map(group.lists, (*HASHED, "trace"))
    return [
        {"position": p, "stream": s, "version": v, "topic": t, "state": state, "trace": trace}
        for p, s, v, t, trace, state in zip(*columns, texts, strict=True)
    ]
