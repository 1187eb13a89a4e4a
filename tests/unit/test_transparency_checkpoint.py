"""Checkpoints: real ones open, and no log that was cut, rewritten or forked gets past."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import AuditFailed
from shared.transparency import merkle, note
from shared.transparency.checkpoint import (
    Checkpoint,
    Opened,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verify_extends,
    verify_leaves,
)
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey

GO_KEY = VerifierKey.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
GO_ORIGIN = "go.sum database tree"
GO_CHECKPOINT = (
    "go.sum database tree\n6476701\nmb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk=\n\n"
    "— sum.golang.org Az3grsLX85Gz+s1SiTbgkuqxgItqFq7gsMUEyVnrsa9LM7Us9S+1xbFIGu95949rj4nPRYfvimWEPWL+o3GeoWwOoAw=\n"
)
ROOT64 = "mb8QLQIs0Z0yP5Cstq6guj87oXWeC9gEM8oVikmm9Wk="

LOG_KEY = SigningKey("north/quota", 1, b"l" * 32)
WITNESS = SigningKey("south", COSIGNATURE, b"w" * 32)
LEAVES = [merkle.leaf_hash(str(n).encode()) for n in range(20)]
HASHES = merkle.StoredHashes(LEAVES)


def head(size: int, hashes: merkle.HashReader = HASHES) -> Checkpoint:
    return Checkpoint("north/quota", size, merkle.root_at(hashes, size))


def signed(size: int) -> str:
    return str(sign_checkpoint(head(size), LOG_KEY))


def witnessed(size: int, *witnesses: SigningKey, at_s: int = 1_700_000_000) -> str:
    data = signed(size)
    for witness in witnesses:
        data = str(cosign(opened(data), witness, at_s))
    return data


def opened(data: str) -> Opened:
    return open_checkpoint(data, LOG_KEY.verifier)


class TestForm:
    def test_a_real_checkpoint(self) -> None:
        found = open_checkpoint(GO_CHECKPOINT, GO_KEY, origin=GO_ORIGIN).checkpoint
        assert (found.origin, found.size, found.root) == (GO_ORIGIN, 6476701, base64.b64decode(ROOT64))
        assert GO_CHECKPOINT.startswith(found.text + "\n")

    @given(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        st.integers(1, 2**63 - 1),
        st.binary(min_size=32, max_size=32),
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=3),
    )
    def test_parsing_undoes_writing(self, origin: str, size: int, root: bytes, extensions: list[str]) -> None:
        made = Checkpoint(origin, size, root, tuple(extensions))
        assert Checkpoint.parse(made.text) == made

    def test_the_empty_log_has_the_empty_root(self) -> None:
        assert head(0).text == "north/quota\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
        with pytest.raises(AuditFailed):
            Checkpoint("north/quota", 0, bytes(32))

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("", id="nothing"),
            pytest.param(f"o\n1\n{ROOT64}", id="no last newline"),
            pytest.param("o\n1\n", id="no root"),
            pytest.param(f"\n1\n{ROOT64}\n", id="empty origin"),
            pytest.param(f"o\n01\n{ROOT64}\n", id="leading zero"),
            pytest.param(f"o\n00\n{ROOT64}\n", id="two zeros"),
            pytest.param(f"o\n+1\n{ROOT64}\n", id="plus"),
            pytest.param(f"o\n-1\n{ROOT64}\n", id="negative"),
            pytest.param(f"o\n 1\n{ROOT64}\n", id="space before the size"),
            pytest.param(f"o\n1_0\n{ROOT64}\n", id="what Python reads as a number"),
            pytest.param(f"o\n１\n{ROOT64}\n", id="a digit that is not ASCII"),
            pytest.param(f"o\n0x1\n{ROOT64}\n", id="hexadecimal"),
            pytest.param(f"o\n9223372036854775808\n{ROOT64}\n", id="above 63 bits"),
            pytest.param(f"o\n1\n{ROOT64[:-1]}\n", id="no padding"),
            pytest.param(f"o\n1\n{ROOT64.replace('k=', 'l=')}\n", id="unused bits set"),
            pytest.param("o\n1\nAAAA\n", id="short root"),
            pytest.param(f"o\n1\n{ROOT64}\n\n", id="empty extension line"),
            pytest.param(f"o\n1\n{ROOT64}\n\next\n", id="empty line among extensions"),
        ],
    )
    def test_malformed_checkpoints_are_refused(self, text: str) -> None:
        with pytest.raises(AuditFailed):
            Checkpoint.parse(text)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Checkpoint("a\nb", 1, bytes(32)),
            lambda: Checkpoint("", 1, bytes(32)),
            lambda: Checkpoint("o", -1, bytes(32)),
            lambda: Checkpoint("o", 2**63, bytes(32)),
            lambda: Checkpoint("o", True, bytes(32)),
            lambda: Checkpoint("o", 1, bytes(31)),
            lambda: Checkpoint("o", 1, bytes(32), ("",)),
            lambda: Checkpoint("o", 1, bytes(32), ("a\nb",)),
        ],
    )
    def test_none_can_be_built_that_could_not_be_read(self, make: Callable[[], Checkpoint]) -> None:
        with pytest.raises(AuditFailed):
            make()


class TestSignatures:
    def test_origin_must_be_the_one_expected(self) -> None:
        with pytest.raises(AuditFailed, match="is of go"):
            open_checkpoint(GO_CHECKPOINT, GO_KEY)
        other = sign_checkpoint(Checkpoint("north/billing", 1, LEAVES[0]), LOG_KEY)
        with pytest.raises(AuditFailed, match="is of north/billing"):
            opened(str(other))

    def test_a_changed_size_or_root_is_refused(self) -> None:
        for old, new in (("\n6476701\n", "\n6476700\n"), ("mb8Q", "mb8R")):
            with pytest.raises(AuditFailed, match="invalid signature"):
                open_checkpoint(GO_CHECKPOINT.replace(old, new), GO_KEY, origin=GO_ORIGIN)

    def test_a_witness_alone_does_not_make_it_the_logs(self) -> None:
        only = note.add_signature(note.sign(head(3).text, SigningKey("x", 1, b"x" * 32)), WITNESS, 5)
        with pytest.raises(AuditFailed, match="not signed by north/quota"):
            open_checkpoint(str(only), LOG_KEY.verifier, witnesses=[WITNESS.verifier])

    def test_a_witness_signs_with_the_time(self) -> None:
        found = open_checkpoint(
            witnessed(3, WITNESS, at_s=17), LOG_KEY.verifier, witnesses=[WITNESS.verifier], witnesses_min=1
        )
        assert found.witnessed_s == {WITNESS.verifier: 17}
        assert found.checkpoint == head(3)

    def test_an_unwitnessed_checkpoint_is_refused_where_witnesses_are_wanted(self) -> None:
        with pytest.raises(AuditFailed, match="0 witnesses, not 1"):
            open_checkpoint(signed(3), LOG_KEY.verifier, witnesses=[WITNESS.verifier], witnesses_min=1)

    def test_one_key_under_two_names_is_one_witness(self) -> None:
        alias = SigningKey("west", COSIGNATURE, WITNESS.seed)
        data = witnessed(3, WITNESS, alias)
        with pytest.raises(AuditFailed, match="1 witnesses, not 2"):
            open_checkpoint(data, LOG_KEY.verifier, witnesses=[WITNESS.verifier, alias.verifier], witnesses_min=2)

    def test_a_log_is_not_its_own_witness(self) -> None:
        self_witness = SigningKey("south", COSIGNATURE, LOG_KEY.seed)
        with pytest.raises(AuditFailed, match="0 witnesses, not 1"):
            open_checkpoint(
                witnessed(3, self_witness), LOG_KEY.verifier, witnesses=[self_witness.verifier], witnesses_min=1
            )

    def test_the_time_of_a_cosignature_cannot_be_changed(self) -> None:
        found = note.Note.parse(witnessed(3, WITNESS, at_s=17))
        log_line, line = found.signatures
        moved = note.Signature(line.name, line.key_id, (18).to_bytes(8, "big") + line.data[8:])
        with pytest.raises(AuditFailed, match="invalid signature of south"):
            open_checkpoint(
                str(note.Note(found.text, (log_line, moved))), LOG_KEY.verifier, witnesses=[WITNESS.verifier]
            )

    @pytest.mark.parametrize("length", [1, 7, 8, 71, 73])
    def test_a_cosignature_of_another_length_is_refused(self, length: int) -> None:
        line = note.Signature("south", WITNESS.verifier.id, bytes(length))
        data = str(note.Note(head(3).text, (*note.Note.parse(signed(3)).signatures, line)))
        with pytest.raises(AuditFailed, match="invalid signature of south"):
            open_checkpoint(data, LOG_KEY.verifier, witnesses=[WITNESS.verifier])


class TestGrowth:
    def test_every_growth_of_a_small_log(self) -> None:
        for new in range(21):
            for old in range(new + 1):
                proof = merkle.consistency_proof(HASHES, old, new) if old else []
                verify_extends(head(old), head(new), proof)

    def test_a_cut_tail_is_refused_whatever_the_proof(self) -> None:
        for proof in ([], merkle.consistency_proof(HASHES, 5, 9)):
            with pytest.raises(AuditFailed, match="cut from 9 to 5"):
                verify_extends(head(9), head(5), proof)

    def test_a_log_cut_to_nothing_is_refused(self) -> None:
        with pytest.raises(AuditFailed, match="cut from 9 to 0"):
            verify_extends(head(9), head(0), [])

    def test_a_fork_is_refused(self) -> None:
        forked = merkle.StoredHashes([*LEAVES[:4], merkle.leaf_hash(b"fork"), *LEAVES[5:]])
        for proof in (merkle.consistency_proof(HASHES, 5, 9), merkle.consistency_proof(forked, 5, 9)):
            with pytest.raises(AuditFailed):
                verify_extends(head(5), head(9, forked), proof)

    def test_two_roots_for_one_size_are_refused(self) -> None:
        forked = merkle.StoredHashes([*LEAVES[:4], merkle.leaf_hash(b"fork")])
        with pytest.raises(AuditFailed, match="two roots for one size"):
            verify_extends(head(5), head(5, forked), [])

    def test_a_proof_from_the_empty_log_is_empty(self) -> None:
        with pytest.raises(AuditFailed, match="too long"):
            verify_extends(head(0), head(5), [bytes(32)])

    def test_another_log_is_no_growth(self) -> None:
        with pytest.raises(AuditFailed, match="two logs"):
            verify_extends(Checkpoint("north/billing", 5, head(5).root), head(5), [])


class TestLeaves:
    @pytest.mark.parametrize("size", [0, 1, 7, 8, 20])
    def test_the_signed_leaves_pass(self, size: int) -> None:
        verify_leaves(head(size), iter(LEAVES[:size]))

    @pytest.mark.parametrize("missing", [1, 2, 12, 13])
    def test_a_log_whose_tail_was_cut_is_refused(self, missing: int) -> None:
        with pytest.raises(AuditFailed, match=f"only {13 - missing} leaves of the 13"):
            verify_leaves(head(13), LEAVES[: 13 - missing])

    def test_leaves_that_nobody_signed_are_refused(self) -> None:
        with pytest.raises(AuditFailed, match="more leaves"):
            verify_leaves(head(13), LEAVES[:14])

    def test_swapped_or_changed_leaves_are_refused(self) -> None:
        swapped = [LEAVES[1], LEAVES[0], *LEAVES[2:13]]
        doubled = [LEAVES[0], *LEAVES[:12]]
        for leaves in (swapped, doubled):
            with pytest.raises(AuditFailed, match="not the signed ones"):
                verify_leaves(head(13), leaves)
