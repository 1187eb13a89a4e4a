"""A batch whose commands belong to several shards: taken apart, asked for shard by shard, put together again.

Each part is one transaction; there is none over all of them. Where a part cannot be done, that is the answer when all
the others have been asked: repeated, the batch does what is missing and answers the rest as before. It must know
nothing of the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shared.messaging import codec

# The shard of a command, by the JSON text of its fields; None: any will do.
Place = Callable[[msgspec.Raw], int | None]

BATCH_METHOD = "execute"
# By shard: places in the batch, and the commands there.
Parts = dict[int, list[tuple[int, msgspec.Raw]]]


class _Commands(msgspec.Struct):
    commands: list[msgspec.Raw]


_commands = msgspec.json.Decoder(_Commands)
_answers = msgspec.json.Decoder(list[msgspec.Raw])


def split(arguments: msgspec.Raw, place: Place) -> Parts:
    """The commands of a batch by their shards. Nothing for a batch that is none, or is empty."""
    try:
        commands = _commands.decode(arguments).commands
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    parts: Parts = {}
    homeless: list[tuple[int, msgspec.Raw]] = []
    for number, command in enumerate(commands):
        shard = place(command)
        (homeless if shard is None else parts.setdefault(shard, [])).append((number, command))
    if homeless:  # any shard can refuse them: one that is asked anyway
        shard = min(parts, default=0)
        parts[shard] = sorted([*parts.get(shard, []), *homeless], key=lambda each: each[0])
    return parts


def body_of(commands: Sequence[msgspec.Raw]) -> bytes:
    """The body of a request for these commands."""
    return codec.encode({"args": (), "kwargs": {"commands": commands}})


def merged(asked: Sequence[tuple[Sequence[int], Callable[[], Any]]], count: int) -> bytes:
    """The answers, in the order of the `count` commands, as JSON. `asked`: the places of a part's commands in the
    batch, and the wait for its answers: their JSON text, or what it says. Raises the first part's error."""
    answers: list[Any] = [None] * count
    failure: Exception | None = None
    for places, wait in asked:
        try:
            given = wait()
            part = _answers.decode(given) if isinstance(given, bytes) else given
            for place, answer in zip(places, part, strict=True):
                answers[place] = answer
        except Exception as error:  # noqa: BLE001 - raised below, when all have been waited for
            failure = failure or error
    if failure is not None:
        raise failure
    return codec.encode(answers)
