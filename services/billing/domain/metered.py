"""What metering reads of quota's events: of debits and reversals the fields that are summed, of others all.

Nearly all events are debits, so theirs are decoded lean: their strings were checked against their patterns when they
were written, and instants stay the text they are. It must not know what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from shared.contracts import quota as q
from shared.contracts.base import decode_event, encode_event

# By name, not by version: a version that nobody here can decode must stop the follower, not be skipped.
HEARD = {
    cls.TOPIC.rpartition(":")[0]
    for cls in (
        q.AccountOpened,
        q.CreditLimitSet,
        q.AccountClosed,
        q.PointsGranted,
        q.GrantVoided,
        q.GrantExpired,
        q.TokensDebited,
        q.DebitReversed,
    )
}


class Tokens(msgspec.Struct, gc=False):
    """Tokens by class."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0


class Debit(msgspec.Struct, gc=False):
    """Of `TokensDebited` what is summed."""

    at: str
    recorded_at: str
    model: str
    rate_card: str
    usage: Tokens
    amount: int
    draws: tuple[q.Draw, ...]
    overdrawn: int = 0
    final: bool = True
    serving_operator: str = ""


class Reversal(msgspec.Struct, gc=False):
    """Of `DebitReversed` what is summed."""

    at: str
    recorded_at: str
    model: str
    rate_card: str
    amount: int
    draws: tuple[q.Draw, ...]
    overdrawn: int = 0


Reader = Callable[[str | bytes], Any]

_LEAN: dict[str, Reader] = {
    q.TokensDebited.TOPIC: msgspec.json.Decoder(Debit).decode,
    q.DebitReversed.TOPIC: msgspec.json.Decoder(Reversal).decode,
}


class Readers(dict[str, Reader | None]):
    """By topic what reads an event's state; None for what metering does not hear.

    A reader raises KeyError for a version that nobody here knows, and msgspec.ValidationError for a damaged state.
    """

    def __missing__(self, topic: str) -> Reader | None:
        name, _, _version = topic.rpartition(":")
        reader = _LEAN.get(topic) or partial(_read, topic) if name in HEARD else None
        self[topic] = reader
        return reader


def _read(topic: str, state: str | bytes) -> Any:
    event = decode_event(topic, state)
    lean = _LEAN.get(event.TOPIC)  # an older version of what is read lean has become the newest
    return event if lean is None else lean(encode_event(event))
