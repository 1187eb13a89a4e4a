"""Audit's published language: checkpoints of the other services' logs. A log's stream is its name: the service's, or
`quota-0`, `quota-1` and so on where quota has several shards."""

from __future__ import annotations

from shared.contracts.base import Command, Count, Event, Slug, Text, command, event


@event("audit")
class CheckpointSigned(Event, frozen=True, kw_only=True):
    """The signed head of a log's Merkle tree: `note` is a C2SP tlog-checkpoint in a signed note."""

    log: Slug
    size: Count
    root_sha256: Text
    note: Text


@command("audit", "seal")
class Seal(Command, frozen=True, kw_only=True):
    """Sign a checkpoint of `log` now, once it has been followed to `position`."""

    log: Slug
    position: Count
