"""The part of a replay's index of requests that is filled many at once: sorted keys and positions, 16 bytes each.

Keys are added in runs; a run that has become as long as the one before it is merged with it, so that there are few.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from services.audit.replay.index import TEXT_MAX, WORD, Index
from services.audit.replay.ordinary import Ordinary


class Runs:
    """Keys and positions. Whoever adds keys has looked whether they are there."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, Any]] = []  # sorted keys, their positions

    def find(self, key: int) -> int:
        """The position; 0 where there is none."""
        for keys, positions in self.runs:
            n = bisect_left(keys.data, key)  # of one key, an eighth of what `searchsorted` takes
            if n < len(keys) and keys[n] == key:
                return int(positions[n])
        return 0

    def state(self) -> list[tuple[bytes, bytes]]:
        return [(keys.tobytes(), positions.tobytes()) for keys, positions in self.runs]

    def put_back(self, saved: Sequence[tuple[bytes, bytes]]) -> None:
        self.runs = [(np.frombuffer(keys, np.uint64), np.frombuffer(at, np.int64)) for keys, at in saved]

    def repeated(self, keys: Any) -> Any:
        """By key, whether it is here, or comes twice among these."""
        order = np.argsort(keys)
        ordered = keys[order]
        twice = np.zeros(len(keys), dtype=bool)
        same = ordered[1:] == ordered[:-1]
        twice[1:] |= same
        twice[:-1] |= same
        for known, _ in self.runs:
            places = np.searchsorted(known, ordered)
            twice |= known[np.minimum(places, len(known) - 1)] == ordered
        found = np.zeros(len(keys), dtype=bool)
        found[order[twice]] = True
        return found

    def add(self, keys: Any, positions: Any) -> None:
        if not len(keys):
            return
        order = np.argsort(keys)
        self.runs.append((keys[order], positions[order]))
        while len(self.runs) > 1 and len(self.runs[-2][0]) <= 2 * len(self.runs[-1][0]):
            self.runs[-2:] = [_merged(*self.runs[-2:])]

    def take_over(self, positions: dict[int, int]) -> None:
        """Add what was added one at a time, which is then no more there."""
        count = len(positions)
        self.add(np.fromiter(positions, np.uint64, count), np.fromiter(positions.values(), np.int64, count))
        positions.clear()


def _merged(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    keys, positions = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(keys, kind="stable")  # which for two sorted halves is a merge
    return keys[order], positions[order]


def keys_of(found: Ordinary, index: Index) -> Any:
    """The keys of ordinary debits' requests, as `Index.key` has them; of ids that are too long for it, a key that no
    other has is enough: they are not ordinary."""
    offsets = np.array([index.offsets(stream) for stream in found.streams.kinds], dtype=np.uint64)
    keys = np.arange(len(found.rows), dtype=np.uint64)
    for rows, matrix in found.request_ids:
        size = matrix.shape[1]
        if size > TEXT_MAX:
            found.fine[rows] = False
            continue
        count = -(-size // WORD)
        padded = np.zeros((len(rows), count * WORD), dtype=np.uint8)
        padded[:, :size] = matrix
        words = np.ascontiguousarray(padded.view("<u4").T).astype(np.uint64)  # a word of all after the other
        halves = []
        for which, factors in enumerate(index.factors):
            start = np.uint64(factors[0] * size & (1 << 64) - 1)
            total = offsets[found.streams.codes[rows], which] + start
            for word, factor in zip(words, factors[1:], strict=False):
                total += word * np.uint64(factor)
            halves.append(total >> np.uint64(32))
        keys[rows] = halves[0] << np.uint64(32) | halves[1]
    return keys
