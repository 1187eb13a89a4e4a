"""Lines of the Mooncake trace: {"timestamp": ms, "input_length", "output_length", "hash_ids": [...]}.

Each id stands for a block of 512 input tokens together with all before it, so the leading ids that were
seen earlier are a prefix whose computation can be reused: cached input. The last block may be partial.
It must not know about files.
"""

from __future__ import annotations

import msgspec

from tokengrid.traces.call import BadLine, Call, checked

BLOCK_TOKENS = 512
# A hundred megabytes at worst; beyond it the ids that came first are forgotten first.
BLOCKS_REMEMBERED_MAX = 1_000_000


class Line(msgspec.Struct):
    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int] = []


_decoder = msgspec.json.Decoder(Line)


def is_line(line: str) -> bool:
    """Whether a line is one of this trace's."""
    try:
        _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


class MooncakeLines:
    """Parses lines; remembers the blocks that were seen and the first call's time."""

    name = "mooncake"

    def __init__(self) -> None:
        self._seen: dict[int, None] = {}
        self._start_ms: int | None = None

    def parse(self, line: str) -> Call:
        """Raises BadLine."""
        try:
            found = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadLine(f"it is not a call of this trace ({str(error)[:120]})") from None
        blocks_max = -(-max(found.input_length, 0) // BLOCK_TOKENS)
        if len(found.hash_ids) > blocks_max:
            raise BadLine(f"it has {len(found.hash_ids)} blocks, its input fills {blocks_max}")
        cached_count = 0
        for block in found.hash_ids:
            if block not in self._seen:
                break
            cached_count += 1
        cached = min(cached_count * BLOCK_TOKENS, found.input_length)
        start_ms = found.timestamp if self._start_ms is None else self._start_ms
        call = checked(found.timestamp - start_ms, found.input_length, cached, found.output_length, "conversation")
        self._start_ms = start_ms
        for block in found.hash_ids:
            self._seen[block] = None
        while len(self._seen) > BLOCKS_REMEMBERED_MAX:
            del self._seen[next(iter(self._seen))]
        return call
