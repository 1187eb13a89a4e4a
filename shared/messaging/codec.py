"""Message bodies: JSON, by msgspec, which is several times faster than kombu's own.

It is the plain `application/json` that stock clients speak. It must know nothing of what is in a body.
"""

from __future__ import annotations

from typing import Any

import msgspec

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any) -> bytes:
    """JSON of plain values. Raises TypeError (or another Exception) for what JSON cannot hold."""
    return _encoder.encode(value)


def decode(body: bytes | str) -> Any:
    """The value of a JSON text; integers stay integers. Raises ValueError, UnicodeError or RecursionError."""
    return _decoder.decode(body)
