"""From a request to the position of its event, for all requests of a log. Pure.

It holds 64 bits of each request's name: whoever finds two alike reads the earlier event again. The bits are a
multilinear hash under a secret of this replay: no operator can choose two names that are taken for one. They can be
computed an event at a time, as here, or for many at once (`runs.py`), and are the same in a run that goes on.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from operator import mul
from typing import Any, Protocol

SECRET_BYTES = 32
TEXT_MAX = 256  # bytes of a name that are hashed as they are; of a longer one its digest is
WORD = 4  # bytes
WORDS_MAX = TEXT_MAX // WORD
_TWO = struct.Struct("<QQ")
_64 = (1 << 64) - 1


class Sorted(Protocol):
    """Requests that were added many at once."""

    def find(self, key: int) -> int:
        """The position; 0 where there is none."""
        ...

    def state(self) -> Any:
        """All of them, in plain values."""
        ...

    def put_back(self, saved: Any) -> None: ...


class Index:
    """Requests by key. `secret`: of the run that this one goes on with."""

    def __init__(self, secret: bytes = b"") -> None:
        self.secret = secret or secrets.token_bytes(SECRET_BYTES)
        self.positions: dict[int, int] = {}
        self.many: Sorted | None = None
        # Two hashes of 32 bits each; of each a factor for a name's length and one for each of its words.
        numbers = hashlib.shake_256(self.secret).digest(2 * 8 * (1 + WORDS_MAX))
        factors = struct.unpack(f"<{2 * (1 + WORDS_MAX)}Q", numbers)
        self.factors = (factors[: 1 + WORDS_MAX], factors[1 + WORDS_MAX :])
        self._offsets: dict[str, tuple[int, int]] = {}

    def offsets(self, stream: str) -> tuple[int, int]:
        """What a stream adds to both hashes."""
        found = self._offsets.get(stream)
        if found is None:
            raw = stream.encode("utf-8", "surrogatepass")
            found = _TWO.unpack(hashlib.blake2b(raw, digest_size=16, key=self.secret).digest())
            self._offsets[stream] = found
        return found

    def key(self, stream: str, request_id: str) -> int:
        """64 bits of a request's name."""
        words = (*words_of(request_id, self.secret),)
        first, second = self.offsets(stream)
        upper: int = (first + sum(map(mul, self.factors[0], words))) & _64
        lower: int = (second + sum(map(mul, self.factors[1], words))) & _64
        return (upper >> 32) << 32 | lower >> 32

    def claim(self, stream: str, request_id: str, position: int) -> int:
        """The position of the request's first event: this one, if there was none."""
        key = self.key(stream, request_id)
        if self.many is not None and (earlier := self.many.find(key)):
            return earlier
        return self.positions.setdefault(key, position)

    def find(self, stream: str, request_id: str) -> int:
        """The position of the request's first event; 0: there is none."""
        key = self.key(stream, request_id)
        return self.positions.get(key, 0) or (self.many.find(key) if self.many is not None else 0)


def words_of(text: str, secret: bytes) -> Sequence[int]:
    """Length and words of a name, as they are hashed."""
    raw = text.encode("utf-8", "surrogatepass")
    size = len(raw)
    if size > TEXT_MAX:
        raw = hashlib.blake2b(raw, key=secret).digest()
    count = -(-len(raw) // WORD)
    return (size, *struct.unpack(f"<{count}I", raw.ljust(count * WORD, b"\0")))
