"""The contract of every RPC method of audit."""

from __future__ import annotations

from typing import Literal

from shared.contracts import audit as a
from shared.contracts.answers import Position
from shared.contracts.base import Answer, Command, Count, Instant, Sha256, Slug, Text
from shared.contracts.methods import Method
from shared.errors import AuditFailed, Conflict, MalformedCommand, NotCaughtUp, TokengridError, Unavailable

SERVICES = ("catalog", "quota", "routing", "billing")  # whose logs are followed


class CheckpointOf(Command, frozen=True, kw_only=True):
    """The latest checkpoint of a log."""

    NAME = "checkpoint"

    log: Slug


class Checkpoints(Command, frozen=True, kw_only=True):
    """A log's checkpoints behind the version `after`, oldest first, at most `limit`."""

    NAME = "checkpoints"

    log: Slug
    after: Count = 0
    limit: Count = 100


class Inclusion(Command, frozen=True, kw_only=True):
    """Proof that the event at `position` is in the tree of `size` (that of the latest checkpoint)."""

    NAME = "inclusion"

    log: Slug
    position: Count
    size: Count | None = None


class Consistency(Command, frozen=True, kw_only=True):
    """Proof that the tree of size `second` (that of the latest checkpoint) extends the one of size `first`."""

    NAME = "consistency"

    log: Slug
    first: Count
    second: Count | None = None


class ManyOf(Command, frozen=True, kw_only=True):
    """One proof that the events at these `positions` (ascending, at most 100,000) are in the tree of `size` (that of
    the latest checkpoint)."""

    NAME = "multiproof"

    log: Slug
    positions: tuple[Count, ...]
    size: Count | None = None


class TileOf(Command, frozen=True, kw_only=True):
    """A hash tile of a log's tree, by its path in C2SP tlog-tiles (`tile/0/x001/067`, `tile/1/000.p/12`)."""

    NAME = "tile"

    log: Slug
    path: Text


class Checkpoint(Answer, frozen=True, kw_only=True):
    """The signed head of a log's tree: `note` is a C2SP checkpoint in a signed note, which `verifier_key` verifies.

    While nothing is sealed, `note` is empty, `at` is null and `version` (that in the log's stream) is 0.
    """

    log: Slug
    verifier_key: str
    size: Count
    root_sha256: Sha256
    note: str
    at: Instant | None
    version: Count


class CheckpointList(Answer, frozen=True, kw_only=True):
    """Checkpoints, oldest first; whether there are `more`."""

    checkpoints: tuple[Checkpoint, ...]
    more: bool


class InclusionProof(Answer, frozen=True, kw_only=True):
    """The audit path of RFC 9162 for the leaf of index `position` - 1 in the tree of `size`."""

    log: Slug
    position: Position
    size: Count
    leaf_sha256: Sha256
    proof: tuple[Sha256, ...]


class ConsistencyProof(Answer, frozen=True, kw_only=True):
    """The proof of RFC 9162 that the tree of size `second` extends the one of size `first`."""

    log: Slug
    first: Count
    second: Count
    proof: tuple[Sha256, ...]


class ManyProof(Answer, frozen=True, kw_only=True):
    """The hashes that the events' leaves lack to come to the root of the tree of `size`, from left to right, in base64
    (docs/reference/evidence.md)."""

    log: Slug
    size: Count
    proof: str


class TileContent(Answer, frozen=True, kw_only=True):
    """The tile's hashes, 32 bytes each, one after another, in base64."""

    log: Slug
    path: Text
    hashes: str


class Status(Answer, frozen=True, kw_only=True):
    """`head` of audit's own log. By log: how far it is followed and `sealed`, and its verifier key."""

    head: Position
    followed: dict[Slug, Position]
    sealed: dict[Slug, Position]
    verifier_keys: dict[Slug, str]


class Said(Answer, frozen=True, kw_only=True):
    """What was kept of a witness's word: `kind` is `cosigned`, or why it refused; `size`: of the checkpoint."""

    log: Slug
    kind: Literal["cosigned", "fork", "rewrite", "cut"]
    size: Count
    witness: Text
    replayed: bool


_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Unavailable)

METHODS: tuple[Method, ...] = (
    Method(
        a.Seal.NAME,
        a.Seal,
        "The checkpoint, signed now or before.",
        Checkpoint,
        (*_ALWAYS, NotCaughtUp, AuditFailed, Conflict),
    ),
    Method(
        a.Cosign.NAME,
        a.Cosign,
        "What was kept: the cosignature stands under the checkpoint from now on.",
        Said,
        (*_ALWAYS, AuditFailed, Conflict),
    ),
    Method(a.Refuse.NAME, a.Refuse, "What was kept: an alarm in audit's log.", Said, (*_ALWAYS, AuditFailed, Conflict)),
    Method("checkpoint", CheckpointOf, "The checkpoint.", Checkpoint, _ALWAYS),
    Method("checkpoints", Checkpoints, "A page of checkpoints.", CheckpointList, _ALWAYS),
    Method(
        "inclusion",
        Inclusion,
        "The proof.",
        InclusionProof,
        (*_ALWAYS, NotCaughtUp),
    ),
    Method(
        "consistency",
        Consistency,
        "The proof.",
        ConsistencyProof,
        (*_ALWAYS, NotCaughtUp),
    ),
    Method("multiproof", ManyOf, "The proof.", ManyProof, (*_ALWAYS, NotCaughtUp)),
    Method("tile", TileOf, "The tile.", TileContent, (*_ALWAYS, NotCaughtUp)),
    Method("status", None, "How far audit has come.", Status),
)
