"""Which log of quota has an account, and what the logs are called, from the published rule alone. Pure.

Shard = the first 8 bytes of BLAKE2b of `operator/account`, as a big-endian number, modulo the number of shards.
"""

from __future__ import annotations

import hashlib


def log_of(stream: str, shards: int) -> str:
    """The log of `operator/account`, of so many shards: `quota` of one, else `quota-0` and so on."""
    digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return log_name(int.from_bytes(digest, "big") % shards, shards)


def log_name(shard: int, shards: int) -> str:
    """The log of a shard, of so many."""
    return "quota" if shards == 1 else f"quota-{shard}"


def is_of_quota(log: str) -> bool:
    return log == "quota" or log.startswith("quota-")


def shard_of(log: str) -> int:
    """The shard that a log of quota is of."""
    return int(log.partition("-")[2] or 0)
