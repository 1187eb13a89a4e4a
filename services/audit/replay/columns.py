"""A section of a log by columns, from a source that has it so: what is asked of one, and what is made of it at once.

The leaf hashes are made from the published encoding alone, as in `leaves.py`, a column at a time. It needs numpy and
pyarrow, which whoever has a log in columns has. It must not know what the events mean.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.transparency.merkle import HASH_BYTES, Tree

HASHED = 4_096  # events that are put together and hashed at once
_NODE = 1 + 2 * HASH_BYTES
_U64 = struct.Struct(">Q").pack


class Columns(Protocol):
    """Neighbouring events of a log, as Arrow arrays of one length.

    `shapes`: the names of a state's fields in their order, `a=b` for one that is written as another; an empty one where
    the state was not taken apart. Where it was, it is `{"name":value,…}` with the texts of its fields, byte for byte.
    """

    @property
    def positions(self) -> Any: ...  # int64
    @property
    def streams(self) -> Any: ...  # string
    @property
    def versions(self) -> Any: ...  # int64
    @property
    def topics(self) -> Any: ...  # string
    @property
    def states(self) -> Any: ...  # binary
    @property
    def shapes(self) -> Any: ...  # string, as a dictionary

    def texts(self, name: str) -> Any:
        """A field's JSON texts, binary; null where an event has none. None: no event has it."""
        ...

    def integers(self, name: str) -> Any:
        """The same as int64; null where an event has none. None: not all that there are are such integers."""
        ...

    def sliced(self, start: int, count: int) -> Columns:
        """So many of them from the one with this number on, from 0."""
        ...


def follow(section: Columns, first: int) -> bool:
    """Whether there are events, and their positions go on from `first` without a gap."""
    positions = section.positions.to_numpy(zero_copy_only=False)
    return len(positions) > 0 and bool(np.array_equal(positions, np.arange(first, first + len(positions))))


def rows_of(section: Columns, chosen: Any) -> Iterator[tuple[int, str, int, str, bytes]]:
    """Position, stream, version, topic and state of the chosen ones, in order."""
    if not chosen.any():
        return iter(())
    columns = (section.positions, section.streams, section.versions, section.topics, section.states)
    if chosen.all():
        return zip(*(column.to_pylist() for column in columns), strict=True)
    rows = pa.array(np.flatnonzero(chosen))
    return zip(*(column.take(rows).to_pylist() for column in columns), strict=True)


def leaf_hashes(log: str, section: Columns) -> list[bytes]:
    """The leaf hash of each event. A piece after the other, so that what is hashed is where it was put together: in the
    processor's cache, in memory that is used again."""
    count = len(section.positions)
    pieces = (section.sliced(start, min(HASHED, count - start)) for start in range(0, count, HASHED))
    return [leaf for piece in pieces for leaf in _leaf_hashes(log, piece)]


def _leaf_hashes(log: str, section: Columns) -> list[bytes]:
    name = log.encode()
    head = b"\x00tokengrid/event-leaf/v1\n" + _U64(len(name)) + name
    texts = [text.cast(pa.binary()) for text in (section.streams, section.topics, section.states)]
    (stream, topic, state), lengths = texts, [_integers(pc.binary_length(text)) for text in texts]
    leaves = pc.binary_join_element_wise(
        pa.scalar(head), _integers(section.positions), lengths[0], stream, _integers(section.versions),
        lengths[1], topic, lengths[2], state, pa.scalar(b""),
    )  # fmt: skip
    sha256 = hashlib.sha256
    return [sha256(leaf).digest() for leaf in leaves.to_pylist()]  # bytes: views of one buffer take a third longer


def _integers(values: Any) -> Any:
    """Each integer as eight bytes, big-endian."""
    eight = np.ascontiguousarray(values.to_numpy(zero_copy_only=False).astype(">u8"))
    offsets = np.arange(0, 8 * len(eight) + 8, 8, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(eight), [None, pa.py_buffer(offsets), pa.py_buffer(eight)])


def grown(tree: Tree, leaves: Sequence[bytes]) -> Tree:
    """The tree with these leaf hashes behind its own, as if each had been appended."""
    frontier, index, nodes, sha256 = list(tree.frontier), tree.size, list(leaves), hashlib.sha256
    left: list[bytes] = []  # of each level, what has no neighbour yet
    while nodes:
        if index & 1:
            nodes.insert(0, frontier.pop())
        if len(nodes) & 1:
            left.append(nodes.pop())
        pairs = np.ones((len(nodes) // 2, _NODE), dtype=np.uint8)  # each with 0x01 in front
        pairs[:, 1:] = np.frombuffer(b"".join(nodes), dtype=np.uint8).reshape(len(pairs), _NODE - 1)
        nodes = [sha256(pair).digest() for (pair,) in struct.iter_unpack(f"{_NODE}s", pairs.data)]
        index >>= 1
    return Tree(tree.size + len(leaves), [*frontier, *reversed(left)])
