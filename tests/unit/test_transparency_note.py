"""Signed notes and their keys: the published examples, and every malformed note refused."""

from __future__ import annotations

import base64

import pytest

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency import note
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey, key_id

# The examples of Go's sumdb/note (its documentation publishes this private key) and of C2SP signed-note.
PETER_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
ENOCH = VerifierKey.parse("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")
FOO = VerifierKey.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
FOO_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


class TestKeys:
    def test_signing_key_has_its_published_public_key(self) -> None:
        key = SigningKey.parse(PETER_PRIVATE)
        assert key.verifier == PETER
        assert key.secret_text() == PETER_PRIVATE

    def test_key_id_is_computed_as_published(self) -> None:
        assert key_id("PeterNeumann", 1, PETER.public).hex() == "c74f20a3"
        assert SigningKey("EnochRoot", 1, bytes(32)).verifier == ENOCH

    def test_id_depends_on_name_and_type(self) -> None:
        ids = {key_id(name, kind, PETER.public) for name in ("a", "b") for kind in (1, 4)}
        assert len(ids) == 4

    @pytest.mark.parametrize("kind", [1, COSIGNATURE])
    def test_a_generated_pair_survives_its_text_form(self, kind: int) -> None:
        key = SigningKey.generate("example.com/log", kind)
        assert SigningKey.parse(key.secret_text()) == key
        assert VerifierKey.parse(str(key.verifier)) == key.verifier

    def test_generated_keys_differ(self) -> None:
        assert SigningKey.generate("n") != SigningKey.generate("n")

    def test_the_seed_is_not_shown(self) -> None:
        key = SigningKey.parse(PETER_PRIVATE)
        assert repr(key.seed) not in repr(key)
        assert "AYEKFALV" not in repr(key) + str(key)

    @pytest.mark.parametrize("whole", [str(PETER), PETER_PRIVATE])
    def test_no_part_and_no_neighbour_of_a_key_is_a_key(self, whole: str) -> None:
        parse = SigningKey.parse if whole == PETER_PRIVATE else VerifierKey.parse
        parts = [whole[i:j] for i in range(len(whole)) for j in range(i + 1, len(whole) + 1) if j - i < len(whole)]
        neighbours = [whole[:n] + chr(ord(c) + 1) + whole[n + 1 :] for n, c in enumerate(whole)]
        for text in [*parts, *neighbours, "", whole + "\n", " " + whole]:
            with pytest.raises(MalformedCommand):
                parse(text)

    @pytest.mark.parametrize(
        "text",
        [
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ],
    )
    def test_wrong_length_or_unknown_type_is_refused_though_its_id_is_right(self, text: str) -> None:
        with pytest.raises(MalformedCommand):
            VerifierKey.parse(text)

    @pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x01b", "\ud800"])
    def test_a_name_that_a_note_cannot_hold_is_refused(self, name: str) -> None:
        with pytest.raises(MalformedCommand):
            SigningKey.generate(name)

    def test_a_witness_signs_with_the_time_and_a_log_without(self) -> None:
        with pytest.raises(ValueError, match="with a timestamp"):
            SigningKey.generate("w", COSIGNATURE).sign(TEXT)
        with pytest.raises(ValueError, match="only a witness"):
            SigningKey.generate("l").sign(TEXT, 1)


class TestSigning:
    def test_signature_is_the_published_one(self) -> None:
        assert str(note.sign(TEXT, SigningKey.parse(PETER_PRIVATE))) == TEXT + "\n" + PETER_LINE

    def test_two_signers(self) -> None:
        keys = SigningKey.parse(PETER_PRIVATE), SigningKey("EnochRoot", 1, bytes(32))
        assert str(note.sign(TEXT, *keys)) == TEXT + "\n" + PETER_LINE + ENOCH_LINE

    def test_signing_again_replaces_the_signature(self) -> None:
        key = SigningKey.parse(PETER_PRIVATE)
        signed = note.sign(TEXT, key, SigningKey("EnochRoot", 1, bytes(32)))
        assert str(note.add_signature(signed, key)) == TEXT + "\n" + ENOCH_LINE + PETER_LINE

    @pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "\ud800\n", "carriage\r\n"])
    def test_a_text_that_no_note_can_hold_is_not_signed(self, text: str) -> None:
        with pytest.raises(AuditFailed):
            note.sign(text, SigningKey.parse(PETER_PRIVATE))

    def test_a_note_needs_a_signer(self) -> None:
        with pytest.raises(AuditFailed):
            note.sign(TEXT)

    @pytest.mark.parametrize("text", ["\n", "\n\n", "a\n\n", "a\n\n\nb\n", "— not a signature\n", "a\u2028b\u0085c\n"])
    def test_unusual_texts_come_back_unchanged(self, text: str) -> None:
        key = SigningKey.parse(PETER_PRIVATE)
        signed = note.Note.parse(str(note.sign(text, key)).encode())
        assert signed.text == text
        assert set(note.verify(signed, [PETER])) == {PETER}

    def test_an_unusual_name_that_is_allowed_survives(self) -> None:
        key = SigningKey.generate("a\u200bb")  # zero width, but no space to Unicode
        signed = note.Note.parse(str(note.sign(TEXT, key)))
        assert set(note.verify(signed, [key.verifier])) == {key.verifier}


class TestVerifying:
    def test_published_example(self) -> None:
        signed = note.Note.parse(FOO_NOTE.encode())
        assert signed.text == "This is an example message.\n"
        assert set(note.verify(signed, [FOO])) == {FOO}

    def test_signatures_of_unknown_keys_are_ignored(self) -> None:
        signed = note.Note.parse(TEXT + "\n" + PETER_LINE + ENOCH_LINE)
        assert set(note.verify(signed, [PETER, FOO])) == {PETER}
        assert set(note.verify(signed, [ENOCH, PETER])) == {PETER, ENOCH}

    def test_no_known_key_no_note(self) -> None:
        signed = note.Note.parse(TEXT + "\n" + PETER_LINE)
        for keys in ([], [ENOCH]):
            with pytest.raises(AuditFailed, match="no signature of a known key"):
                note.verify(signed, keys)

    def test_a_false_signature_of_a_known_key_spoils_the_note(self) -> None:
        false = ENOCH_LINE.replace("BzmZa0S", "BzmZa1S")
        signed = note.Note.parse(TEXT + "\n" + PETER_LINE + false)
        assert set(note.verify(signed, [PETER])) == {PETER}
        with pytest.raises(AuditFailed, match="invalid signature of EnochRoot"):
            note.verify(signed, [PETER, ENOCH])

    def test_a_false_repetition_spoils_the_note(self) -> None:
        false = PETER_LINE.replace("ZJkuBS", "ZJkuBT")
        with pytest.raises(AuditFailed, match="invalid signature"):
            note.verify(note.Note.parse(TEXT + "\n" + PETER_LINE + false), [PETER])

    def test_every_bit_of_text_and_signature_counts(self) -> None:
        raw = base64.b64decode(PETER_LINE.split(" ")[2])
        for bit in range(8 * 4, 8 * len(raw)):
            changed = bytearray(raw)
            changed[bit // 8] ^= 1 << (bit % 8)
            signed = note.Note.parse(f"{TEXT}\n— PeterNeumann {base64.b64encode(changed).decode()}\n")
            with pytest.raises(AuditFailed):
                note.verify(signed, [PETER])
        with pytest.raises(AuditFailed):
            note.verify(note.Note.parse(TEXT.replace("you", "yoU", 1) + "\n" + PETER_LINE), [PETER])

    def test_another_name_over_the_same_signature_is_unknown(self) -> None:
        renamed = note.Note.parse(TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "CarmenSandiego"))
        with pytest.raises(AuditFailed, match="no signature of a known key"):
            note.verify(renamed, [PETER])

    def test_a_key_given_twice_is_one_key(self) -> None:
        assert set(note.verify(note.Note.parse(TEXT + "\n" + PETER_LINE), [PETER, PETER])) == {PETER}

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(TEXT, id="no signature"),
            pytest.param(TEXT + "\n", id="blank line, no signature"),
            pytest.param(TEXT + PETER_LINE, id="no blank line"),
            pytest.param(TEXT + "\n" + PETER_LINE[:-1], id="no last newline"),
            pytest.param(TEXT + "\n" + PETER_LINE + "\n", id="blank line at the end"),
            pytest.param("\x01" + TEXT + "\n" + PETER_LINE, id="control character"),
            pytest.param((TEXT + "\n" + PETER_LINE).replace("\n", "\r\n"), id="carriage returns"),
            pytest.param(b"\xff" + (TEXT + "\n" + PETER_LINE).encode(), id="not UTF-8"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "Bad Name"), id="space in the name"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "Bad\u00a0Name"), id="odd space in the name"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "Bad+Name"), id="plus in the name"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("PeterNeumann", ""), id="no name"),
            pytest.param(TEXT + "\n" + PETER_LINE[:-1] + "\u2028" + ENOCH_LINE, id="another line separator"),
            pytest.param(TEXT + "\n" + PETER_LINE + "Unexpected line.\n", id="line that is no signature"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("—", "-"), id="hyphen for the dash"),
            pytest.param(TEXT + "\n— PeterNeumann\n", id="no base64"),
            pytest.param(TEXT + "\n— PeterNeumann x08gow==\n", id="key id only"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("=", ""), id="no padding"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("AM=", "AN="), id="unused bits set"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("\n", " \n"), id="space after the signature"),
            pytest.param(TEXT + "\n" + PETER_LINE.replace("/", "_"), id="the other base64 alphabet"),
            pytest.param(TEXT + "\n" + PETER_LINE * 101, id="too many signatures"),
            pytest.param("x" * 1_000_000 + "\n\n" + PETER_LINE, id="too long"),
        ],
    )
    def test_malformed_notes_are_refused(self, data: str | bytes) -> None:
        with pytest.raises(AuditFailed, match="malformed note"):
            note.Note.parse(data)

    def test_sixteen_signatures_are_accepted(self) -> None:
        keys = [SigningKey(f"key{n}", 1, bytes([n]) * 32) for n in range(16)]
        signed = note.Note.parse(str(note.sign(TEXT, *keys)))
        assert len(note.verify(signed, [key.verifier for key in keys])) == 16
