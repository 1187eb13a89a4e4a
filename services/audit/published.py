"""A log's tree as files in the layout of C2SP `tlog-tiles`: for any web server, and any client of such logs.

Files but the checkpoint never change once they are full, so that publishing again writes what is new. It must not know
what the events mean.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from shared.errors import NotCaughtUp
from shared.transparency.checkpoint import Checkpoint
from shared.transparency.leaf import Leaf
from shared.transparency.note import Note
from shared.transparency.tiles import TILE_WIDTH, Tile, entry_bundle, tiles_of

Progress = Callable[[str, int, int], None]


class Caller(Protocol):
    """What is needed of a client."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


def publish(client: Caller, log: str, folder: Path, progress: Progress = lambda *_: None) -> int:
    """Write the tree of the log's latest checkpoint under `folder`: `checkpoint`, `tile/…`, `tile/entries/…`; its size.

    The checkpoint is written last: whatever it leads to is there. Raises NotCaughtUp while nothing is signed.
    """
    signed = client.call("audit", "checkpoint", log=log)
    if not signed["note"]:
        raise NotCaughtUp(f"nothing of {log} is signed yet", {"log": log})
    size, before = signed["size"], _published(folder)
    wanted = list(tiles_of(size, before))
    for done, tile in enumerate(wanted, start=1):
        answer = client.call("audit", "tile", log=log, path=tile.path)
        _write(folder / tile.path, base64.b64decode(answer["hashes"]))
        if tile.level == 0:
            entries = list(_entries(client, log, tile))
            _write(folder / Tile(None, tile.index, tile.width).path, entry_bundle(entries))
        progress(log, done, len(wanted))
    _write(folder / "checkpoint", signed["note"].encode())
    return int(size)


def _published(folder: Path) -> int:
    """The size of the tree that is there. Whether it is this log's, its own checkpoint says to whoever reads it."""
    try:
        return Checkpoint.parse(Note.parse((folder / "checkpoint").read_bytes()).text).size
    except FileNotFoundError:
        return 0


def _entries(client: Caller, log: str, tile: Tile) -> Iterator[bytes]:
    service, _, shard = log.partition("-")
    after = tile.index * TILE_WIDTH
    page = client.call(service, "events", after=after, limit=tile.width, shard=int(shard or 0))["events"]
    for e in page:
        yield Leaf(log, e["position"], e["stream"], e["version"], e["topic"], e["state"].encode()).encode()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    draft.write_bytes(content)
    os.replace(draft, path)
