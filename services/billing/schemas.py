"""The RPC methods of billing: what they take, give and refuse."""

from __future__ import annotations

from shared.contracts import billing as b
from shared.contracts.base import AccountId, Command, Count, Period, Reference, Slug
from shared.contracts.methods import Method
from shared.errors import (
    Conflict,
    IdempotencyConflict,
    LimitExceeded,
    MalformedCommand,
    NotCaughtUp,
    PeriodOpen,
    UnknownAccount,
    UnknownBill,
    UnknownOperator,
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


class ChargeFile(Command, frozen=True, kw_only=True):
    """The phone bill's charges of a period: the bills behind the number `after`, at most `limit`."""

    NAME = "charge_file"

    operator: Slug
    period: Period
    after: Reference = ""
    limit: Count = 1000


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


class UsageOf(Command, frozen=True, kw_only=True):
    """An account's usage in a period, by day and model, as followed up to now."""

    NAME = "usage"

    operator: Slug
    account: AccountId
    period: Period


METHODS: tuple[Method, ...] = (
    Method(
        "issue_bills",
        b.IssueBills,
        "`issued`, `remaining`, `numbers` (first and last of this call, or none) and the log's `position`. "
        "Repeat until `remaining` is 0; a call may issue fewer than `limit`.",
        None,
        (MalformedCommand, UnknownOperator, PeriodOpen, NotCaughtUp, LimitExceeded, Conflict),
    ),
    Method(
        "dry_run",
        b.DryRun,
        "`bill`, without a number, and its `bill_sha256`.",
        b.Bill,
        (MalformedCommand, UnknownAccount),
    ),
    Method(
        "pay",
        b.Pay,
        "The receipt of the payment. A negative payment is a refund.",
        b.BillPaid,
        (MalformedCommand, UnknownBill, IdempotencyConflict, LimitExceeded, Conflict),
    ),
    Method(
        "credit",
        b.Credit,
        "The receipt of the credit note with its `number`.",
        b.CreditNoteIssued,
        (MalformedCommand, UnknownBill, IdempotencyConflict, LimitExceeded, Conflict),
    ),
    Method(
        "settle_period",
        b.SettlePeriod,
        "`issued`, `remaining`, `statements` (pairs `home/serving`) and the log's `position`. Repeat until "
        "`remaining` is 0.",
        None,
        (MalformedCommand, PeriodOpen, NotCaughtUp, LimitExceeded, Conflict),
    ),
    Method(
        "execute",
        None,
        "A batch of commands, each `{command, ...fields}`: one `{ok}` or `{error}` each, in order, one transaction.",
        None,
        (MalformedCommand, LimitExceeded),
    ),
    Method(
        "bill",
        BillOf,
        "`bill`, `bill_sha256`, `issued_at`, `position`, `payments`, `credit_notes`, `paid_fen`, `credited_fen`, "
        "`due_fen`.",
        b.Bill,
        (MalformedCommand, UnknownBill),
    ),
    Method("bill_page", BillPage, "`html`: the bill as a printable page.", None, (MalformedCommand, UnknownBill)),
    Method("bills", Bills, "`bills`, without their lines, and `more`.", None, (MalformedCommand,)),
    Method(
        "charge_file",
        ChargeFile,
        "`csv` with header and control totals, its `count` and `sum_fen`, the `last` number in it, and `more`.",
        None,
        (MalformedCommand,),
    ),
    Method("statements", Statements, "`statements` and `more`.", b.Statement, (MalformedCommand,)),
    Method("settlement", Settlement, "`matrix`, `netting`, `balances`, in fen.", None, (MalformedCommand,)),
    Method(
        "usage",
        UsageOf,
        "`days`: usage by day and model; `quota_position`: how far it was followed.",
        None,
        (MalformedCommand, UnknownAccount),
    ),
    Method("status", None, "`head` of billing's own log, and `followed` positions of quota and catalog."),
)
