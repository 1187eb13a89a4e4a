"""Billing's published language: what it costs in money, and which plans a subscriber has taken.

Streams: `bill:number`, `statement:home/serving/period`, `subscriptions:operator/account`, `credits:operator/account`,
`trial:operator/plan/who`. A bill is hashed over its canonical JSON (`bill_sha256`): sorted keys, no spaces, UTF-8.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from shared.contracts.base import (
    AccountId,
    Command,
    Count,
    Event,
    Fen,
    Instant,
    Part,
    Percent,
    Period,
    Reference,
    Requested,
    RequestId,
    SignedFen,
    Slug,
    Text,
    command,
    event,
)
from shared.units import AMOUNT_MAX

LineKind = Literal[
    "plan_fee",
    "discount",
    "bundle",
    "plan_credit",
    "purchase",
    "trial",
    "usage",
    "late_usage",
    "cap",
    "commitment",
    "credit",
]
DayOrNone = Annotated[
    str,
    Meta(
        pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?\Z", description="`YYYY-MM-DD` in Shanghai; empty where there is none"
    ),
]
Residual = Annotated[str, Meta(pattern=r"^-?[0-9]+/[0-9]+\Z", description="exact fen minus charged fen, as a fraction")]


SignedAmount = Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="millipoints")]


class TokenSums(Part, frozen=True, kw_only=True):
    """Tokens by class, added up: unlike one call's `Usage`, a month's sum may exceed a thousand million."""

    input: Count = 0
    cached_input: Count = 0
    cache_write: Count = 0
    output: Count = 0

    @property
    def total(self) -> int:
        return self.input + self.cached_input + self.cache_write + self.output


class BillLine(Part, frozen=True, kw_only=True):
    """One line: computed exactly, rounded once (half away from zero); what rounding took is `residual`.

    `amount`: millipoints granted or debited; `charged`: the part of it that no grant had paid for. `from_day`,
    `to_day`: the first and the last day that a plan's fee is for, or is given back for.
    """

    kind: LineKind
    text: Text
    fen: SignedFen
    model: Reference = ""
    plan: Reference = ""
    plan_version: Count = 0
    subscription: Reference = ""
    from_day: DayOrNone = ""
    to_day: DayOrNone = ""
    rate_card: Reference = ""
    calls: Count = 0
    usage: TokenSums = TokenSums()
    amount: SignedAmount = 0
    charged: SignedAmount = 0
    residual: Residual = "0/1"


class Bill(Part, frozen=True, kw_only=True):
    """What a subscriber owes for a period. total_fen = sum of the lines; VAT is included and shown.

    `quota_position` is the cut-off, a position of the log `quota_log`, which has the account; `billing_position` is the
    cut-off in billing's own log: what subscriptions cost, and credits.
    """

    number: Reference
    operator: Slug
    account: AccountId
    period: Period
    currency: Literal["CNY"] = "CNY"
    lines: tuple[BillLine, ...]
    total_fen: SignedFen
    vat_percent: Percent
    vat_fen: SignedFen
    calls: Count
    tokens: Count
    debited: SignedAmount
    quota_position: Count
    quota_log: Slug = "quota"
    catalog_position: Count
    billing_position: Count = 0


class StatementLine(Part, frozen=True, kw_only=True):
    """Wholesale for one model: by the tariff in force, computed exactly, rounded once."""

    model: Slug
    tariff: Reference
    calls: Count
    usage: TokenSums
    amount: SignedAmount
    gross_fen: Fen
    discount_fen: Fen
    net_fen: Fen


class Statement(Part, frozen=True, kw_only=True):
    """What `home` owes `serving` for a period.

    `quota_position` is the cut-off in quota's log. Where quota has several, `quota_positions` has the cut-off of each
    shard's, and `quota_position` is their sum.
    """

    home: Slug
    serving: Slug
    period: Period
    lines: tuple[StatementLine, ...]
    calls: Count
    gross_fen: Fen
    discount_fen: Fen
    net_fen: Fen
    quota_position: Count
    quota_positions: tuple[Count, ...] = ()


# --- events ----------------------------------------------------------------------------------
@event("billing")
class BillIssued(Event, frozen=True, kw_only=True):
    bill: Bill
    bill_sha256: Text


@event("billing")
class BillPaid(Requested, frozen=True, kw_only=True):
    number: Reference
    fen: SignedFen


@event("billing")
class CreditNoteIssued(Requested, frozen=True, kw_only=True):
    """A correction: an issued bill is never changed."""

    number: Reference
    bill_number: Reference
    fen: Fen
    reason: Text


@event("billing")
class BillVoided(Requested, frozen=True, kw_only=True):
    """Nothing is due on it and it carries nothing: the account's next bill for the period takes its place."""

    number: Reference
    reason: Text


@event("billing")
class AccountCredited(Requested, frozen=True, kw_only=True):
    """Money in the subscriber's favour; the next bills take it off what they come to, until it is used up."""

    fen: Fen
    reason: Text


@event("billing")
class StatementIssued(Event, frozen=True, kw_only=True):
    statement: Statement
    statement_sha256: Text


# --- commands --------------------------------------------------------------------------------
@command("billing", "issue_bills")
class IssueBills(Command, frozen=True, kw_only=True):
    """Issue the period's missing bills of one operator, at most `limit`; repeat until `remaining` is 0.

    `quota_position` is the cut-off: billing must have followed quota's log that far. Where quota has several shards,
    each is billed by itself: the accounts of `quota_shard`, cut off at a position of its log.
    """

    operator: Slug
    period: Period
    quota_position: Count
    quota_shard: Count = 0
    limit: Count = 200
    occurred_at: Instant | None = None


@command("billing", "dry_run")
class DryRun(Command, frozen=True, kw_only=True):
    """The bill of an account as it would be now; nothing is changed."""

    operator: Slug
    account: AccountId
    period: Period


@command("billing", "pay")
class Pay(Command, frozen=True, kw_only=True):
    request_id: RequestId
    number: Reference
    fen: SignedFen
    occurred_at: Instant | None = None


@command("billing", "credit")
class Credit(Command, frozen=True, kw_only=True):
    """Issue a credit note on an issued bill; never more than the bill, over all its notes."""

    request_id: RequestId
    number: Reference
    fen: Fen
    reason: Text
    occurred_at: Instant | None = None


@command("billing", "void")
class Void(Command, frozen=True, kw_only=True):
    """Make an issued bill void, of which nothing was paid or credited: the account can then be billed anew."""

    request_id: RequestId
    number: Reference
    reason: Text
    occurred_at: Instant | None = None


class AccountCommand(Command, frozen=True, kw_only=True):
    """Of one account: same request, same answer."""

    operator: Slug
    account: AccountId
    request_id: RequestId
    occurred_at: Instant | None = None


@command("billing", "grant_credit")
class GrantCredit(AccountCommand, frozen=True, kw_only=True):
    """Give money in the subscriber's favour, for the next bills."""

    fen: Fen
    reason: Text


@command("billing", "settle_period")
class SettlePeriod(Command, frozen=True, kw_only=True):
    """Issue the statements between all pairs of operators for a period.

    The cut-off is `quota_position` or, one for each shard of quota, `quota_positions`.
    """

    period: Period
    quota_position: Count | None = None
    quota_positions: tuple[Count, ...] = ()
    occurred_at: Instant | None = None
