"""Where a log differs from the one that was sealed: the leaves as read, held against those in audit's tiles.

A root says that something differs, and no more. The tiles are the service's word; that they are of the signed tree
is computed here from their hashes, else they locate nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from services.audit.replay.findings import Findings
from services.audit.replay.reader import Caller, LogReader
from shared.errors import AuditFailed, MalformedCommand, NotCaughtUp
from shared.transparency.merkle import root_at
from shared.transparency.tiles import Tile, TileHashes

NAMED_MAX = 20  # of a log: what was renumbered differs up to its end


class Sealed:
    """The leaves that audit has sealed, by position. Raises AuditFailed if they are not those of the signed root."""

    def __init__(self, client: Caller, log: str, size: int, root: bytes) -> None:
        self._client, self._log = client, log
        self._fetched: dict[str, bytes] = {}
        self._hashes = TileHashes(self._tile, size)
        if root_at(self._hashes, size) != root:
            raise AuditFailed("the tiles are not those of the signed tree")

    def leaf(self, position: int) -> bytes:
        return self._hashes(0, position - 1)

    def _tile(self, tile: Tile) -> bytes:
        if tile.path not in self._fetched:
            if tile.level == 0:  # these are asked for in order, and are many
                self._fetched = {path: held for path, held in self._fetched.items() if not path.startswith("tile/0/")}
            answer = self._client.call("audit", "tile", log=self._log, path=tile.path)
            self._fetched[tile.path] = base64.b64decode(answer["hashes"])
        return self._fetched[tile.path]


def locate(client: Caller, reader: LogReader, findings: Findings, after: int, size: int, root: bytes) -> None:
    """Name the events behind `after` that are not those below the signed `root` of `size`; the first of them, and how
    many there are."""
    count = 0
    try:
        sealed = Sealed(client, reader.log, size, root)
        for position, stream, read in _leaves(reader, after, size):
            if read == (leaf := sealed.leaf(position)):
                continue
            count += 1
            if count <= NAMED_MAX:
                what = "event is not the one that was sealed" if read else "event that was sealed is not there"
                findings.add("log", what, reader.log, position, stream, leaf.hex(), read.hex())
    except (AuditFailed, MalformedCommand, NotCaughtUp, ValueError) as error:
        findings.add(
            "log", "what differs could not be located", reader.log, size, "", "tiles of the signed tree", error
        )
    if count > NAMED_MAX:
        findings.add("log", "more events are not those that were sealed", reader.log, size, "", NAMED_MAX, count)


def _leaves(reader: LogReader, after: int, size: int) -> Iterator[tuple[int, str, bytes]]:
    """Position, stream and leaf hash of each place up to `size`, read again; empty ones where there is no event."""
    due = after + 1
    for leaf, event in reader.again(after, size):
        position = event["position"]
        if position < due:
            continue  # it stands twice
        yield from ((gap, "", b"") for gap in range(due, position))
        yield position, event["stream"], leaf
        due = position + 1
    yield from ((gap, "", b"") for gap in range(due, size + 1))
