"""What can be asked of billing by RPC, besides its commands."""

from __future__ import annotations

from shared.contracts.base import (
    AccountId,
    Command,
    Count,
    Period,
    Reference,
    Slug,
)


class BillOf(Command, frozen=True, kw_only=True):
    """One bill, by its number."""

    NAME = "bill"

    number: Reference


class BillPage(BillOf, frozen=True, kw_only=True):
    """One bill as a page for people."""

    NAME = "bill_page"


class Bills(Command, frozen=True, kw_only=True):
    """Issued bills in order of their numbers, behind the number `after`."""

    NAME = "bills"

    operator: Slug | None = None
    account: AccountId | None = None
    period: Period | None = None
    after: Reference = ""
    limit: Count = 200


class DraftBills(Command, frozen=True, kw_only=True):
    """The bills that `issue_bills` would issue, at any time, for the accounts behind `after`; nothing is changed.

    Without `quota_position` they are cut off at what billing has followed by now.
    """

    NAME = "draft_bills"

    operator: Slug
    period: Period
    quota_position: Count | None = None
    quota_shard: Count = 0
    after: Reference = ""
    limit: Count = 200


class CloseStatus(Command, frozen=True, kw_only=True):
    """How far the close of a period has come, of one operator or of all that have accounts."""

    NAME = "close_status"

    period: Period
    operator: Slug | None = None


class ChargeFile(Command, frozen=True, kw_only=True):
    """The phone bill's charges of a period: the bills behind the number `after`, at most `limit`.

    And of the bills up to `after`, which may have been charged, those that were made void behind the position
    `voids_after` of billing's log, at most `limit`.
    """

    NAME = "charge_file"

    operator: Slug
    period: Period
    after: Reference = ""
    voids_after: Count = 0
    limit: Count = 1000


class Focus(Command, frozen=True, kw_only=True):
    """A period in FOCUS 1.2: its bills that stand, then the credit notes issued in it, behind the number `after`, at
    most `limit` of both. Without an operator, of all."""

    NAME = "focus"

    operator: Slug | None = None
    period: Period
    after: Reference = ""
    limit: Count = 200


class Statements(Command, frozen=True, kw_only=True):
    """Statements of a period in order of (home, serving), behind `after` (`home/serving`)."""

    NAME = "statements"

    period: Period
    after: Reference = ""
    limit: Count = 100


class Settlement(Command, frozen=True, kw_only=True):
    """Who owes whom for a period."""

    NAME = "settlement"

    period: Period


class SubscriptionsOf(Command, frozen=True, kw_only=True):
    """What an account has subscribed to."""

    NAME = "subscriptions"

    operator: Slug
    account: AccountId


class Renew(Command, frozen=True, kw_only=True):
    """Do now what is due of subscriptions: begin periods, order their points, settle those that ended. Billing does so
    by itself; whoever drives the clock asks for it."""

    NAME = "renew"


class UsageOf(Command, frozen=True, kw_only=True):
    """An account's usage in a period, by day and model, as followed up to now."""

    NAME = "usage"

    operator: Slug
    account: AccountId
    period: Period
