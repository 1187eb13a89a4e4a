"""All vectors published with the reference implementations: good ones pass, bad ones are refused.

They live in the reference folder (TOKENGRID_REFERENCE, or `shared` beside the repository); a cut of them
is in tests/unit/test_transparency_*.py and always runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency import checkpoint, cosignature, merkle, note, tiles
from shared.transparency.keys import VerifierKey

REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("TOKENGRID_REFERENCE") or REPOSITORY.parent / "shared")
FILE = REFERENCE / "data" / "merkle" / "merkle_vectors.json"

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"no reference vectors at {FILE}: set TOKENGRID_REFERENCE")

VECTORS: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}


# The one case in which we differ: it takes the words "don't care 2" for a root. We refuse a root that is
# not 32 bytes, whatever it is compared with; fitted to 32 bytes the case passes.
NOT_A_HASH = "additional/sizes-are-equal-one-and-proof-is-empty.json"


def cases(name: str) -> list[Any]:
    found = VECTORS.get(name, [])
    return [pytest.param(case, id=f"{n}-{case['desc']}") for n, case in enumerate(found)]


def unhex(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(h) for h in hashes]


def test_the_files_cases_are_all_there() -> None:
    wrong = [[case["want_err"] for case in VECTORS[kind]].count(True) for kind in ("inclusion", "consistency")]
    assert len(VECTORS["inclusion"]) == 98
    assert len(VECTORS["consistency"]) == 98
    assert all(0 < count < 98 for count in wrong)
    assert sum(case["file"].endswith(NOT_A_HASH) for case in VECTORS["consistency"]) == 1


def judge(case: dict[str, Any], verify: Callable[[], None]) -> None:
    if case["want_err"]:
        with pytest.raises(AuditFailed):
            verify()
    else:
        verify()


def lengthened(value: bytes, salt: bytes = b"") -> bytes:
    """Values of a wrong length made to fit, so that a refusal must have another reason than the length."""
    return value if len(value) == merkle.HASH_BYTES else hashlib.sha256(salt + value).digest()


@pytest.mark.parametrize("fitted", [False, True], ids=["verbatim", "fitted"])
@pytest.mark.parametrize("case", cases("inclusion"))
def test_inclusion(case: dict[str, Any], fitted: bool) -> None:
    leaf, root, proof = bytes.fromhex(case["leaf_hash"]), bytes.fromhex(case["root"]), unhex(case["proof"])
    if fitted:
        # Different salts: a leaf that is the root is right in a tree of one.
        leaf, root, proof = lengthened(leaf, b"leaf"), lengthened(root, b"root"), [lengthened(h) for h in proof]
    judge(case, lambda: merkle.verify_inclusion(leaf, case["leaf_index"], case["tree_size"], proof, root))


@pytest.mark.parametrize("fitted", [False, True], ids=["verbatim", "fitted"])
@pytest.mark.parametrize("case", cases("consistency"))
def test_consistency(case: dict[str, Any], fitted: bool) -> None:
    root1, root2, proof = bytes.fromhex(case["root1"]), bytes.fromhex(case["root2"]), unhex(case["proof"])
    if fitted:
        root1, root2, proof = lengthened(root1), lengthened(root2), [lengthened(h) for h in proof]
    elif case["file"].endswith(NOT_A_HASH):
        case = case | {"want_err": True}
    judge(case, lambda: merkle.verify_consistency(case["size1"], root1, case["size2"], root2, proof))


def test_hashes_and_roots_of_the_standards_eight_leaves() -> None:
    data = VECTORS["rfc6962"]
    hashes = merkle.StoredHashes(merkle.leaf_hash(leaf) for leaf in unhex(data["leaf_inputs_hex"]))
    assert [merkle.root_at(hashes, n).hex() for n in range(9)] == data["roots_by_size_0_to_8"]
    for level, row in enumerate(data["complete_subtree_hashes_by_level"]):
        assert [hashes(level, n).hex() for n in range(len(row))] == row
    assert merkle.EMPTY_ROOT.hex() == data["empty_root"]
    assert merkle.leaf_hash(b"").hex() == data["empty_leaf_hash"]
    assert merkle.leaf_hash(b"L123456").hex() == data["leaf_hash_of_ascii_L123456"]
    assert merkle.node_hash(b"N123", b"N456").hex() == data["node_hash_of_ascii_N123_N456"]
    record = VECTORS["tlog_record_hash"]
    assert merkle.leaf_hash(record["ascii"].encode()) == base64.b64decode(record["leaf_hash_b64"])


def test_the_whole_signed_log() -> None:
    log = VECTORS["tlog_log"]
    key = VerifierKey.parse(log["vkey"])
    entries = [leaf.encode() for leaf in log["leaves_ascii"]]
    hashes = merkle.StoredHashes(map(merkle.leaf_hash, entries))
    heads = [
        checkpoint.open_checkpoint(log["checkpoints_by_size"][str(n)], key).checkpoint for n in range(len(entries) + 1)
    ]
    for size, head in enumerate(heads):
        assert (head.origin, head.size) == (log["origin"], size)
        checkpoint.verify_leaves(head, [hashes(0, n) for n in range(size)])
        for index in range(size):
            proof = merkle.inclusion_proof(hashes, index, size)
            merkle.verify_inclusion(hashes(0, index), index, size, proof, head.root)
        for older in heads[:size]:
            grown = merkle.consistency_proof(hashes, older.size, size) if older.size else []
            checkpoint.verify_extends(older, head, grown)
    tile = tiles.Tile.parse("tile/0/000.p/15")
    assert tiles.tile_bytes(hashes, tile).hex() == log["tile_level0_000_p_15_hex"]
    assert tiles.entry_bundle(entries).hex() == log["entries_000_p_15_hex"]


@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in VECTORS.get("notes", {}).get("valid", [])])
def test_real_notes_and_checkpoints(case: dict[str, str]) -> None:
    key = VerifierKey.parse(case["vkey"])
    assert str(key) == case["vkey"]
    signed = note.Note.parse(case["note"].encode())
    assert str(signed) == case["note"]
    assert set(note.verify(signed, [key])) == {key}
    if case["id"].startswith("sumdb-"):
        opened = checkpoint.open_checkpoint(case["note"], key, origin="go.sum database tree")
        assert opened.checkpoint.size == int(case["id"].removeprefix("sumdb-"))
        assert opened.checkpoint.text == signed.text


def test_there_are_seven_real_checkpoints() -> None:
    assert sum(case["id"].startswith("sumdb-") for case in VECTORS["notes"]["valid"]) == 7


@pytest.mark.parametrize("text", VECTORS.get("notes", {}).get("bad_vkeys", []))
def test_bad_verifier_keys(text: str) -> None:
    with pytest.raises(MalformedCommand):
        VerifierKey.parse(text)


def test_a_cosigned_checkpoint_whose_keys_are_unknown() -> None:
    data = VECTORS["notes"]["unverifiable_format_examples"]
    signed = note.Note.parse(data["c2sp-cosigned-checkpoint"])
    head = checkpoint.Checkpoint.parse(signed.text)
    witness = signed.signatures[1]
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert witness.key_id.hex() == data["w1_key_id"]
    assert cosignature.unpack(witness.data)[0] == data["w1_timestamp"]


@pytest.mark.parametrize("case", [pytest.param(c, id=c["vkey"][:8]) for c in VECTORS.get("key_ids", [])])
def test_key_ids_of_witnesses(case: dict[str, str]) -> None:
    key = VerifierKey.parse(case["vkey"])
    assert f"{key.kind:02x}" == case["type"]
    assert str(key) == case["vkey"]


def test_a_cosignature() -> None:
    data = VECTORS["cosig_v1_derived"]
    witness = VerifierKey.parse(data["cosigner_vkey"])
    log_key = VerifierKey.parse(VECTORS["tlog_log"]["vkey"])
    opened = checkpoint.open_checkpoint(data["cosigned_checkpoint"], log_key, witnesses=[witness], witnesses_min=1)
    assert opened.witnessed_s == {witness: data["timestamp"]}
    assert cosignature.message(opened.checkpoint.text, data["timestamp"]).decode() == data["signed_message"]
    assert str(opened.note.signatures[1]) == data["cosignature_line"]


def test_tile_paths_and_widths() -> None:
    data = VECTORS["tile_paths"]
    assert tiles.Tile(0, 1234067).path == f"tile/0/{data['index_1234067']}"
    assert tiles.Tile(0, 0).path == f"tile/0/{data['index_0']}"
    for size in (70000, 256):
        wanted = data[f"size_{size}"]
        found: dict[str, int] = {}
        for tile in tiles.tiles_of(size):
            if tile.width == tiles.TILE_WIDTH:
                found[f"level{tile.level}_full"] = found.get(f"level{tile.level}_full", 0) + 1
            else:
                found[f"level{tile.level}_partial_width"] = tile.width
        assert found == wanted
