"""The Merkle tree of RFC 6962 / RFC 9162 §2.1 with SHA-256: roots, proofs, and their verification.

It must not know what a leaf means, where hashes are stored, or who signs a root. Everything it
verifies may come from an adversary: a bad proof raises AuditFailed, never anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from shared.errors import AuditFailed, MalformedCommand

HASH_BYTES = 32
SIZE_MAX = 2**63 - 1  # a signed 64-bit integer, as in a database or a tile's reader
EMPTY_ROOT = hashlib.sha256(b"").digest()

HashReader = Callable[[int, int], bytes]
"""`hashes(level, index)`: the root of the complete subtree of 2**level leaves that starts at leaf
index * 2**level. Level 0 holds the leaf hashes."""

Node = tuple[int, int, bytes]
"""(level, index, hash) of a complete subtree: what a store of hashes keeps, once, for ever."""


LEAF = b"\x00"  # before what is hashed as a leaf


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """An append-only tree that remembers only its frontier: the roots of the complete subtrees that
    the size splits into, largest first (one for each 1 bit of the size)."""

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        """The empty tree, or the one whose `size` and `frontier` were saved before.

        Raises AuditFailed when the two cannot belong together; whether they are true, only the
        comparison of `root()` with a signed root can say.
        """
        self._frontier = [_checked_hash(h, "frontier") for h in frontier]
        self._size = _checked_size(size, "size")
        if len(self._frontier) != size.bit_count():
            raise AuditFailed(
                f"a tree of size {size} has {size.bit_count()} frontier hashes, not {len(self._frontier)}"
            )

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def frontier(self) -> tuple[bytes, ...]:
        return tuple(self._frontier)

    def append(self, leaf: bytes) -> list[Node]:
        """Append a leaf hash; give the subtrees that it completed, the leaf itself first."""
        level, index, node = 0, self._size, _checked_hash(leaf, "leaf")
        completed: list[Node] = [(level, index, node)]
        while index & 1:
            node = node_hash(self._frontier.pop(), node)
            level, index = level + 1, index >> 1
            completed.append((level, index, node))
        self._frontier.append(node)
        self._size += 1
        return completed

    def root(self) -> bytes:
        """The root at the present size; for an earlier size see `root_at`."""
        return _fold(self._frontier)


class StoredHashes:
    """Every node of a tree in memory, callable as a HashReader: for tests and short logs (64 bytes a leaf)."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._tree = Tree()
        self._levels: list[list[bytes]] = []
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        return self._tree.size

    def append(self, leaf: bytes) -> None:
        for level, _, node in self._tree.append(leaf):
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)

    def __call__(self, level: int, index: int) -> bytes:
        return self._levels[level][index]


# --- making proofs ---------------------------------------------------------------------------
def root_at(hashes: HashReader, size: int) -> bytes:
    """The root of the first `size` leaves."""
    _require(0 <= size <= SIZE_MAX, "size", f"not between 0 and {SIZE_MAX}")
    return subtree_root(hashes, 0, size)


def inclusion_proof(hashes: HashReader, index: int, size: int) -> list[bytes]:
    """The audit path of leaf `index` (from 0) in the tree of the first `size` leaves (RFC 9162 §2.1.3.1).

    Raises MalformedCommand when the tree has no such leaf.
    """
    _require(0 <= size <= SIZE_MAX, "size", f"not between 0 and {SIZE_MAX}")
    _require(0 <= index < size, "index", f"no such leaf in a tree of size {size}")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append(subtree_root(hashes, middle, end))
            end = middle
        else:
            path.append(subtree_root(hashes, start, middle))
            start = middle
    return path[::-1]


def consistency_proof(hashes: HashReader, size1: int, size2: int) -> list[bytes]:
    """Proof that the tree of size `size2` extends the one of `size1` (RFC 9162 §2.1.4.1); empty when they are equal.

    Raises MalformedCommand unless 0 < size1 <= size2. Every tree extends the empty one, so that
    there is nothing to prove from size 0.
    """
    _require(0 <= size2 <= SIZE_MAX, "size2", f"not between 0 and {SIZE_MAX}")
    _require(0 < size1 <= size2, "size1", f"not between 1 and {size2}")
    path, start, end = [], 0, size2
    while size1 != end:
        middle = start + split(end - start)
        if size1 <= middle:
            path.append(subtree_root(hashes, middle, end))
            end = middle
        else:
            path.append(subtree_root(hashes, start, middle))
            start = middle
    if start > 0:  # the old tree is not itself the subtree reached, so its verifier does not know this hash
        path.append(subtree_root(hashes, start, end))
    return path[::-1]


# --- verifying -------------------------------------------------------------------------------
def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash `leaf` stands at `index` (from 0) of the tree with `size` and `root`.

    RFC 9162 §2.1.3.2, to the letter. Raises AuditFailed.
    """
    _checked_hash(leaf, "leaf")
    _checked_hash(root, "root")
    _checked_size(size, "size")
    if not 0 <= _checked_size(index, "index") < size:
        raise AuditFailed(f"no leaf {index} in a tree of size {size}")
    fn, sn, r = index, size - 1, leaf
    sha256 = hashlib.sha256  # `node_hash` spelled out: auditors verify millions
    for p in _checked_proof(proof):
        if sn == 0:
            raise AuditFailed("inclusion proof is too long")
        if fn & 1 or fn == sn:
            r = sha256(b"\x01" + p + r).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01" + r + p).digest()
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise AuditFailed("inclusion proof is too short")
    _same(root, r, "inclusion proof leads to another root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (size2, root2) extends the tree (size1, root1).

    RFC 9162 §2.1.4.2, to the letter. Raises AuditFailed; for size1 = 0 too, as a proof from the
    empty tree shows nothing.
    """
    _checked_hash(root1, "root1")
    _checked_hash(root2, "root2")
    if not 0 < _checked_size(size1, "size1") <= _checked_size(size2, "size2"):
        raise AuditFailed(f"nothing can be proved from size {size1} to size {size2}")
    path = _checked_proof(proof)
    if size1 == size2:
        if path:
            raise AuditFailed("consistency proof is too long")
        _same(root1, root2, "two roots for one size")
        return
    if not path:
        raise AuditFailed("consistency proof is empty")
    if size1 & (size1 - 1) == 0:  # the old tree is complete: its root is a node of the new one
        path = [root1, *path]
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            raise AuditFailed("consistency proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise AuditFailed("consistency proof is too short")
    _same(root1, fr, "consistency proof leads to another old root")
    _same(root2, sr, "consistency proof leads to another new root")


def split(width: int) -> int:
    """Where a tree of `width` leaves, more than one, is divided: the largest power of two below it."""
    return 1 << ((width - 1).bit_length() - 1)


def subtree_root(hashes: HashReader, start: int, end: int) -> bytes:
    """Root of the leaves [start, end). Proofs ask only for such `start` as the RFC's splits give:
    a multiple of every complete subtree's width that follows."""
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(hashes(level, start >> level))
        start += 1 << level
    return _fold(parts)


def _fold(parts: Sequence[bytes]) -> bytes:
    if not parts:
        return EMPTY_ROOT
    root = parts[-1]
    for left in reversed(parts[:-1]):
        root = node_hash(left, root)
    return root


def _same(expected: bytes, computed: bytes, complaint: str) -> None:
    if expected != computed:
        raise AuditFailed(complaint, {"expected": expected.hex(), "computed": computed.hex()})


def _require(holds: bool, field: str, complaint: str) -> None:
    if not holds:
        raise MalformedCommand(f"{field}: {complaint}", {"fields": {field: [complaint]}})


def _checked_size(value: int, what: str) -> int:
    # `True` is an int to Python, but not in anybody's log.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= SIZE_MAX:
        raise AuditFailed(f"{what} is not an integer between 0 and {SIZE_MAX}")
    return value


def _checked_hash(value: bytes, what: str) -> bytes:
    if not isinstance(value, bytes) or len(value) != HASH_BYTES:
        raise AuditFailed(f"{what} is not a hash of {HASH_BYTES} bytes")
    return value


def _checked_proof(proof: Sequence[bytes]) -> list[bytes]:
    if not isinstance(proof, (list, tuple)):
        raise AuditFailed("proof is not a list of hashes")
    for each in proof:
        if type(each) is not bytes or len(each) != HASH_BYTES:
            _checked_hash(each, "proof element")
    return list(proof)
