"""What a witness says when it does not cosign: which of the three lies about a log it was told.

A signed note by the witness, so that the log's owner cannot unsay it. Text in, text out; it must not know where a
witness keeps what it signed before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from shared.errors import AuditFailed
from shared.transparency.checkpoint import Checkpoint, verify_extends
from shared.transparency.encoding import from_base64, to_base64
from shared.transparency.keys import SigningKey, VerifierKey
from shared.transparency.note import Note, Signature, verify

HEADER = "tokengrid/refusal/v1"
Kind = Literal["fork", "rewrite", "cut"]


@dataclass(frozen=True)
class Refusal:
    """`known` is what the witness cosigned last, `refused` what it was given then, both signed by the log."""

    kind: Kind
    known: Checkpoint
    refused: Checkpoint

    @property
    def text(self) -> str:
        """The note's text."""
        heads = (f"{head.size} {to_base64(head.root)}" for head in (self.known, self.refused))
        return "\n".join((HEADER, self.kind, self.known.origin, *heads)) + "\n"

    @classmethod
    def parse(cls, text: str) -> Refusal:
        """Raises AuditFailed unless `text` is what `text` above would write."""
        try:
            header, kind, origin, known, refused, end = text.split("\n")
            heads = [
                Checkpoint(origin, int(size), from_base64(root))
                for size, root in (known.split(" "), refused.split(" "))
            ]
        except ValueError:
            raise AuditFailed("not a refusal") from None
        if header != HEADER or kind not in get_args(Kind) or end:
            raise AuditFailed("not a refusal")
        made = cls(kind, *heads)  # type: ignore[arg-type] # one of its values, as was checked
        if made.text != text:
            raise AuditFailed("not a refusal in its one form")
        return made


def judge(known: Checkpoint, new: Checkpoint, proof: list[bytes]) -> Kind | None:
    """Which lie `new` is to whoever has cosigned `known`, if it is one: a head of the same size with another root
    (a fork), a log that became shorter (cut), or one in which something before `known` has changed (a rewrite; what
    cannot be proved to be none is one)."""
    if new.size < known.size:
        return "cut"
    if new.size == known.size:
        return None if new.root == known.root else "fork"
    try:
        verify_extends(known, new, proof)
    except AuditFailed:
        return "rewrite"
    return None


def sign_refusal(refusal: Refusal, key: SigningKey, timestamp_s: int) -> Note:
    """The statement, signed by the witness."""
    return Note(refusal.text, (Signature(key.name, key.verifier.id, key.sign(refusal.text, timestamp_s)),))


def open_refusal(text: str, witnesses: list[VerifierKey]) -> tuple[Refusal, VerifierKey]:
    """The statement, and which of `witnesses` has signed it. Raises AuditFailed."""
    signed = Note.parse(text)
    by = next(iter(verify(signed, witnesses)))
    return Refusal.parse(signed.text), by
