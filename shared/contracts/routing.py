"""Routing's published language: where a call runs, and how it went. A call's stream is `operator/call`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shared.contracts.base import (
    AccountId,
    AmountOrZero,
    Command,
    Count,
    Instant,
    Part,
    Rates,
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
LeaseSeconds = Annotated[int, Meta(ge=1, le=3600, description="seconds until an unreported call's capacity comes back")]
Names = Annotated[tuple[Slug, ...], Meta(max_length=16, description="at most 16 names")]


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
    """Why this call went to this deployment, at that price. `request_id` is the call.

    `rates` are those of `rate_card` for the announced input at `at`; `tariff` is the wholesale agreement, empty
    at home. `tokens` is what was leased until `lease_expires_at`. `policy_version` 0: no policy was published.
    """

    account: AccountId
    model: Slug
    deployment: Slug
    serving_operator: Slug
    rate_card: Reference
    rates: Rates = Rates()
    tariff: Reference = ""
    policy_version: Count = 0
    region: Reference = ""
    tokens: Tokens = 0
    excluded: tuple[Slug, ...] = ()
    fallbacks: tuple[Slug, ...] = ()
    scores: tuple[Score, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    lease_expires_at: Instant


@event("routing")
class CallServed(Requested, frozen=True, kw_only=True):
    """What the serving operator recorded: outcome, time to first token, usage. `request_id` is the call."""

    model: Slug
    deployment: Slug
    serving_operator: Slug
    outcome: Outcome
    usage: Usage = Usage()
    ttft_ms: Count | None = None
    detail: Text = ""


# --- commands --------------------------------------------------------------------------------
class RoutingCommand(Command, frozen=True, kw_only=True):
    operator: Slug
    call: RequestId
    occurred_at: Instant | None = None


@command("routing", "route")
class Route(RoutingCommand, frozen=True, kw_only=True):
    """Choose a deployment and lease its capacity. `tokens` is the largest the call may use.

    `residency`: labels its data centre must all carry. `exclude`: deployments not to use, such as one that
    just failed; the same call with other exclusions is another request. `price_cap`: the most that the call
    may cost, to the subscriber or wholesale. `region`: where the user is; empty, the operator's home.
    """

    account: AccountId
    model: Slug
    tokens: Tokens = 0
    input_tokens: Tokens = 0
    region: Reference = ""
    residency: Names = ()
    exclude: Names = ()
    price_cap: AmountOrZero | None = None
    lease_s: LeaseSeconds = 300


@command("routing", "report")
class Report(RoutingCommand, frozen=True, kw_only=True):
    """How the call went at `deployment`; ends the lease."""

    deployment: Slug
    outcome: Outcome
    usage: Usage = Usage()
    ttft_ms: Count | None = None
    detail: Text = ""
