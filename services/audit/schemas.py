"""The contract of every RPC method of audit."""

from __future__ import annotations

from shared.contracts import audit as a
from shared.contracts.base import Command, Count, Slug
from shared.contracts.methods import Method
from shared.errors import AuditFailed, Conflict, MalformedCommand, NotCaughtUp, TokengridError, Unavailable

LOGS = ("catalog", "quota", "routing", "billing")


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


_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Unavailable)
_CHECKPOINT = (
    "`log`, `size`, `root_sha256`, `note` (a C2SP checkpoint in a signed note; empty while nothing is sealed), `at`, "
    "its `version` in the log's stream, and the `verifier_key` that the note verifies with."
)

METHODS: tuple[Method, ...] = (
    Method(a.Seal.NAME, a.Seal, _CHECKPOINT, a.CheckpointSigned, (*_ALWAYS, NotCaughtUp, AuditFailed, Conflict)),
    Method("checkpoint", CheckpointOf, _CHECKPOINT, a.CheckpointSigned, _ALWAYS),
    Method(
        "checkpoints",
        Checkpoints,
        "`checkpoints`, each as of `checkpoint`, and `more`.",
        a.CheckpointSigned,
        _ALWAYS,
    ),
    Method(
        "inclusion",
        Inclusion,
        "`log`, `position`, `size`, `leaf_sha256`, and `proof`: the audit path of RFC 9162, hex, for index "
        "`position` - 1.",
        None,
        (*_ALWAYS, NotCaughtUp),
    ),
    Method(
        "consistency",
        Consistency,
        "`log`, `first`, `second`, and `proof`: that of RFC 9162, hex.",
        None,
        (*_ALWAYS, NotCaughtUp),
    ),
    Method(
        "status", None, "`head` of audit's own log; `followed` and `sealed`: position of each log; `verifier_keys`."
    ),
)
