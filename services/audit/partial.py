"""A part of one log, read from any source: counted, hashed, and held against what was signed. It can be interrupted.

No arithmetic: what a balance was in the middle of a log is not in the log. From position 1 on the Merkle roots at every
signed size are compared; from later on there is the content hash, which two readers of the same part can compare.
What is kept between two runs is the tree's frontier, the hash and the counts: under 2 kB whatever the log's length.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from shared.errors import AuditFailed, SetupFailed
from shared.transparency.leaf import hasher
from shared.transparency.merkle import EMPTY_ROOT, Tree

PAGE = 1_000
TOPICS_MAX = 1_000  # kinds of events: a log has some dozens
Progress = Callable[[str, int, int], None]


class Caller(Protocol):
    """A source, or a client of the services."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """How far a part of a log was read. `content_sha256`: of the leaf hashes one after another, each with what went
    before; `frontier`: of the Merkle tree, while the part begins at 1; `topics`: events by kind; `checked`: the
    greatest signed size whose root agreed."""

    log: str
    first: int = 0
    position: int = 0
    content_sha256: str = EMPTY_ROOT.hex()
    frontier: list[str] = []
    topics: dict[str, int] = {}
    checked: int = 0

    @property
    def events(self) -> int:
        return self.position - self.first + 1 if self.first else 0

    @property
    def root_sha256(self) -> str:
        """The tree's root at `position`; empty where the part does not begin at 1."""
        return self._tree().root().hex() if self.first == 1 else ""

    def _tree(self) -> Tree:
        return Tree(self.position, map(bytes.fromhex, self.frontier))


def read_part(
    source: Caller,
    service: str,
    shard: int,
    part: Part,
    *,
    start: int | None = None,
    signed: dict[int, bytes] | None = None,
    save: Callable[[Part], None] = lambda _part: None,
    progress: Progress = lambda _log, _done, _total: None,
) -> Part:
    """Read on behind `part` up to the source's head. A part without events begins at `start`, or, where that is None,
    with the first event that the source gives. `signed`: roots by size. `save` is told of each page.

    Raises AuditFailed for a gap, and for a root that is not the signed one.
    """
    leaf_hash, signed = hasher(part.log), signed or {}
    tree = part._tree() if part.first == 1 else None
    head = source.call(service, "head", shard=shard)
    if part.position > head:
        raise AuditFailed(f"{part.log} was read up to {part.position}, and now ends at {head}")
    after = part.position if part.first else (start or 1) - 1
    while after < head:
        page = source.call(service, "events", after=after, limit=min(PAGE, head - after), shard=shard)["events"]
        if not page:
            raise AuditFailed(f"{part.log} ends at {after}, and should at {head}")
        for e in page:
            position = e["position"]
            if not part.first and (start is None or position == start):
                part.first, after = position, position - 1
                tree = Tree() if position == 1 else None
            if position != after + 1:
                raise AuditFailed(f"{part.log} goes on with {position} behind {after}")
            leaf = leaf_hash(position, e["stream"], e["version"], e["topic"], e["state"].encode())
            part.content_sha256 = hashlib.sha256(bytes.fromhex(part.content_sha256) + leaf).hexdigest()
            if e["topic"] in part.topics or len(part.topics) < TOPICS_MAX:
                part.topics[e["topic"]] = part.topics.get(e["topic"], 0) + 1
            after = position
            if tree is not None:
                tree.append(leaf)
                if position in signed:
                    if tree.root() != signed[position]:
                        raise AuditFailed(
                            f"{part.log} up to {position} is not the one that was signed: its root is "
                            f"{tree.root().hex()}, not {signed[position].hex()}"
                        )
                    part.checked = position
        part.position = after
        part.frontier = [node.hex() for node in tree.frontier] if tree is not None else []
        save(part)
        progress(part.log, after, head)
    return part


def load_part(path: Path, log: str) -> Part:
    """What was saved, or a part without events. Raises SetupFailed for a file that is none, or of another log."""
    if not path.exists():
        return Part(log)
    try:
        part = msgspec.json.decode(path.read_bytes(), type=Part)
        sound = 0 <= part.first <= part.position and len(bytes.fromhex(part.content_sha256)) == len(EMPTY_ROOT)
        if not sound or (part.position and not part.first):
            raise ValueError("its positions or hash are none")
        if part.first == 1:
            part._tree()
    except (OSError, ValueError, AuditFailed) as error:  # what cannot be decoded is a ValueError
        raise SetupFailed(f"{path} is not the state of a replay ({error}): remove it, or name another.") from None
    if part.log != log:
        raise SetupFailed(f"{path} is of {part.log[:100]!r}, not of {log}: name another.")
    return part


def save_part(path: Path, part: Part) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(part))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
