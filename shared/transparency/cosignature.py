"""What a witness signs: C2SP tlog-cosignature, `cosignature/v1` (timestamped Ed25519, type 0x04).

Bytes in, bytes out. It must not know keys or notes; whether a witness *should* sign is `checkpoint.verify_extends`.
"""

from __future__ import annotations

import struct

TIMESTAMP_MAX = 2**63 - 1
ED25519_SIGNATURE_BYTES = 64

_U64 = struct.Struct(">Q")


def message(text: str, timestamp_s: int) -> bytes:
    """The signed bytes: a header, the POSIX time, then the checkpoint's whole text."""
    if not 0 <= timestamp_s <= TIMESTAMP_MAX:
        raise ValueError("timestamp out of bounds")
    return f"cosignature/v1\ntime {timestamp_s}\n{text}".encode()


def pack(timestamp_s: int, signature: bytes) -> bytes:
    """A `timestamped_signature`: 8 bytes of time, 64 of signature."""
    return _U64.pack(timestamp_s) + signature


def unpack(data: bytes) -> tuple[int, bytes]:
    """(timestamp_s, signature). Raises ValueError when the length or the time is wrong."""
    if len(data) != _U64.size + ED25519_SIGNATURE_BYTES:
        raise ValueError("not a timestamped Ed25519 signature")
    (timestamp_s,) = _U64.unpack_from(data)
    if timestamp_s > TIMESTAMP_MAX:
        raise ValueError("timestamp out of bounds")
    return timestamp_s, data[_U64.size :]
