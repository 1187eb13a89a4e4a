"""The canonical bytes of one logged event, and their hash: what the Merkle tree is made of.

The encoding is published in docs/reference/leaf-encoding.md and never changes under this tag. It must
not know how events are stored, nor what a topic or a state means: the state's bytes go in as stored.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import AuditFailed
from shared.transparency import merkle

TAG = b"tokengrid/event-leaf/v1\n"
INTEGER_MAX = 2**63 - 1  # encoded in 64 bits; the database's bigint ends here

_U64 = struct.Struct(">Q")


@dataclass(frozen=True)
class Leaf:
    """One event of a log. `position` counts from 1 without a gap, so the leaf's index in the tree is
    `position - 1`; `version` counts from 1 within the stream; `state` is the stored JSON, byte for byte."""

    log: str
    position: int
    stream: str
    version: int
    topic: str
    state: bytes

    @property
    def index(self) -> int:
        return self.position - 1

    def encode(self) -> bytes:
        """The canonical bytes. Raises AuditFailed for what no log can contain."""
        return b"".join(
            (
                TAG,
                _text(self.log, "log"),
                _integer(self.position, "position"),
                _text(self.stream, "stream"),
                _integer(self.version, "version"),
                _text(self.topic, "topic"),
                _bytes(self.state, "state"),
            )
        )

    def hash(self) -> bytes:
        """The leaf hash: SHA-256(0x00 ‖ canonical bytes), 32 bytes."""
        return merkle.leaf_hash(self.encode())


def hasher(log: str) -> Callable[[int, str, int, str, bytes], bytes]:
    """As `Leaf(log, …).hash()`, for very many events of one log that its database has kept: position, stream, version,
    topic, state. Raises AuditFailed for integers that no log can contain."""
    head = merkle.LEAF + TAG + _text(log, "log")
    pack, join, sha256 = _U64.pack, b"".join, hashlib.sha256

    def leaf_hash(position: int, stream: str, version: int, topic: str, state: bytes) -> bytes:
        if not (0 < position <= INTEGER_MAX and 0 < version <= INTEGER_MAX):
            raise AuditFailed(f"leaf's position or version is not between 1 and {INTEGER_MAX}")
        s, t = stream.encode(), topic.encode()
        parts = (head, pack(position), pack(len(s)), s, pack(version), pack(len(t)), t, pack(len(state)), state)
        return sha256(join(parts)).digest()

    return leaf_hash


def decode(data: bytes) -> Leaf:
    """The leaf whose canonical bytes these are. Raises AuditFailed unless they are exactly that."""
    if not data.startswith(TAG):
        raise AuditFailed("not a leaf of this format")
    rest = _Reader(data, len(TAG))
    found = Leaf(rest.text(), rest.integer(), rest.text(), rest.integer(), rest.text(), rest.bytes())
    if not rest.at_end():
        raise AuditFailed("bytes follow the leaf's last field")
    return found


def _integer(value: int, field: str) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= INTEGER_MAX:
        raise AuditFailed(f"leaf's {field} is not an integer between 1 and {INTEGER_MAX}")
    return _U64.pack(value)


def _bytes(value: bytes, field: str) -> bytes:
    if not isinstance(value, bytes):
        raise AuditFailed(f"leaf's {field} is not bytes")
    return _U64.pack(len(value)) + value


def _text(value: str, field: str) -> bytes:
    try:
        return _bytes(value.encode(), field)
    except (AttributeError, UnicodeEncodeError):
        raise AuditFailed(f"leaf's {field} is not Unicode text") from None


class _Reader:
    """Takes the fields off, one after another."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self._offset = offset

    def at_end(self) -> bool:
        return self._offset == len(self._data)

    def _take(self, count: int) -> bytes:
        end = self._offset + count
        if end > len(self._data):
            raise AuditFailed("leaf ends within a field")
        taken, self._offset = self._data[self._offset : end], end
        return taken

    def integer(self) -> int:
        value: int = _U64.unpack(self._take(_U64.size))[0]
        if not 1 <= value <= INTEGER_MAX:
            raise AuditFailed(f"integer in a leaf is not between 1 and {INTEGER_MAX}")
        return value

    def bytes(self) -> bytes:
        (length,) = _U64.unpack(self._take(_U64.size))
        return self._take(length)

    def text(self) -> str:
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise AuditFailed("text in a leaf is not UTF-8") from None
