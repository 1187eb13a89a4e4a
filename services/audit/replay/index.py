"""From a request to the position of its event, for all requests of a log. Pure.

It holds 64 bits of each request's name: whoever finds two alike reads the earlier event again. The bits are a
multilinear hash under a secret of this replay: no operator can choose two names that are taken for one. They can be
computed an event at a time, as here, or for many at once (`runs.py`), and are the same in a run that goes on.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from operator import mul
from typing import Any, Protocol

SECRET_BYTES = 32
TEXT_MAX = 256  # bytes of a name that are hashed as they are; of a longer one its digest is
WORD = 4  # bytes
WORDS_MAX = TEXT_MAX // WORD
_TWO = struct.Struct("<QQ")
_32, _64 = (1 << 32) - 1, (1 << 64) - 1
_APART = 128  # bits: a sum of words times factors has fewer than 104
_UNPACK = [struct.Struct(f"<{count}I").unpack for count in range(WORDS_MAX + 1)]
_PADDING = [bytes(count) for count in range(WORD)]


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
        # Both in one number, far enough apart that their sums do not meet: one pass over a name instead of two.
        self._of_length, *self._of_words = (one << _APART | two for one, two in zip(*self.factors, strict=True))
        self._offsets: dict[str, int] = {}

    def offsets(self, stream: str) -> tuple[int, int]:
        """What a stream adds to both hashes."""
        both = self._offset(stream)
        return both >> _APART, both & _64

    def _offset(self, stream: str) -> int:
        found = self._offsets.get(stream)
        if found is None:
            raw = stream.encode("utf-8", "surrogatepass")
            one, two = _TWO.unpack(hashlib.blake2b(raw, digest_size=16, key=self.secret).digest())
            found = self._offsets[stream] = one << _APART | two
        return found

    def key(self, stream: str, request_id: str) -> int:
        """64 bits of a request's name."""
        raw = request_id.encode("utf-8", "surrogatepass")
        both: int = self._offset(stream) + self._of_length * len(raw)
        if len(raw) > TEXT_MAX:
            raw = hashlib.blake2b(raw, key=self.secret).digest()
        words = _UNPACK[-(-len(raw) // WORD)](raw + _PADDING[-len(raw) % WORD])
        both += sum(map(mul, self._of_words, words))
        upper, lower = both >> _APART + 32 & _32, both >> 32 & _32
        return upper << 32 | lower

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
