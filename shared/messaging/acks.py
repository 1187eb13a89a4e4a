"""What has been delivered over one channel and is not settled, and how to tell the broker with few words.

One acknowledgement covers all deliveries up to it, so what is settled in order costs next to nothing. What is
settled out of order may be held back, up to a bound, until what was before it is settled as well: should the
connection be lost meanwhile, it comes again, as everything may. It must know nothing of messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any


class Acks:
    """The deliveries of one channel, by their tags."""

    def __init__(self, channel: Any, held_max: int = 0) -> None:
        """`held_max`: how many acknowledgements may be held back."""
        self.channel = channel
        self._held_max = held_max
        self._tags: deque[int] = deque()  # not told to the broker, and the `_gone`
        self._open: set[int] = set()  # neither acknowledged nor refused
        self._done: set[int] = set()  # acknowledged, but not told to the broker
        self._gone: set[int] = set()  # told to the broker, but still among `_tags`

    @property
    def unsettled(self) -> int:
        """How many deliveries are in hand."""
        return len(self._open)

    def delivered(self, tag: int) -> None:
        self._tags.append(tag)
        self._open.add(tag)

    def refused(self, tag: int) -> bool:
        """Take this one out, because it is rejected or requeued by itself. False: it was settled before."""
        if tag not in self._open:
            return False
        self._open.discard(tag)
        self._gone.add(tag)
        return True

    def settle(self, tags: Iterable[int]) -> None:
        """Acknowledge these; those that were settled before are passed over."""
        for tag in tags:
            if tag in self._open:
                self._open.discard(tag)
                self._done.add(tag)
        pending, done, gone = self._tags, self._done, self._gone
        last = 0
        while pending and (pending[0] in done or pending[0] in gone):
            tag = pending.popleft()
            if tag in done:
                done.discard(tag)
                last = tag  # the broker refuses a tag that it has been told of already
            else:
                gone.discard(tag)
        if last:
            self.channel.basic_ack(last, multiple=True)
        if len(done) > self._held_max:
            held = sorted(done)
            gone |= done
            done.clear()
            for tag in held:
                self.channel.basic_ack(tag)
