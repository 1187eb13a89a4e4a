"""C2SP tlog-checkpoint: the signed head of a log, and what follows from two of them.

It must not know which log, nor fetch anything. The three ways of lying about a log each have one
function that catches them: `open_checkpoint` (who signed), `verify_extends` (rewritten, forked or
shrunk since), `verify_leaves` (events that are not the signed ones, too few of them, too many).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shared.errors import AuditFailed
from shared.transparency import cosignature, merkle, note
from shared.transparency.encoding import from_base64, is_note_text, to_base64
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey

_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A log's head: `origin` names the log, `size` counts its leaves, `root` is 32 bytes.

    Raises AuditFailed when built from what no log can state.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line or not is_note_text(line):
                raise AuditFailed("malformed checkpoint: origin or extension line is empty or not one line of text")
        if isinstance(self.size, bool) or not 0 <= self.size <= merkle.SIZE_MAX:
            raise AuditFailed("malformed checkpoint: size out of bounds")
        if len(self.root) != merkle.HASH_BYTES:
            raise AuditFailed("malformed checkpoint: root is not 32 bytes")
        if self.size == 0 and self.root != merkle.EMPTY_ROOT:
            raise AuditFailed("malformed checkpoint: the empty tree has another root")

    @property
    def text(self) -> str:
        """The note's text."""
        return "\n".join((self.origin, str(self.size), to_base64(self.root), *self.extensions)) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """From a note's text. Raises AuditFailed unless `text` is what `text` above would write."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1]:
            raise AuditFailed("malformed checkpoint: not three lines or more")
        origin, size, root, *extensions = lines[:-1]
        if not _SIZE.match(size):
            raise AuditFailed("malformed checkpoint: size is not a decimal number")
        try:
            return cls(origin, int(size), from_base64(root), tuple(extensions))
        except ValueError:
            raise AuditFailed("malformed checkpoint: root is not base64") from None


@dataclass(frozen=True)
class Opened:
    """A checkpoint that its log has signed, and when (POSIX seconds) each witness has cosigned it."""

    checkpoint: Checkpoint
    note: note.Note
    witnessed_s: dict[VerifierKey, int]


def sign_checkpoint(checkpoint: Checkpoint, *keys: SigningKey) -> note.Note:
    """The checkpoint as a note signed by its log, with two keys while one takes the other's place. The caller must
    never sign two that are inconsistent."""
    return note.sign(checkpoint.text, *keys)


def cosign(opened: Opened, key: SigningKey, timestamp_s: int) -> note.Note:
    """The note with a witness's cosignature. To be called only after `verify_extends` from the last
    checkpoint of this origin that `key` signed."""
    return note.add_signature(opened.note, key, timestamp_s)


def open_checkpoint(
    data: bytes | str,
    log_key: VerifierKey,
    *,
    origin: str | None = None,
    witnesses: Sequence[VerifierKey] = (),
    witnesses_min: int = 0,
) -> Opened:
    """Parse and verify a checkpoint: signed by `log_key`, cosigned by at least `witnesses_min` of `witnesses`.

    `origin` defaults to the log key's name. Raises AuditFailed.
    """
    signed = note.Note.parse(data)
    verified = note.verify(signed, (log_key, *witnesses))
    if log_key not in verified:
        raise AuditFailed(f"checkpoint is not signed by {log_key.name}")
    checkpoint = Checkpoint.parse(signed.text)
    expected = log_key.name if origin is None else origin
    if checkpoint.origin != expected:
        raise AuditFailed(f"checkpoint is of {checkpoint.origin}, not of {expected}")
    witnessed_s = {
        key: cosignature.unpack(signature.data)[0] for key, signature in verified.items() if key.kind == COSIGNATURE
    }
    # One private key under several names or types is still one witness.
    count = len({key.public for key in witnessed_s} - {log_key.public})
    if count < witnesses_min:
        raise AuditFailed(f"checkpoint has {count} witnesses, not {witnesses_min}")
    return Opened(checkpoint, signed, witnessed_s)


def verify_extends(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Check that the log of `new` is that of `old` with nothing changed or cut off. Raises AuditFailed.

    From the empty log anything follows, and the proof is empty (C2SP tlog-witness).
    """
    if old.origin != new.origin:
        raise AuditFailed(f"checkpoints of two logs: {old.origin} and {new.origin}")
    if new.size < old.size:
        raise AuditFailed(f"log was cut from {old.size} to {new.size} leaves")
    if old.size == 0:
        if proof:
            raise AuditFailed("consistency proof is too long")
        if new.size == 0 and new.root != old.root:
            raise AuditFailed("two roots for one size")
        return
    merkle.verify_consistency(old.size, old.root, new.size, new.root, proof)


def verify_leaves(checkpoint: Checkpoint, leaf_hashes: Iterable[bytes]) -> None:
    """Check that exactly these leaves, in this order, are what was signed. Raises AuditFailed.

    Give all leaves up to the checkpoint's size and no later ones: too few is a log whose tail was cut off.
    """
    tree = merkle.Tree()
    for leaf in leaf_hashes:
        if tree.size == checkpoint.size:
            raise AuditFailed(f"more leaves than the {checkpoint.size} signed")
        tree.append(leaf)
    if tree.size != checkpoint.size:
        raise AuditFailed(f"only {tree.size} leaves of the {checkpoint.size} signed")
    if tree.root() != checkpoint.root:
        raise AuditFailed(
            "leaves are not the signed ones", {"signed": checkpoint.root.hex(), "computed": tree.root().hex()}
        )
