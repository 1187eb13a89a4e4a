"""Waiting until a service has followed another's logs: as any client can, by asking how far it is.

It must not know what is in the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import eventlet

from shared.errors import Unavailable
from shared.messaging.client import Client

# What is asked again has one effect; a service or its database is back within seconds.
RETRIES = 8
FOLLOW_WAIT_S = 120.0
REPLICAS_ASKED = 4  # calls go to a service's replicas in turn, and each has a copy of its own
POLL_S = 0.01

Progress = Callable[[int, int], None]  # events, of events


def heads(client: Client, service: str) -> dict[str, int]:
    """The heads of a service's logs, by their names: one, or quota's by shard."""
    if service != "quota":
        return {service: int(client.call(service, "head", retries=RETRIES))}
    return {shard["log"]: int(shard["head"]) for shard in client.call("quota", "status", retries=RETRIES)["shards"]}


def await_followed(client: Client, service: str, upstream: str, progress: Progress | None = None) -> list[int]:
    """Wait until a service has followed another's logs to the heads they have now; those positions, by shard."""
    ends = list(heads(client, upstream).values())
    await_positions(client, service, upstream, ends, progress)
    return ends


def await_positions(
    client: Client, service: str, upstream: str, ends: Sequence[int], progress: Progress | None = None
) -> None:
    """Wait until a service has followed another's logs to these positions, by shard.

    Raises Unavailable when nothing moves any more for FOLLOW_WAIT_S. `progress` is called meanwhile.
    """
    head = sum(ends)
    reached, waited_s, confirmed = -1, 0.0, 0
    while True:
        positions = _followed(client.call(service, "status", retries=RETRIES), service, upstream)
        position = sum(map(min, positions, ends))
        if progress is not None:
            progress(position, head)
        confirmed = confirmed + 1 if position >= head else 0
        if confirmed == REPLICAS_ASKED:
            return
        if confirmed:
            continue
        waited_s = 0.0 if position > reached else waited_s + POLL_S
        reached = max(position, reached)
        if waited_s > FOLLOW_WAIT_S:
            raise Unavailable(f"{service} does not follow {upstream}: it stands at {position} of {head}.")
        eventlet.sleep(POLL_S)


def _followed(status: dict[str, Any], service: str, upstream: str) -> list[int]:
    """How far a service says that it has followed another's logs, by shard."""
    if upstream != "quota":
        return [status["followed"][upstream]]
    if service == "quota":
        return [shard["followed"]["quota"] for shard in status["shards"]]
    positions: list[int] = status["followed"]["quota_shards"]
    return positions
