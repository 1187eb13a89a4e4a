"""C2SP signed notes: a text and the signatures under it.

It must not know what the text says. A text is to be ignored until `verify` has returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency.encoding import from_base64, is_key_name, is_note_text, to_base64
from shared.transparency.keys import KEY_ID_BYTES, SigningKey, VerifierKey

NOTE_BYTES_MAX = 1_000_000  # the bounds of Go's reader: whoever reads notes can read ours
SIGNATURES_MAX = 100
_DASH = "\N{EM DASH} "


@dataclass(frozen=True)
class Signature:
    """One signature line: who claims to have signed, and the bytes after the key id."""

    name: str
    key_id: bytes
    data: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.data)}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """From a line without its newline. Raises AuditFailed."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not is_key_name(name):
            raise AuditFailed("malformed note: bad signature line")
        try:
            data = from_base64(encoded)
        except ValueError:
            raise AuditFailed("malformed note: signature is not base64") from None
        if len(data) <= KEY_ID_BYTES:
            raise AuditFailed("malformed note: signature is too short")
        return cls(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


@dataclass(frozen=True)
class Note:
    """`text` ends in a newline; one signature at least. Raises AuditFailed when built otherwise."""

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not 1 <= len(self.signatures) <= SIGNATURES_MAX:
            raise AuditFailed(f"malformed note: {len(self.signatures)} signatures, not 1 to {SIGNATURES_MAX}")

    def __str__(self) -> str:
        return self.text + "\n" + "".join(str(signature) for signature in self.signatures)

    @classmethod
    def parse(cls, data: bytes | str) -> Note:
        """From its serialised form. Raises AuditFailed for anything that is not exactly a note."""
        if len(data) > NOTE_BYTES_MAX:
            raise AuditFailed("malformed note: too long")
        try:
            whole = data.decode() if isinstance(data, bytes) else data
        except UnicodeDecodeError:
            raise AuditFailed("malformed note: not UTF-8") from None
        _check_text(whole)
        end = whole.rfind("\n\n")  # the last blank line: a text may have blank lines itself
        if end < 0:
            raise AuditFailed("malformed note: no blank line before the signatures")
        # Not splitlines(): that would also split at characters which a name or text may contain.
        lines = whole[end + 2 :].removesuffix("\n").split("\n")
        return cls(whole[: end + 1], tuple(Signature.parse(line) for line in lines))


def sign(text: str, *keys: SigningKey) -> Note:
    """A new note over `text`, signed by each of `keys` (ED25519)."""
    _check_text(text)
    return Note(text, tuple(_signed(text, key, None) for key in keys))


def add_signature(note: Note, key: SigningKey, timestamp_s: int | None = None) -> Note:
    """`note` with one more signature, in place of any earlier one of that key. A witness's key needs the time."""
    new = _signed(note.text, key, timestamp_s)
    others = tuple(s for s in note.signatures if (s.name, s.key_id) != (new.name, new.key_id))
    return Note(note.text, (*others, new))


def verify(note: Note, keys: Iterable[VerifierKey]) -> dict[VerifierKey, Signature]:
    """Which of `keys` signed the note, and how: at least one, or AuditFailed.

    Signatures of unknown keys are ignored. One of a known key that does not verify spoils the note.
    Raises MalformedCommand when two of `keys` differ but share name and id.
    """
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise MalformedCommand(
                f"two keys are called {key.name}+{key.id.hex()}", {"fields": {"keys": ["ambiguous"]}}
            )
    verified: dict[VerifierKey, Signature] = {}
    for signature in note.signatures:
        signer = known.get((signature.name, signature.key_id))
        if signer is None:
            continue
        if not signer.verifies(note.text, signature.data):
            raise AuditFailed(f"invalid signature of {signer.name}+{signer.id.hex()}")
        verified.setdefault(signer, signature)
    if not verified:
        raise AuditFailed("note has no signature of a known key")
    return verified


def _signed(text: str, key: SigningKey, timestamp_s: int | None) -> Signature:
    return Signature(key.name, key.verifier.id, key.sign(text, timestamp_s))


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise AuditFailed("malformed note: does not end in a newline")
    if not is_note_text(text):
        raise AuditFailed("malformed note: control character or invalid Unicode")
