"""What is asked while we measure: debits, reserves and settles, as fields and as the bodies that callers send.

Deterministic but for random keys. Must not know who is asked, nor how.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

OPERATOR = "shanghai-telecom"
MODEL = "kimi-k2.5"
ACCOUNTS = 10_000  # each batch of 1,000 meets 950 of them: 100 would do the database a favour
KEYS_START_MS = 0x0193_0000_0000  # the time in our keys
KEYS_PER_MS = 25
SHUFFLE = 0x9E37_79B9_7F4A_7C15  # odd: neighbours get tails that look like chance
USAGE = {"input": 1000, "output": 200}

Key = Callable[[int], str]


def account(number: int) -> str:
    return f"a{number:07d}"


def stream(number: int) -> str:
    """An account's stream in the log."""
    return f"{OPERATOR}/{account(number)}"


def ordered_key(number: int) -> str:
    """A request id as we advise callers to make them: a UUID of version 7, ordered by time."""
    tail = number * SHUFFLE & 0xFFFF_FFFF_FFFF_FFFF
    ms = f"{KEYS_START_MS + number // KEYS_PER_MS:012x}"
    return f"{ms[:8]}-{ms[8:]}-7{tail & 0xFFF:03x}-8{tail >> 12 & 0xFFF:03x}-{tail >> 16:012x}"


def random_key(number: int) -> str:  # noqa: ARG001 - chosen by chance
    """A request id that is nowhere near the last one: a UUID of version 4."""
    tail = f"{random.getrandbits(128):032x}"
    return f"{tail[:8]}-{tail[8:12]}-4{tail[13:16]}-8{tail[17:20]}-{tail[20:]}"


def uniform(accounts: int) -> Iterator[int]:
    """Accounts by chance, each as likely as any other; the same ones in every run."""
    chance = random.Random(accounts)
    while True:
        yield from chance.choices(range(accounts), k=1000)


def debit(number: int, of: int) -> dict[str, Any]:
    """The fields of debit `number`, of an account."""
    return {
        "operator": OPERATOR,
        "account": account(of),
        "request_id": ordered_key(number),
        "model": MODEL,
        "usage": USAGE,
    }


def debits(numbers: Iterator[int], whose: Iterable[int], count: int) -> list[dict[str, Any]]:
    """`count` fresh debit commands for `execute`."""
    return [
        {"command": "debit", **debit(n, of)} for n, of in zip(itertools.islice(numbers, count), whose, strict=False)
    ]


def pairs(numbers: Iterator[int], whose: Iterable[int], count: int) -> list[dict[str, Any]]:
    """`count` calls with a hold: a reserve each, then a settle each."""
    reserves = []
    settles = []
    for call in debits(numbers, whose, count):
        name, usage = call["request_id"], call.pop("usage")
        reserves.append({**call, "command": "reserve", "max_usage": {"input": 1000, "output": 4000}})
        settle = {"command": "settle", "request_id": f"{name}s", "reservation": name, "usage": usage}
        settles.append({"operator": call["operator"], "account": call["account"], **settle})
    return reserves + settles


_COMMAND = (
    f'{{"command":"debit","operator":"{OPERATOR}","account":"%s","request_id":"%s",'
    f'"model":"{MODEL}","usage":{{"input":{USAGE["input"]},"output":{USAGE["output"]}}}}}'
)


def quick_body(numbers: Sequence[int], whose: Sequence[int], key: Key = ordered_key) -> bytes:
    """The body of an `execute` of debits, made at a hundredth of what answering it costs: for runs too long to
    make all bodies beforehand."""
    commands = ",".join([_COMMAND % (account(of), key(n)) for n, of in zip(numbers, whose, strict=True)])
    return f'{{"args":[],"kwargs":{{"commands":[{commands}]}}}}'.encode()
