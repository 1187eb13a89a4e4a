"""Routing's published language: where a call runs, and how it went. A call's stream is `operator/call`."""

from __future__ import annotations

from typing import Literal

from shared.contracts.base import (
    AccountId,
    AmountOrZero,
    Command,
    Count,
    Instant,
    Part,
    Reference,
    Requested,
    RequestId,
    Slug,
    Text,
    Tokens,
    Usage,
    command,
    event,
)

Outcome = Literal["ok", "error", "throttled", "cancelled"]


class Score(Part, frozen=True, kw_only=True):
    """One candidate: its total (lower is better) and the parts, each weight x share, in thousandths."""

    deployment: Slug
    serving_operator: Slug
    total: Count
    price: Count = 0
    latency: Count = 0
    load: Count = 0
    carbon: Count = 0
    preference: Count = 0


class Rejected(Part, frozen=True, kw_only=True):
    """A candidate that a hard filter took out, and which."""

    deployment: Slug
    reason: Slug


# --- events ----------------------------------------------------------------------------------
@event("routing")
class CallRouted(Requested, frozen=True, kw_only=True):
    """Why this call went to this deployment, at that price."""

    account: AccountId
    model: Slug
    deployment: Slug
    serving_operator: Slug
    rate_card: Reference
    policy_version: Count = 0
    fallbacks: tuple[Slug, ...] = ()
    scores: tuple[Score, ...] = ()
    lease_expires_at: Instant


@event("routing")
class CallServed(Requested, frozen=True, kw_only=True):
    """What the serving operator recorded: outcome, time to first token, usage."""

    model: Slug
    deployment: Slug
    serving_operator: Slug
    outcome: Outcome
    usage: Usage = Usage()
    ttft_ms: Count | None = None


# --- commands --------------------------------------------------------------------------------
class RoutingCommand(Command, frozen=True, kw_only=True):
    operator: Slug
    call: RequestId
    occurred_at: Instant | None = None


@command("routing", "route")
class Route(RoutingCommand, frozen=True, kw_only=True):
    """Choose a deployment and lease its capacity. `tokens` is the largest the call may use."""

    account: AccountId
    model: Slug
    tokens: Tokens = 0
    input_tokens: Tokens = 0
    region: Reference = ""
    residency: tuple[Slug, ...] = ()
    exclude: tuple[Slug, ...] = ()
    price_cap: AmountOrZero | None = None
    lease_s: Count = 300


@command("routing", "report")
class Report(RoutingCommand, frozen=True, kw_only=True):
    """How the call went at `deployment`; ends the lease."""

    deployment: Slug
    outcome: Outcome
    usage: Usage = Usage()
    ttft_ms: Count | None = None
    detail: Text = ""
