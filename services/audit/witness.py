"""A witness: another operator's program, which countersigns a log's checkpoints if nothing before them has changed.

What it cosigned last is kept in its own folder, durable before a signature leaves; so a log that was forked,
rewritten or cut since cannot collect another one. It trusts nobody, least of all the service that it asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from shared.errors import AuditFailed, SetupFailed
from shared.transparency.checkpoint import Checkpoint, cosign, open_checkpoint
from shared.transparency.encoding import from_base64, to_base64
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey
from shared.transparency.refusal import Kind, Refusal, judge, sign_refusal

Prove = Callable[[int, int], Sequence[bytes]]
"""The log's consistency proof from a size to another."""


class Cosigned(NamedTuple):
    """The checkpoint with our signature on it, a signed note."""

    size: int
    note: str


class Refused(NamedTuple):
    """Why not, and the statement that says so under our signature, a signed note."""

    kind: Kind
    note: str


class _Known(msgspec.Struct, frozen=True):
    size: int
    root: str


class Witness:
    """One key, and one folder that remembers what it signed. Several processes may share the folder."""

    def __init__(self, key: SigningKey, folder: Path) -> None:
        if key.kind != COSIGNATURE:
            raise SetupFailed("A witness needs a key of its own kind; `tokengrid audit witness` makes one.")
        self._key = key
        self._folder = folder

    def judge(self, note: str, log_key: VerifierKey, prove: Prove, now_s: int) -> Cosigned | Refused:
        """What we say to a checkpoint. `log_key`: the log's, from somewhere that the log's owner cannot change;
        `prove(first, second)` asks for a proof, from whomever. Raises AuditFailed for what the log has not signed."""
        opened = open_checkpoint(note, log_key)
        new = opened.checkpoint
        with self._signed() as signed:
            known = signed.get(new.origin)
            if known is not None:
                last = Checkpoint(new.origin, known.size, from_base64(known.root))
                proof = list(prove(last.size, new.size)) if new.size > last.size > 0 else []
                if (kind := judge(last, new, proof)) is not None:
                    return Refused(kind, str(sign_refusal(Refusal(kind, last, new), self._key, now_s)))
            self._remember({**signed, new.origin: _Known(new.size, to_base64(new.root))})
        return Cosigned(new.size, str(cosign(opened, self._key, now_s)))

    @contextlib.contextmanager
    def _signed(self) -> Iterator[Mapping[str, _Known]]:
        """What was signed last of each log. Nobody else signs meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self._folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                text = self._file.read_bytes()
            except FileNotFoundError:
                text = b"{}"
            try:
                known = msgspec.json.decode(text, type=dict[str, _Known])
            except msgspec.DecodeError as error:
                # Without it we could sign what contradicts what we signed.
                raise SetupFailed(f"{self._file}: not what a witness wrote ({error}); restore it.") from None
            yield known

    def _remember(self, known: Mapping[str, _Known]) -> None:
        """Whole or not at all, and on the disk on return."""
        draft = self._folder / f"signed.{secrets.token_hex(8)}"
        with open(draft, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(known)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._file)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @property
    def _file(self) -> Path:
        return self._folder / "signed.json"


def proof_of(answer: Mapping[str, Sequence[str]]) -> list[bytes]:
    """The hashes of the audit service's answer to `consistency`. Raises AuditFailed."""
    try:
        return [bytes.fromhex(node) for node in answer["proof"]]
    except (KeyError, TypeError, ValueError):
        raise AuditFailed("not a proof") from None
