"""Audit's published language: checkpoints of the other services' logs. A log's stream is its name: the service's, or
`quota-0`, `quota-1` and so on where quota has several shards."""

from __future__ import annotations

from typing import Literal

from shared.contracts.base import Command, Count, Event, Slug, Text, command, event


@event("audit")
class CheckpointSigned(Event, frozen=True, kw_only=True):
    """The signed head of a log's Merkle tree: `note` is a C2SP tlog-checkpoint in a signed note."""

    log: Slug
    size: Count
    root_sha256: Text
    note: Text


@event("audit")
class KeyAnnounced(Event, frozen=True, kw_only=True):
    """A log's checkpoints are signed by `new_key` as well from here on, and some day by it alone. `note`: the
    statement, signed by both keys. In the stream `keys:` and the log's name."""

    log: Slug
    old_key: Text
    new_key: Text
    note: Text


@event("audit")
class CheckpointWitnessed(Event, frozen=True, kw_only=True):
    """A witness has cosigned a checkpoint that was signed. `witness`: its verifier key; `note`: the checkpoint with
    that cosignature alone. In the stream `witnessed:` and the log's name."""

    log: Slug
    size: Count
    witness: Text
    note: Text


@event("audit")
class CheckpointRefused(Event, frozen=True, kw_only=True):
    """An alarm: a witness was shown a head of a log that contradicts what it had cosigned. `kind`: `fork`, two heads of
    one size; `rewrite`, something before has changed; `cut`, the log became shorter. `note`: its signed statement. In
    the stream `refused:` and the log's name."""

    log: Slug
    kind: Literal["fork", "rewrite", "cut"]
    size: Count
    witnessed_size: Count
    witness: Text
    note: Text


@command("audit", "cosign")
class Cosign(Command, frozen=True, kw_only=True):
    """Keep a witness's cosignature. `note`: the checkpoint as it was signed, and the cosignature under it."""

    log: Slug
    note: Text


@command("audit", "refuse")
class Refuse(Command, frozen=True, kw_only=True):
    """Keep a witness's refusal of a checkpoint. `note`: its signed statement."""

    log: Slug
    note: Text


@command("audit", "seal")
class Seal(Command, frozen=True, kw_only=True):
    """Sign a checkpoint of `log` now, once it has been followed to `position`."""

    log: Slug
    position: Count
