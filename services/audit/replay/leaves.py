"""The canonical bytes of an event and their hash, from the published encoding alone. Pure.

A second implementation beside `shared.transparency.leaf`, written from docs/reference/leaf-encoding.md and for
speed: a replay hashes every event of every log.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

LeafHash = Callable[[int, str, int, str, str], bytes]
_U64 = struct.Struct(">Q").pack


def leaf_hash_of(log: str) -> LeafHash:
    """A function (position, stream, version, topic, state) -> leaf hash, 32 bytes, for one log."""
    name = log.encode()
    head = b"\x00tokengrid/event-leaf/v1\n" + _U64(len(name)) + name
    sha256 = hashlib.sha256

    def leaf_hash(position: int, stream: str, version: int, topic: str, state: str) -> bytes:
        s, t, j = stream.encode(), topic.encode(), state.encode()
        body = (head, _U64(position), _U64(len(s)), s, _U64(version), _U64(len(t)), t, _U64(len(j)), j)
        return sha256(b"".join(body)).digest()

    return leaf_hash
