"""The bytes of an evidence file: one line with their hash, then the compressed canonical JSON. Nothing else is read.

It must not know what the events mean. Whatever it reads may come from an adversary: AuditFailed, never anything else.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.errors import AuditFailed
from shared.transparency.encoding import from_base64

MAGIC = "tokengrid/evidence/v1"
PLAIN_BYTES_MAX = 1 << 28  # a bill of a million debits; a file that grows beyond it is a bomb
_LEVEL = 6

Position = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Event(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An event as its log has it: `[position, stream, version, topic, state]`; `state` is the exact JSON text."""

    position: Position
    stream: str
    version: Position
    topic: str
    state: str


class Proven(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events of one log, ascending, below a signed checkpoint of it. `proof`: base64 of the multiproof's hashes."""

    log: str
    checkpoint: str
    events: tuple[Event, ...]
    proof: str

    @property
    def proof_bytes(self) -> bytes:
        """Raises AuditFailed."""
        try:
            return from_base64(self.proof)
        except ValueError:
            raise AuditFailed(f"the proof of {self.log} is not canonical base64") from None


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What proves the bill `bill`: events of several logs, in the order of the logs' names."""

    bill: str
    logs: tuple[Proven, ...]

    def of(self, log: str) -> Proven:
        """Raises AuditFailed for a log that nothing is from."""
        for proven in self.logs:
            if proven.log == log:
                return proven
        raise AuditFailed(f"there is nothing of {log}'s log")


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Evidence).decode


def pack(evidence: Evidence) -> bytes:
    """The file."""
    body = zlib.compress(_encode(evidence), _LEVEL)
    return f"{MAGIC} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def unpack(data: bytes) -> Evidence:
    """What is in a file. Raises AuditFailed unless it is, byte for byte, what `pack` writes."""
    head, _, body = data.partition(b"\n")
    if head != f"{MAGIC} {hashlib.sha256(body).hexdigest()}".encode():
        raise AuditFailed("not an evidence file of this version, or changed since it was made")
    plain = _inflated(body)
    try:
        evidence = _decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuditFailed(f"not evidence: {error}") from None
    if _encode(evidence) != plain:
        raise AuditFailed("not in the canonical form")
    names = [proven.log for proven in evidence.logs]
    if names != sorted(set(names)):
        raise AuditFailed("logs are not in order, or one stands twice")
    return evidence


def _inflated(body: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(body, PLAIN_BYTES_MAX)
    except zlib.error as error:
        raise AuditFailed(f"cannot be decompressed: {error}") from None
    if not inflating.eof or inflating.unused_data:
        raise AuditFailed("too large, cut off, or followed by something else")
    return plain
