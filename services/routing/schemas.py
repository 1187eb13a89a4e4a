"""The contract of every RPC method of routing."""

from __future__ import annotations

from shared.contracts import routing as r
from shared.contracts.base import Command, Count, Reference, RequestId, Slug
from shared.contracts.methods import Method
from shared.errors import (
    Conflict,
    IdempotencyConflict,
    LimitExceeded,
    MalformedCommand,
    NoDeployment,
    NoRateInForce,
    TokengridError,
    Unavailable,
    UnknownCall,
    UnknownModel,
    UnknownOperator,
)


class Call(Command, frozen=True, kw_only=True):
    """One call of a home operator."""

    operator: Slug
    call: RequestId


class Deployments(Command, frozen=True, kw_only=True):
    """Deployments in force now, of one model or of all, by name after `after`, at most `limit`."""

    model: Slug | None = None
    after: Reference = ""
    limit: Count = 500


_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Conflict, Unavailable)

METHODS: tuple[Method, ...] = (
    Method(
        r.Route.NAME,
        r.Route,
        "Receipt: `deployment`, `serving_operator`, `fallbacks` in order, `scores` of all candidates, `rejected` with "
        "reasons, `rates` and `rate_card` that will apply, `lease_expires_at`; `position`, `version`, `replayed`.",
        r.CallRouted,
        (*_ALWAYS, UnknownOperator, IdempotencyConflict, UnknownModel, NoRateInForce, NoDeployment),
    ),
    Method(
        r.Report.NAME,
        r.Report,
        "Receipt: the event's fields, its `position` in the log, its `version`, and whether it was `replayed`.",
        r.CallServed,
        (*_ALWAYS, IdempotencyConflict, UnknownCall),
    ),
    Method(
        "execute",
        None,
        "`commands`: a list of objects, each with its method's name under `command` and that method's fields. "
        'One transaction. A list in the same order: `{"ok": receipt}` or '
        '`{"error": {"code", "message", "details"}}`; a refused command does not touch the others.',
        None,
        (*_ALWAYS, LimitExceeded),
    ),
    Method(
        "call",
        Call,
        "`events`, oldest first: where the call was sent and why, and how it went there.",
        None,
        (MalformedCommand, UnknownCall),
    ),
    Method(
        "deployments",
        Deployments,
        "`deployments`, each with its limits and what this process knows of it: `circuit`, `open_until`, "
        "`consecutive_failures`, `error_share_percent`, `throttled`, `ttft_ms` (90th percentile), `calls`, "
        "`tokens_last_minute`; and `more`.",
        None,
        (MalformedCommand,),
    ),
    Method("status", None, "`head`, how far the catalogue is followed, and how many calls are in memory."),
)
