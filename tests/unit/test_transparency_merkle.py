"""The Merkle tree against the published roots, against the RFC's own recursive text, and against liars."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency import merkle

# RFC 6962's eight leaves as every implementation tests them, and the roots of their first 0 to 8.
LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZE_MAX_TRIED = 130
HASHES = merkle.StoredHashes(merkle.leaf_hash(str(n).encode()) for n in range(SIZE_MAX_TRIED))


# --- the RFC's definitions, word for word: slow, and independent of the code under test --------
def mth(d: list[bytes]) -> bytes:
    """RFC 9162 §2.1.1, over leaf data."""
    if not d:
        return hashlib.sha256(b"").digest()
    if len(d) == 1:
        return hashlib.sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return hashlib.sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    """RFC 9162 §2.1.3.1."""
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    """RFC 9162 §2.1.4.1."""
    if m == len(d):
        return [] if b else [mth(d)]
    k = split(len(d))
    return [*subproof(m, d[:k], b), mth(d[k:])] if m <= k else [*subproof(m - k, d[k:], False), mth(d[:k])]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


data_lists = st.lists(st.binary(max_size=4), max_size=70)
sizes = st.integers(1, SIZE_MAX_TRIED)


@st.composite
def leaf_in_tree(draw: Any) -> tuple[int, int]:
    size = draw(sizes)
    return draw(st.integers(0, size - 1)), size


@st.composite
def grown_tree(draw: Any) -> tuple[int, int]:
    size2 = draw(sizes)
    return draw(st.integers(1, size2)), size2


def refused(call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(AuditFailed):
        call(*arguments)


def flip(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


class TestTree:
    def test_published_roots(self) -> None:
        tree = merkle.Tree()
        assert tree.root().hex() == ROOTS[0]
        for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
            tree.append(merkle.leaf_hash(leaf))
            assert tree.root().hex() == root

    @given(data_lists)
    def test_root_is_the_rfcs(self, data: list[bytes]) -> None:
        tree = merkle.Tree()
        for leaf in data:
            tree.append(merkle.leaf_hash(leaf))
        assert tree.root() == mth(data)

    @given(data_lists)
    def test_root_at_is_the_rfcs_for_every_earlier_size(self, data: list[bytes]) -> None:
        hashes = merkle.StoredHashes(map(merkle.leaf_hash, data))
        for size in range(len(data) + 1):
            assert merkle.root_at(hashes, size) == mth(data[:size])

    @given(data_lists, st.integers(0, 70))
    def test_a_restored_tree_goes_on_as_if_never_stopped(self, data: list[bytes], cut: int) -> None:
        whole, first = merkle.Tree(), merkle.Tree()
        for leaf in data:
            whole.append(merkle.leaf_hash(leaf))
        for leaf in data[:cut]:
            first.append(merkle.leaf_hash(leaf))
        restored = merkle.Tree(first.size, first.frontier)
        for leaf in data[cut:]:
            restored.append(merkle.leaf_hash(leaf))
        assert (restored.size, restored.root()) == (whole.size, whole.root())

    def test_memory_is_one_hash_a_set_bit(self) -> None:
        tree = merkle.Tree()
        for n in range(1, 1025):
            tree.append(merkle.leaf_hash(b""))
            assert len(tree.frontier) == n.bit_count()

    def test_append_tells_every_complete_subtree_once(self) -> None:
        tree = merkle.Tree()
        told = [node for n in range(100) for node in tree.append(HASHES(0, n))]
        assert len({node[:2] for node in told}) == len(told) == sum(100 >> level for level in range(7))
        assert all(HASHES(level, index) == node for level, index, node in told)

    @pytest.mark.parametrize(
        ("size", "frontier"),
        [(3, [bytes(32)]), (0, [bytes(32)]), (-1, []), (1, [bytes(31)]), (True, [bytes(32)]), (2**63, [bytes(32)])],
    )
    def test_a_frontier_that_cannot_be_is_refused(self, size: int, frontier: list[bytes]) -> None:
        refused(merkle.Tree, size, frontier)

    def test_a_leaf_that_is_no_hash_changes_nothing(self) -> None:
        tree = merkle.Tree()
        refused(tree.append, b"event")
        assert (tree.size, tree.root()) == (0, merkle.EMPTY_ROOT)

    def test_leaf_and_node_are_told_apart(self) -> None:
        left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
        assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


class TestInclusion:
    def test_published_proof(self) -> None:
        # leaf 5 of the eight: its neighbour, then the nodes above.
        proof = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
        hashes = merkle.StoredHashes(map(merkle.leaf_hash, LEAVES))
        assert [h.hex() for h in merkle.inclusion_proof(hashes, 5, 8)] == proof
        merkle.verify_inclusion(
            merkle.leaf_hash(LEAVES[5]), 5, 8, [bytes.fromhex(h) for h in proof], bytes.fromhex(ROOTS[8])
        )

    @given(st.data(), st.lists(st.binary(max_size=4), min_size=1, max_size=40))
    def test_proof_is_the_rfcs(self, draw: Any, data: list[bytes]) -> None:
        index = draw.draw(st.integers(0, len(data) - 1))
        hashes = merkle.StoredHashes(map(merkle.leaf_hash, data))
        assert merkle.inclusion_proof(hashes, index, len(data)) == path(index, data)

    def test_every_leaf_of_every_small_tree(self) -> None:
        for size in range(1, 66):
            root = merkle.root_at(HASHES, size)
            for index in range(size):
                proof = merkle.inclusion_proof(HASHES, index, size)
                merkle.verify_inclusion(HASHES(0, index), index, size, proof, root)

    @given(leaf_in_tree(), st.data())
    def test_one_flipped_bit_anywhere_is_refused(self, place: tuple[int, int], draw: Any) -> None:
        index, size = place
        values = [HASHES(0, index), merkle.root_at(HASHES, size), *merkle.inclusion_proof(HASHES, index, size)]
        which = draw.draw(st.integers(0, len(values) - 1))
        values[which] = flip(values[which], draw.draw(st.integers(0, 255)))
        refused(merkle.verify_inclusion, values[0], index, size, values[2:], values[1])

    @given(leaf_in_tree(), st.integers(0, SIZE_MAX_TRIED))
    def test_another_index_is_refused(self, place: tuple[int, int], other: int) -> None:
        index, size = place
        if other != index:
            proof, root = merkle.inclusion_proof(HASHES, index, size), merkle.root_at(HASHES, size)
            refused(merkle.verify_inclusion, HASHES(0, index), other, size, proof, root)

    @given(leaf_in_tree(), st.binary(min_size=32, max_size=32))
    def test_junk_before_within_or_after_the_proof_is_refused(self, place: tuple[int, int], junk: bytes) -> None:
        index, size = place
        leaf, root = HASHES(0, index), merkle.root_at(HASHES, size)
        proof = merkle.inclusion_proof(HASHES, index, size)
        for extra in (junk, leaf, root):
            for at in range(len(proof) + 1):
                refused(merkle.verify_inclusion, leaf, index, size, [*proof[:at], extra, *proof[at:]], root)
        for at in range(len(proof)):
            refused(merkle.verify_inclusion, leaf, index, size, proof[:at] + proof[at + 1 :], root)

    def test_a_node_is_no_leaf_of_the_same_tree(self) -> None:
        proof, root = merkle.inclusion_proof(HASHES, 4, 8)[1:], merkle.root_at(HASHES, 8)
        with pytest.raises(AuditFailed, match="too short"):
            merkle.verify_inclusion(HASHES(1, 2), 2, 8, proof, root)

    def test_the_root_of_a_larger_tree_is_not_that_of_a_smaller(self) -> None:
        proof, root = merkle.inclusion_proof(HASHES, 0, 8), merkle.root_at(HASHES, 8)
        with pytest.raises(AuditFailed, match="too long"):
            merkle.verify_inclusion(HASHES(0, 0), 0, 4, proof, root)

    @pytest.mark.parametrize(
        ("leaf", "index", "size", "proof", "root"),
        [
            pytest.param(merkle.EMPTY_ROOT, 0, 0, [], merkle.EMPTY_ROOT, id="empty tree"),
            pytest.param(bytes(32), 1, 1, [], bytes(32), id="index is the size"),
            pytest.param(bytes(32), -1, 1, [], bytes(32), id="negative index"),
            pytest.param(bytes(32), 0, -1, [], bytes(32), id="negative size"),
            pytest.param(bytes(31), 0, 1, [], bytes(31), id="short hash"),
            pytest.param(bytes(32), 0, True, [], bytes(32), id="a truth value for a size"),
            pytest.param(bytes(32), 0, 1.0, [], bytes(32), id="a float for a size"),
            pytest.param("0" * 32, 0, 1, [], "0" * 32, id="text for hashes"),
            pytest.param(bytes(32), 0, 2, [bytes(33)], bytes(32), id="long proof element"),
            pytest.param(bytes(32), 0, 2, ["0" * 32], bytes(32), id="text in the proof"),
            pytest.param(bytes(32), 0, 2, bytes(64), bytes(32), id="proof is one string of bytes"),
            pytest.param(bytes(32), 0, 2**63, [bytes(32)] * 63, bytes(32), id="size above 63 bits"),
        ],
    )
    def test_malformed_input_is_refused(self, leaf: Any, index: Any, size: Any, proof: Any, root: Any) -> None:
        refused(merkle.verify_inclusion, leaf, index, size, proof, root)

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, 2**63)])
    def test_no_proof_is_made_for_what_is_not_there(self, index: int, size: int) -> None:
        with pytest.raises(MalformedCommand):
            merkle.inclusion_proof(HASHES, index, size)


class TestConsistency:
    @given(st.data(), st.lists(st.binary(max_size=4), min_size=1, max_size=40))
    def test_proof_is_the_rfcs(self, draw: Any, data: list[bytes]) -> None:
        size1 = draw.draw(st.integers(1, len(data)))
        hashes = merkle.StoredHashes(map(merkle.leaf_hash, data))
        assert merkle.consistency_proof(hashes, size1, len(data)) == subproof(size1, data, True)

    def test_every_pair_of_small_trees(self) -> None:
        roots = [merkle.root_at(HASHES, n) for n in range(66)]
        for size2 in range(1, 66):
            for size1 in range(1, size2 + 1):
                proof = merkle.consistency_proof(HASHES, size1, size2)
                merkle.verify_consistency(size1, roots[size1], size2, roots[size2], proof)

    @given(grown_tree(), st.data())
    def test_one_flipped_bit_anywhere_is_refused(self, grown: tuple[int, int], draw: Any) -> None:
        size1, size2 = grown
        values = [
            merkle.root_at(HASHES, size1),
            merkle.root_at(HASHES, size2),
            *merkle.consistency_proof(HASHES, size1, size2),
        ]
        which = draw.draw(st.integers(0, len(values) - 1))
        values[which] = flip(values[which], draw.draw(st.integers(0, 255)))
        refused(merkle.verify_consistency, size1, values[0], size2, values[1], values[2:])

    @given(grown_tree(), st.binary(min_size=32, max_size=32))
    def test_junk_before_within_or_after_the_proof_is_refused(self, grown: tuple[int, int], junk: bytes) -> None:
        size1, size2 = grown
        root1, root2 = merkle.root_at(HASHES, size1), merkle.root_at(HASHES, size2)
        proof = merkle.consistency_proof(HASHES, size1, size2)
        for extra in (junk, root1, root2):
            for at in range(len(proof) + 1):
                refused(merkle.verify_consistency, size1, root1, size2, root2, [*proof[:at], extra, *proof[at:]])
        for at in range(len(proof)):
            refused(merkle.verify_consistency, size1, root1, size2, root2, proof[:at] + proof[at + 1 :])

    @given(grown_tree(), st.integers(0, SIZE_MAX_TRIED - 1))
    def test_a_rewritten_history_cannot_be_proved(self, grown: tuple[int, int], changed: int) -> None:
        size1, size2 = grown
        changed %= size1
        leaves = [HASHES(0, n) for n in range(size2)]
        leaves[changed] = merkle.leaf_hash(b"rewritten")
        forged = merkle.StoredHashes(leaves)
        proof = merkle.consistency_proof(forged, size1, size2)
        refused(
            merkle.verify_consistency,
            size1,
            merkle.root_at(HASHES, size1),
            size2,
            merkle.root_at(forged, size2),
            proof,
        )

    @pytest.mark.parametrize(("size1", "size2", "complaint"), [(1, 8, "too short"), (2, 4, "too long"), (4, 8, None)])
    def test_sizes_other_than_the_roots_are_refused(self, size1: int, size2: int, complaint: str | None) -> None:
        proof = merkle.consistency_proof(HASHES, 2, 8)
        with pytest.raises(AuditFailed, match=complaint):
            merkle.verify_consistency(size1, merkle.root_at(HASHES, 2), size2, merkle.root_at(HASHES, 8), proof)

    @pytest.mark.parametrize(
        ("size1", "root1", "size2", "root2", "proof"),
        [
            pytest.param(0, merkle.EMPTY_ROOT, 0, merkle.EMPTY_ROOT, [], id="both empty"),
            pytest.param(0, merkle.EMPTY_ROOT, 1, bytes(32), [], id="from the empty tree"),
            pytest.param(2, bytes(32), 1, bytes(32), [], id="the tail was cut"),
            pytest.param(1, bytes(32), 1, bytes(31) + b"1", [], id="two roots for one size"),
            pytest.param(1, bytes(32), 1, bytes(32), [bytes(32)], id="a proof where none is needed"),
            pytest.param(1, bytes(32), 2, bytes(32), [], id="no proof where one is needed"),
            pytest.param(1, bytes(31), 1, bytes(31), [], id="short hashes"),
            pytest.param(3, bytes(32), 4, bytes(32), [b""], id="empty proof element"),
            pytest.param("1", bytes(32), 1, bytes(32), [], id="text for a size"),
        ],
    )
    def test_malformed_input_is_refused(self, size1: Any, root1: Any, size2: Any, root2: Any, proof: Any) -> None:
        refused(merkle.verify_consistency, size1, root1, size2, root2, proof)

    @pytest.mark.parametrize(("size1", "size2"), [(0, 0), (0, 5), (6, 5), (-1, 5), (1, 2**63)])
    def test_no_proof_is_made_for_what_is_not_there(self, size1: int, size2: int) -> None:
        with pytest.raises(MalformedCommand):
            merkle.consistency_proof(HASHES, size1, size2)
