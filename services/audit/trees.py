"""The Merkle tree of each followed log: tiles of 256 hashes in rows, grown by pages.

The tree's size is the followed position, and both move in one transaction. Only the tiles on the right
edge are ever read to append, so memory is that of one page, however long the log. It must not know
what the events mean, nor who signs a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shared.eventstore.log import LoggedEvent
from shared.eventstore.rows import of_each
from shared.eventstore.schema import POSITIONS
from shared.transparency.leaf import hasher
from shared.transparency.merkle import HASH_BYTES
from shared.transparency.tiles import LEVEL_MAX, TILE_HEIGHT, TILE_WIDTH, Tile, TileHashes, grow

FETCHED = 1000  # tiles at once

_tiles = sa.table(
    "tiles",
    sa.column("log", sa.Text),
    sa.column("level", sa.Integer),
    sa.column("index", sa.BigInteger),
    sa.column("hashes", sa.LargeBinary),
)
_positions = sa.table(POSITIONS, sa.column("projection", sa.Text), sa.column("position", sa.BigInteger))


def projection_name(log: str) -> str:
    """Under which name the followed position of a log is kept."""
    return f"tree:{log}"


def sizes(connection: sa.Connection, logs: Sequence[str]) -> dict[str, int]:
    """How many events of each log are in its tree."""
    names = {projection_name(log): log for log in logs}
    rows = connection.execute(sa.select(_positions).where(_positions.c.projection.in_(names)))
    found = {names[row.projection]: int(row.position) for row in rows}
    return {log: found.get(log, 0) for log in logs}


def hashes(connection: sa.Connection, log: str, size: int) -> TileHashes:
    """A reader of the hashes of the first `size` leaves. Tiles only grow, so that those of a later size
    serve an earlier one; each is fetched once."""
    return _reader(connection, log, size, {})


def hashes_around(connection: sa.Connection, log: str, size: int, leaves: Sequence[int]) -> TileHashes:
    """As `hashes`, with the tiles that these leaves (from 0) are in fetched at once, and those above them."""
    fetched: dict[tuple[int, int], bytes] = {}
    wanted: Sequence[int] = leaves
    for level in range(LEVEL_MAX + 1):
        wanted = sorted({index // TILE_WIDTH for index in wanted})
        c = _tiles.c
        for start in range(0, len(wanted), FETCHED):
            asked = sa.select(c.index, c.hashes).where(c.log == log, c.level == level)
            found = connection.execute(of_each(connection, c.index, wanted[start : start + FETCHED], asked))
            fetched.update({(level, index): bytes(content) for index, content in found})
        if size >> (TILE_HEIGHT * (level + 1)) == 0:
            break
    return _reader(connection, log, size, fetched)


def _reader(connection: sa.Connection, log: str, size: int, fetched: dict[tuple[int, int], bytes]) -> TileHashes:
    def fetch(tile: Tile) -> bytes:
        assert tile.level is not None, "hashes are not in entry bundles"
        key = (tile.level, tile.index)
        if key not in fetched:
            fetched[key] = _stored(connection, log, *key)
        return fetched[key][: tile.width * HASH_BYTES]

    return TileHashes(fetch, size)


class TreeProjection:
    """Appends a log's pages to its tree."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.name = projection_name(log)
        self._leaf_hash = hasher(log)

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        leaves = [self._leaf_hash(e.position, e.stream, e.version, e.topic, e.state.encode()) for e in page]
        grown = grow(partial(_stored, connection, self.log), page[0].position - 1, leaves)
        insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(_tiles)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["log", "level", "index"], set_={"hashes": statement.excluded.hashes}
            ),
            [{"log": self.log, "level": level, "index": index, "hashes": content} for level, index, content in grown],
        )


def _stored(connection: sa.Connection, log: str, level: int, index: int) -> bytes:
    found = connection.execute(
        sa.select(_tiles.c.hashes).where(_tiles.c.log == log, _tiles.c.level == level, _tiles.c.index == index)
    ).scalar()
    return bytes(found or b"")
