"""One proof for many leaves: any set of any tree, and nothing else that leads to the root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency import merkle
from shared.transparency.merkle import StoredHashes, leaf_hash, root_at
from shared.transparency.multiproof import multiproof, verify_multiproof

HASHES = StoredHashes(leaf_hash(n.to_bytes(2, "big")) for n in range(300))
trees = st.integers(1, 300).flatmap(
    lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), min_size=1).map(sorted))
)


def leaves_at(indices: list[int]) -> dict[int, bytes]:
    return {index: HASHES(0, index) for index in indices}


@given(trees)
def test_any_leaves_of_any_tree(tree: tuple[int, list[int]]) -> None:
    size, indices = tree
    proof = multiproof(HASHES, indices, size)
    verify_multiproof(leaves_at(indices), size, proof, root_at(HASHES, size))


@given(st.integers(1, 300).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_of_one_leaf_it_has_the_hashes_of_its_audit_path(tree: tuple[int, int]) -> None:
    size, index = tree
    proof = multiproof(HASHES, [index], size)
    parts = {proof[n : n + 32] for n in range(0, len(proof), 32)}
    assert parts == set(merkle.inclusion_proof(HASHES, index, size))


def test_of_all_leaves_it_is_empty() -> None:
    assert multiproof(HASHES, list(range(300)), 300) == b""


@given(trees, st.data())
def test_nothing_else_is_proved(tree: tuple[int, list[int]], data: st.DataObject) -> None:
    size, indices = tree
    root, proof, leaves = root_at(HASHES, size), multiproof(HASHES, indices, size), leaves_at(indices)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        changed = bytearray(proof)
        changed[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(AuditFailed):
            verify_multiproof(leaves, size, bytes(changed), root)
    for wrong in (proof + root, proof[:-32] if proof else proof + b"\0" * 32, proof + b"x"):
        with pytest.raises(AuditFailed):
            verify_multiproof(leaves, size, wrong, root)
    other = data.draw(st.sampled_from(indices))
    with pytest.raises(AuditFailed):
        verify_multiproof(leaves | {other: leaf_hash(b"another")}, size, proof, root)
    with pytest.raises(AuditFailed):
        verify_multiproof({index: leaf for index, leaf in leaves.items() if index != other}, size, proof, root)
    with pytest.raises(AuditFailed):
        verify_multiproof(leaves, size, proof, leaf_hash(b"another root"))


@pytest.mark.parametrize("indices", [[], [-1], [300], [1, 1], [2, 1]])
def test_what_the_tree_does_not_have_is_not_proved(indices: list[int]) -> None:
    with pytest.raises(MalformedCommand):
        multiproof(HASHES, indices, 300)


@pytest.mark.parametrize(
    ("leaves", "size", "proof"),
    [({}, 300, b""), ({0: b"short"}, 300, b""), ({300: b"\0" * 32}, 300, b""), ({-1: b"\0" * 32}, 300, b""),
     ({0: b"\0" * 32}, 0, b""), ({0: b"\0" * 32}, 2**63, b""), ({0: b"\0" * 32}, 2**62, b"")],
)  # fmt: skip
def test_hostile_proofs_are_refused(leaves: dict[int, bytes], size: int, proof: bytes) -> None:
    with pytest.raises(AuditFailed):
        verify_multiproof(leaves, size, proof, b"\0" * 32)
