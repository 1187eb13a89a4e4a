"""What the pages show of the logs, sorted by bill and line on the disk, and the logs' trees beside it.

A log is in its own order and a page in the bill's: between the two lies a sort that memory need not hold. The files are
gone when the report is written. It must not know what is shown, nor what a bill is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from shared.transparency.merkle import HASH_BYTES, Tree, inclusion_proof, root_at

_BUFFER_BYTES = 1 << 20
_TABLE = """
CREATE TABLE shown (
    bill INTEGER, line TEXT, log TEXT, position INTEGER, place INTEGER, stream TEXT, version INTEGER, topic TEXT,
    state TEXT, leaf BLOB
)
"""


class Shown(NamedTuple):
    """An event that a page shows. `bill`, `line`: where; `place`: its leaf's index in the log's tree, from 0."""

    bill: int
    line: str
    log: str
    position: int
    place: int
    stream: str
    version: int
    topic: str
    state: str
    leaf: bytes


class TreeFile:
    """A Merkle tree as it grows, one file for each level: every node is written once and read where it is needed."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stem = folder / name
        self._tree = Tree()
        self._files: list[int] = []
        self._waiting: list[bytearray] = []

    @property
    def size(self) -> int:
        return self._tree.size

    def append(self, leaf: bytes) -> None:
        for level, _, node in self._tree.append(leaf):
            if level == len(self._files):
                path = self._stem.with_suffix(f".{level}")
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
                self._waiting.append(bytearray())
            waiting = self._waiting[level]
            waiting += node
            if len(waiting) >= _BUFFER_BYTES:
                self._flush(level)

    def __call__(self, level: int, index: int) -> bytes:
        """As a `HashReader`."""
        self._flush(level)
        return os.pread(self._files[level], HASH_BYTES, index * HASH_BYTES)

    def _flush(self, level: int) -> None:
        waiting = self._waiting[level]
        while waiting:
            del waiting[: os.write(self._files[level], waiting)]

    def root(self, size: int) -> bytes:
        return root_at(self, size)

    def path(self, place: int, size: int) -> list[bytes]:
        """The inclusion path of a leaf in the tree of the first `size`, from the leaf upwards."""
        return inclusion_proof(self, place, size)

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()


class Spool:
    """Use it as a context. `folder` must exist, and is whoever made it's to remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: list[TreeFile] = []
        self._database = sqlite3.connect(folder / "shown.db", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute(_TABLE)
        self._sorted = False

    def tree(self) -> TreeFile:
        """An empty tree."""
        tree = TreeFile(self._folder, f"tree-{len(self._trees)}")
        self._trees.append(tree)
        return tree

    def keep(self, events: Iterable[Shown]) -> None:
        """Before anything is read."""
        self._database.executemany(f"INSERT INTO shown VALUES ({', '.join('?' * len(Shown._fields))})", events)

    def events(self, bill: int, line: str) -> Iterator[Shown]:
        """Of a line of a bill, in the order of the log."""
        if not self._sorted:
            self._database.execute("CREATE INDEX by_line ON shown (bill, line, log, position)")
            self._sorted = True
        chosen = "SELECT * FROM shown WHERE bill = ? AND line = ? ORDER BY log, position"
        return (Shown(*found) for found in self._database.execute(chosen, (bill, line)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        for tree in self._trees:
            tree.close()
