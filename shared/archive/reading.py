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
from shared.archive.shredding import FIELD, STATE, Row, array_of, field_of, integers_of, request_keys, states
from shared.errors import AuditFailed, SetupFailed
from shared.transparency.merkle import HASH_BYTES
from shared.transparency.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, TileHashes

# What comes of columns that are not as they were written.
MALFORMED = (pa.ArrowException, ValueError, TypeError, LookupError, AttributeError)
TYPES = {"position": pa.int64(), "stream": pa.string(), "version": pa.int64(), "topic": pa.string()}
HASHED = tuple(TYPES)  # and the state


class Group(NamedTuple):
    """Events of a row group: their first position, columns as Arrow arrays, and fields' JSON texts by name."""

    first: int
    table: Any
    fields: dict[str, Any]
    where: str  # for complaints

    @property
    def states(self) -> Any:
        """Put together again, each time it is asked for: they are most of what a group takes."""
        try:
            return states(self.table, self.fields)
        except MALFORMED as error:
            raise AuditFailed(f"{self.where} cannot be read: {error}") from None

    def leaf_hashes(self, log: str) -> list[bytes]:
        return leaf_hashes(log, [*map(self.column, HASHED), self.states])

    def sliced(self, start: int, count: int) -> Group:
        if start == 0 and count >= len(self.table):
            return self
        fields = {name: texts.slice(start, count) for name, texts in self.fields.items()}
        return Group(self.first + start, self.table.slice(start, count), fields, self.where)

    def column(self, name: str) -> Any:
        return array_of(self.table, name)

    # -- by columns, as a replay asks for them -------------------------------------------------------
    @property
    def positions(self) -> Any:
        return self.column("position")

    @property
    def streams(self) -> Any:
        return self.column("stream")

    @property
    def versions(self) -> Any:
        return self.column("version")

    @property
    def topics(self) -> Any:
        return self.column("topic")

    @property
    def shapes(self) -> Any:
        return self.column("shape")

    def texts(self, name: str) -> Any:
        return self.fields.get(name)

    def integers(self, name: str) -> Any:
        return integers_of(self.table, name)

    def lists(self, name: str) -> list[Any]:
        return self.column(name).to_pylist()  # type: ignore[no-any-return]

    def rows(self) -> list[tuple[int, str, int, str, bytes, str | None]]:
        """Position, stream, version, topic, state and trace of each event."""
        return list(zip(*map(self.lists, HASHED), self.states.to_pylist(), self.lists("trace"), strict=True))


NO_EVENTS = Group(1, (), {}, "")


class LogArchive:
    """The archive of one log, as its manifest names it."""

    groups_kept = 4  # decoded, in memory: 50 MB each

    def __init__(self, folder: Path, manifest: m.Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._lasts = [part.last for part in manifest.parts]
        self._groups: dict[int, Group] = {}  # the last ones that were asked for, the latest last
        self._last = NO_EVENTS  # of those that are read on
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

    def section(self, after: int, limit: int) -> Group:
        """At most `limit` events behind `after`, as they stand in one row group, for who reads on to the end.
        Only the last group is kept: memory that is given back and taken again costs as much as reading."""
        if not self._last.first <= after + 1 < self._last.first + len(self._last.table):
            self._last = NO_EVENTS
            self._last = next(self.groups(after))
        group = self._last
        if after + 1 + limit >= group.first + len(group.table):
            self._last = NO_EVENTS
        return group.sliced(after + 1 - group.first, limit)

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
            file, where = self._parquet(part), f"{part.file.path} of {self.manifest.log}"
            try:
                for number in range(file.metadata.num_row_groups):
                    table = file.read_row_group(number, use_threads=False)
                    table = table.filter(pc.equal(table.column("stream"), stream))
                    if len(table):
                        yield Group(part.first, table, {}, where).rows()
            except (OSError, *MALFORMED) as error:
                raise AuditFailed(f"{where} cannot be read: {error}") from None

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
        where = f"{part.file.path} of {self.manifest.log}"
        try:
            table = file.read_row_group(number, use_threads=False)
            names = [name.removeprefix(FIELD) for name in table.column_names if name.startswith(FIELD)]
            group = Group(first, table, {name: field_of(table, name) for name in names}, where)
            for texts in (*group.fields.values(), group.column(STATE)):
                texts.cast(pa.string())  # checks that it is UTF-8
            sound = all(table.schema.field(name).type == kind for name, kind in TYPES.items())
            sound = sound and not any(table.column(name).null_count for name in (*TYPES, "shape"))
            sound = sound and (not len(table) or pc.min(table.column("version")).as_py() > 0)
            positions = group.column("position").to_numpy(zero_copy_only=False)
        except (OSError, *MALFORMED) as error:
            raise AuditFailed(f"{where} cannot be read: {error}") from None
        if not sound:
            raise AuditFailed(f"{where} has not the columns of a log")
        if not np.array_equal(positions, np.arange(first, first + len(table))):
            raise AuditFailed(f"{where} has not the positions from {first} on")
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
