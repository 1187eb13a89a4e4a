"""Quota's published language: who may spend what.

An account's stream is `operator/account`; both are part of every record, so events do not repeat
them. Things are named by the request that made them: a grant, a reservation and a debit carry the
`request_id` of their command as their name, unique within the account.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from shared.contracts.base import (
    AccountId,
    Amount,
    AmountOrZero,
    Command,
    Count,
    Fen,
    Instant,
    Name,
    Rates,
    Reference,
    Requested,
    RequestId,
    Scope,
    Slug,
    Text,
    Tokens,
    Usage,
    command,
    event,
)

CREDIT = "credit"  # the pseudo-grant that stands for the credit limit in draws

GrantSource = Literal["purchase", "plan", "trial", "bundle", "promotion", "rollover", "adjustment"]


class Draw(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`[grant, amount]`: so many millipoints from (or back to) this grant."""

    grant: str
    amount: int


# --- events ----------------------------------------------------------------------------------
@event("quota")
class AccountOpened(Requested, frozen=True, kw_only=True):
    """A wallet at an operator. `credit_limit` above zero makes it (also) postpaid; `plan` is the offer whose
    price as you go holds for what no grant covers."""

    subscriber: Reference = ""
    plan: Reference = ""
    credit_limit: AmountOrZero = 0


@event("quota")
class PointsGranted(Requested, frozen=True, kw_only=True):
    """A lot of points with its provenance: source, plan, and the price paid for it.

    `subscription`: ordered by billing for a period of this subscription, whose fee has a bill line of its own.
    """

    amount: Amount
    source: GrantSource
    price_fen: Fen = 0
    scope: Scope = Scope()
    priority: Count = 50
    effective_at: Instant
    expires_at: Instant | None = None
    plan: Reference = ""
    plan_version: Count = 0
    origin: Reference = ""
    subscription: Reference = ""


@event("quota")
class GrantVoided(Requested, frozen=True, kw_only=True):
    """What was left of a grant was withdrawn."""

    grant: Name
    amount: AmountOrZero
    reason: Text = ""


@event("quota")
class GrantExpired(Requested, frozen=True, kw_only=True):
    """Breakage: what was left of a grant at its expiry."""

    grant: Name
    amount: AmountOrZero


@event("quota")
class PointsReserved(Requested, frozen=True, kw_only=True):
    """Points held for one call, drawn from named grants; the price is pinned."""

    call: Reference
    model: Slug
    rate_card: Reference
    amount: AmountOrZero
    draws: tuple[Draw, ...]
    expires_at: Instant
    max_usage: Usage | None = None
    final: bool = False
    max_output_tokens: Tokens | None = None


@event("quota")
class ReservationExtended(Requested, frozen=True, kw_only=True):
    """More points held for the same call."""

    reservation: Name
    amount: Amount
    draws: tuple[Draw, ...]
    expires_at: Instant


@event("quota")
class ReservationReleased(Requested, frozen=True, kw_only=True):
    """Nothing (more) was used: all that was still held went back (`draws`: where to)."""

    reservation: Name
    amount: AmountOrZero
    draws: tuple[Draw, ...] = ()
    reason: Text = ""


@event("quota")
class ReservationExpired(Requested, frozen=True, kw_only=True):
    """The time to live was over: all that was still held went back (`draws`: where to)."""

    reservation: Name
    amount: AmountOrZero
    draws: tuple[Draw, ...] = ()


@event("quota")
class TokensDebited(Requested, frozen=True, kw_only=True):
    """A call used tokens. amount = sum of usage x rates = sum of draws + overdrawn, exactly.

    `freed` is what left the hold, by grant: the part that paid for this debit, and, on a final
    settlement, what went back (`released` in sum). So no reader needs to know the reservation.
    """

    call: Reference
    model: Slug
    rate_card: Reference
    rates: Rates
    usage: Usage
    amount: AmountOrZero
    draws: tuple[Draw, ...]
    overdrawn: AmountOrZero = 0
    freed: tuple[Draw, ...] = ()
    released: AmountOrZero = 0
    reservation: Reference = ""
    final: bool = True
    late: bool = False
    deployment: Reference = ""
    serving_operator: Reference = ""


@event("quota")
class DebitReversed(Requested, frozen=True, kw_only=True):
    """Points given back, in reverse order of the draw. amount = sum of draws + overdrawn.

    `overdrawn`: how much less is owed. What came from a grant that has ended meanwhile is given back by a
    `PointsGranted` of source adjustment instead; `regranted` names those grants.
    """

    debit: Name
    model: Slug
    rate_card: Reference
    amount: Amount
    draws: tuple[Draw, ...]
    overdrawn: AmountOrZero = 0
    regranted: tuple[str, ...] = ()
    reason: Text = ""


@event("quota")
class CreditLimitSet(Requested, frozen=True, kw_only=True):
    credit_limit: AmountOrZero


@event("quota")
class AccountSuspended(Requested, frozen=True, kw_only=True):
    reason: Text = ""


@event("quota")
class AccountResumed(Requested, frozen=True, kw_only=True):
    """Open again."""


@event("quota")
class AccountClosed(Requested, frozen=True, kw_only=True):
    """For good. What was held is released with it."""


# --- commands --------------------------------------------------------------------------------
def _method(class_name: str) -> str:
    """The RPC method of a command: `OpenAccount` is `open_account`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class QuotaCommand(Command, frozen=True, kw_only=True, tag_field="command", tag=_method):
    """Every command names its account and carries a request_id: same request, same answer."""

    operator: Slug
    account: AccountId
    request_id: RequestId
    occurred_at: Instant | None = None


@command("quota", "open_account")
class OpenAccount(QuotaCommand, frozen=True, kw_only=True):
    subscriber: Reference = ""
    plan: Reference = ""
    credit_limit: AmountOrZero = 0


@command("quota", "grant")
class Grant(QuotaCommand, frozen=True, kw_only=True):
    amount: Amount
    source: GrantSource
    price_fen: Fen = 0
    scope: Scope = Scope()
    priority: Count = 50
    effective_at: Instant | None = None
    expires_at: Instant | None = None
    plan: Reference = ""
    plan_version: Count = 0
    subscription: Reference = ""

    def __post_init__(self) -> None:
        if self.request_id == CREDIT:
            raise ValueError(f"a grant cannot be named {CREDIT!r}: it stands for the credit limit in draws")
        start = self.effective_at or self.occurred_at
        if self.expires_at and start and self.expires_at <= start:
            raise ValueError("expires_at must be after effective_at")


@command("quota", "void_grant")
class VoidGrant(QuotaCommand, frozen=True, kw_only=True):
    grant: Name
    reason: Text = ""


@command("quota", "reserve")
class Reserve(QuotaCommand, frozen=True, kw_only=True):
    """Hold points for a call: exactly one of `amount` and `max_usage`."""

    model: Slug
    max_usage: Usage | None = None
    amount: Amount | None = None
    ttl_s: int = 300
    accept_partial: bool = False
    call: Reference = ""

    def __post_init__(self) -> None:
        if (self.max_usage is None) == (self.amount is None):
            raise ValueError("give exactly one of amount and max_usage")
        if not 1 <= self.ttl_s <= 86_400:
            raise ValueError("ttl_s must be from 1 to 86400")


@command("quota", "extend")
class Extend(QuotaCommand, frozen=True, kw_only=True):
    """Hold more for a call that goes on, and longer."""

    reservation: Name
    amount: Amount
    ttl_s: int = 300

    def __post_init__(self) -> None:
        if not 1 <= self.ttl_s <= 86_400:
            raise ValueError("ttl_s must be from 1 to 86400")


@command("quota", "settle")
class Settle(QuotaCommand, frozen=True, kw_only=True):
    """Charge real usage to a reservation. `final: false` while a stream goes on: its input belongs in the first part,
    as the rate card's tier is that of the input so far."""

    reservation: Name
    usage: Usage
    final: bool = True
    deployment: Reference = ""
    serving_operator: Reference = ""


@command("quota", "release")
class Release(QuotaCommand, frozen=True, kw_only=True):
    reservation: Name
    reason: Text = ""


@command("quota", "debit")
class Debit(QuotaCommand, frozen=True, kw_only=True):
    """One shot, without a hold."""

    model: Slug
    usage: Usage
    on_insufficient: Literal["refuse", "overdraw"] = "refuse"
    call: Reference = ""
    deployment: Reference = ""
    serving_operator: Reference = ""


@command("quota", "reverse")
class Reverse(QuotaCommand, frozen=True, kw_only=True):
    """Give back a debit, whole (no amount) or in part."""

    debit: Name
    amount: Amount | None = None
    reason: Text = ""


@command("quota", "set_credit_limit")
class SetCreditLimit(QuotaCommand, frozen=True, kw_only=True):
    credit_limit: AmountOrZero


@command("quota", "suspend")
class Suspend(QuotaCommand, frozen=True, kw_only=True):
    reason: Text = ""


@command("quota", "resume")
class Resume(QuotaCommand, frozen=True, kw_only=True):
    pass


@command("quota", "close_account")
class CloseAccount(QuotaCommand, frozen=True, kw_only=True):
    pass
