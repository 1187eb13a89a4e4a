"""Which shard an account belongs to: a stable hash, the same in every process and release.

A shard is a queue, an event log and a database of its own. Their number is fixed for the life of a deployment:
another number would send accounts to shards that do not have their events.
"""

from __future__ import annotations

import hashlib


def shard_of(operator: str, account: str, shards: int) -> int:
    """The shard, 0 to `shards` - 1, of an account. Needs no state, so every client can compute it."""
    if shards == 1:
        return 0
    digest = hashlib.blake2b(f"{operator}/{account}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def log_names(service: str, shards: int) -> tuple[str, ...]:
    """What the logs of a service's shards are called, in the shards' order: as the service while there is one."""
    return (service,) if shards == 1 else tuple(f"{service}-{shard}" for shard in range(shards))


def shard_named(log: str) -> int:
    """The shard whose log is called so by `log_names`."""
    return int(log.rpartition("-")[2]) if "-" in log else 0


def log_of(operator: str, account: str, shards: int) -> str:
    """The name of the one log of quota that has an account's events."""
    return log_names("quota", shards)[shard_of(operator, account, shards)]
