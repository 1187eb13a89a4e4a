"""The contract of every RPC method of routing."""

from __future__ import annotations

from typing import Literal

from shared.contracts import routing as r
from shared.contracts.answers import CallReceipt, Position, RecordedEvent, execute
from shared.contracts.base import Answer, Command, Count, Instant, Percent, Reference, RequestId, Slug
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

    NAME = "call"

    operator: Slug
    call: RequestId


class Deployments(Command, frozen=True, kw_only=True):
    """Deployments in force now, of one model or of all, by name after `after`, at most `limit`."""

    NAME = "deployments"

    model: Slug | None = None
    after: Reference = ""
    limit: Count = 500


class CallHistory(Answer, frozen=True, kw_only=True):
    """A call's events, oldest first: where it was sent and why, and how it went there."""

    operator: Slug
    call: RequestId
    events: tuple[RecordedEvent, ...]


class DeploymentSeen(Answer, frozen=True, kw_only=True):
    """A deployment's limits, and what this process knows of it now.

    `open_until`: end of the circuit's cool-down; `ttft_ms`: 90th percentile of the time to first token, null with
    too few samples; `calls`: those that hold a lease there.
    """

    deployment: Slug
    model: Slug
    data_centre: Slug
    serving_operator: Slug
    circuit: Literal["closed", "open", "half-open"]
    open_until: Instant | None
    consecutive_failures: Count
    error_share_percent: Percent
    throttled: bool
    ttft_ms: Count | None
    calls: Count
    concurrent_calls: Count
    tokens_last_minute: Count
    tokens_per_minute: Count


class DeploymentList(Answer, frozen=True, kw_only=True):
    """Deployments by name; whether there are `more`."""

    deployments: tuple[DeploymentSeen, ...]
    more: bool


class Followed(Answer, frozen=True, kw_only=True):
    """How far the catalogue and routing's own log are followed."""

    catalog: Position
    routing: Position


class Status(Answer, frozen=True, kw_only=True):
    """`head` of routing's own log, what is followed, and how many calls are in memory."""

    head: Position
    followed: Followed
    calls_cached: Count


_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Conflict, Unavailable)

METHODS: tuple[Method, ...] = (
    Method(
        r.Route.NAME,
        r.Route,
        "Receipt: `deployment`, `serving_operator`, `fallbacks` in order, `scores` of all candidates, `rejected` with "
        "reasons, `rates` and `rate_card` that will apply, `lease_expires_at`; `position`, `version`, `replayed`.",
        r.CallRouted,
        (*_ALWAYS, UnknownOperator, IdempotencyConflict, UnknownModel, NoRateInForce, NoDeployment),
        receipt=CallReceipt,
    ),
    Method(
        r.Report.NAME,
        r.Report,
        "Receipt: the event's fields, its `position` in the log, its `version`, and whether it was `replayed`.",
        r.CallServed,
        (*_ALWAYS, IdempotencyConflict, UnknownCall),
        receipt=CallReceipt,
    ),
    execute(*_ALWAYS, LimitExceeded),
    Method("call", Call, "The call's history.", CallHistory, (MalformedCommand, UnknownCall)),
    Method("deployments", Deployments, "A page of deployments.", DeploymentList, (MalformedCommand,)),
    Method("status", None, "How far routing has come.", Status),
)
