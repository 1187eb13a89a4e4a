"""One proof that many leaves are in a tree: every hash that the leaves cannot make themselves, once.

The order is that of the tree from left to right, depth first, split as RFC 6962 splits: at the largest power of two
below the width. A subtree without a proven leaf is one hash; a subtree with one is made of its two halves. It must
not know what a leaf means. Everything it verifies may come from an adversary: a bad proof raises AuditFailed.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency.merkle import HASH_BYTES, SIZE_MAX, HashReader, split, subtree_root


def multiproof(hashes: HashReader, indices: Sequence[int], size: int) -> bytes:
    """The hashes, 32 bytes each, that prove these leaves (from 0, ascending, no two alike) in the tree of the first
    `size`. Raises MalformedCommand when the tree has no such leaves."""
    if not indices or indices[0] < 0 or indices[-1] >= size or any(a >= b for a, b in pairwise(indices)):
        raise MalformedCommand(
            f"not leaves of a tree of size {size}, ascending", {"fields": {"indices": ["not ascending leaves"]}}
        )
    if len(indices) == size:
        return b""
    found: list[bytes] = []
    todo = [(0, size, 0, len(indices))]  # from leaf to leaf, and which of the indices lie between
    while todo:
        start, end, low, high = todo.pop()
        if low == high:
            found.append(subtree_root(hashes, start, end))
        elif end - start > 1 and high - low < end - start:  # else all of it is proven
            middle = start + split(end - start)
            cut = bisect_left(indices, middle, low, high)
            todo.append((middle, end, cut, high))
            todo.append((start, middle, low, cut))
    return b"".join(found)


def verify_multiproof(leaves: Mapping[int, bytes], size: int, proof: bytes, root: bytes) -> None:
    """Check that these leaf hashes stand at these indices of the tree with `size` and `root`. Raises AuditFailed."""
    if not 0 < size <= SIZE_MAX or not leaves or len(proof) % HASH_BYTES:
        raise AuditFailed("proof, leaves or size are none")
    indices = sorted(leaves)
    if indices[0] < 0 or indices[-1] >= size:
        raise AuditFailed(f"no such leaves in a tree of size {size}")
    if any(type(leaf) is not bytes or len(leaf) != HASH_BYTES for leaf in leaves.values()):
        raise AuditFailed(f"a leaf is not a hash of {HASH_BYTES} bytes")
    parts = _Parts(proof)
    computed = _root(parts, leaves, indices, 0, size, 0, len(indices))
    if not parts.at_end():
        raise AuditFailed("proof is too long")
    if computed != root:
        raise AuditFailed("proof leads to another root", {"expected": root.hex(), "computed": computed.hex()})


class _Parts:
    """A proof's hashes, taken off one after another."""

    def __init__(self, proof: bytes) -> None:
        self._proof, self._offset = proof, 0

    def take(self) -> bytes:
        taken = self._proof[self._offset : self._offset + HASH_BYTES]
        if not taken:
            raise AuditFailed("proof is too short")
        self._offset += HASH_BYTES
        return taken

    def at_end(self) -> bool:
        return self._offset == len(self._proof)


def _root(
    parts: _Parts, leaves: Mapping[int, bytes], indices: Sequence[int], start: int, end: int, low: int, high: int
) -> bytes:
    """Of the leaves from `start` to before `end`, of which those at `indices[low:high]` are proven."""
    if low == high:
        return parts.take()
    if end - start == 1:
        return leaves[start]
    middle = start + split(end - start)
    cut = bisect_left(indices, middle, low, high)
    left = _root(parts, leaves, indices, start, middle, low, cut)
    right = _root(parts, leaves, indices, middle, end, cut, high)
    return hashlib.sha256(b"\x01" + left + right).digest()
