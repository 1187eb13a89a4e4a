"""One key of a log takes the place of another: a statement that both have signed.

Whoever trusts either of them can come to trust the other, so that old checkpoints and new ones hang together. Text in,
text out; it must not know where keys are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import AuditFailed, MalformedCommand
from shared.transparency.keys import SigningKey, VerifierKey
from shared.transparency.note import Note, sign, verify

HEADER = "tokengrid/rotation/v1"


@dataclass(frozen=True)
class Rotation:
    """`new` signs beside `old` from now on, and alone some day. Both have the log's origin as their name."""

    old: VerifierKey
    new: VerifierKey

    @property
    def text(self) -> str:
        """The note's text."""
        return f"{HEADER}\n{self.old}\n{self.new}\n"

    @classmethod
    def parse(cls, text: str) -> Rotation:
        """Raises AuditFailed unless `text` is what `text` above would write."""
        try:
            header, old, new, end = text.split("\n")
            made = cls(VerifierKey.parse(old), VerifierKey.parse(new))
        except (ValueError, MalformedCommand):
            raise AuditFailed("not a rotation of keys") from None
        if header != HEADER or end or made.text != text or made.old == made.new or made.old.name != made.new.name:
            raise AuditFailed("not a rotation of keys")
        return made


def sign_rotation(old: SigningKey, new: SigningKey) -> Note:
    """The statement, signed by both."""
    return sign(Rotation(old.verifier, new.verifier).text, old, new)


def open_rotation(text: str) -> Rotation:
    """A statement that both of its keys have signed, worth no more than the trust in one. Raises AuditFailed."""
    signed = Note.parse(text)
    found = Rotation.parse(signed.text)
    if verify(signed, [found.old, found.new]).keys() != {found.old, found.new}:
        raise AuditFailed("a rotation needs both keys' signatures")
    return found
