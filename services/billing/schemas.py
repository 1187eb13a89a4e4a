"""The RPC methods of billing: what they take, give and refuse."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shared.contracts import billing as b
from shared.contracts.answers import Position, Receipt, execute
from shared.contracts.base import (
    AccountId,
    Answer,
    Command,
    Count,
    Fen,
    FenSum,
    Instant,
    Name,
    Period,
    Reference,
    Sha256,
    SignedFen,
    Slug,
    Text,
)
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


class Focus(Command, frozen=True, kw_only=True):
    """A period in FOCUS 1.2: its bills, then the credit notes issued in it, behind the number `after`, at most `limit`
    of both. Without an operator, of all."""

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


class UsageOf(Command, frozen=True, kw_only=True):
    """An account's usage in a period, by day and model, as followed up to now."""

    NAME = "usage"

    operator: Slug
    account: AccountId
    period: Period


# --- answers ---------------------------------------------------------------------------------
Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", description="`YYYY-MM-DD`, Shanghai's calendar")]
Pair = Annotated[str, Meta(pattern=r"^[^/]+/[^/]+\Z", description="`home/serving`")]


class RunAnswer(Answer, frozen=True, kw_only=True):
    """A bounded piece of a month's close. `position`: the log's, once it is stored."""

    period: Period
    quota_position: Count
    issued: Count
    remaining: Count
    position: Position


class BillRunAnswer(RunAnswer, frozen=True, kw_only=True):
    """Bills issued by this call and still `remaining`. `numbers`: first and last of this call, or none. `quota_log`:
    the log of which `quota_position` is a position."""

    operator: Slug
    quota_log: Slug
    numbers: Annotated[tuple[Reference, ...], Meta(max_length=2)]


class StatementRunAnswer(RunAnswer, frozen=True, kw_only=True):
    """Statements issued by this call and still `remaining`. `quota_positions`: the cut-offs, one for each shard of
    quota; `quota_position` is their sum."""

    quota_positions: tuple[Position, ...]
    statements: tuple[Pair, ...]


class DryRunAnswer(Answer, frozen=True, kw_only=True):
    """A bill without a number."""

    bill: b.Bill
    bill_sha256: Sha256


class Payment(Answer, frozen=True, kw_only=True):
    """A payment of a bill; negative, a refund."""

    at: Instant
    request_id: Name
    fen: SignedFen


class CreditNote(Answer, frozen=True, kw_only=True):
    """A credit note on a bill."""

    at: Instant
    number: Reference
    fen: Fen
    reason: Text


class BillAnswer(DryRunAnswer, frozen=True, kw_only=True):
    """An issued bill and what happened to it. due_fen = bill's total_fen - credited_fen - paid_fen."""

    issued_at: Instant
    position: Position
    payments: tuple[Payment, ...]
    credit_notes: tuple[CreditNote, ...]
    paid_fen: FenSum
    credited_fen: FenSum
    due_fen: FenSum


class BillHtml(Answer, frozen=True, kw_only=True):
    """A bill as a printable page."""

    html: str


class BillRow(Answer, frozen=True, kw_only=True):
    """An issued bill without its lines. `sha256`: its `bill_sha256`; `quota_position`: its cut-off in `quota_log`."""

    number: Reference
    operator: Slug
    account: AccountId
    period: Period
    issued_at: Instant
    total_fen: SignedFen
    vat_fen: SignedFen
    paid_fen: FenSum
    credited_fen: FenSum
    quota_position: Count
    quota_log: Slug
    sha256: Sha256


class BillList(Answer, frozen=True, kw_only=True):
    """Bills in order of their numbers; whether there are `more`."""

    bills: tuple[BillRow, ...]
    more: bool


class ChargeFileAnswer(Answer, frozen=True, kw_only=True):
    """`csv`: the file with header and control totals; how many charges and fen; the `last` bill's number in it."""

    csv: str
    count: Count
    sum_fen: FenSum
    last: Reference
    more: bool


class FocusAnswer(Answer, frozen=True, kw_only=True):
    """`csv`: a header and `count` rows, of none perhaps; `last`: the number behind which to go on while there is
    `more`."""

    csv: str
    count: Count
    last: Reference
    more: bool


class IssuedStatement(Answer, frozen=True, kw_only=True):
    """A statement, its hash, and its position in the log."""

    statement: b.Statement
    statement_sha256: Sha256
    position: Position


class StatementList(Answer, frozen=True, kw_only=True):
    """Statements in order of (home, serving); whether there are `more`."""

    statements: tuple[IssuedStatement, ...]
    more: bool


class Net(Answer, frozen=True, kw_only=True):
    """What is left between two operators after both directions are set off."""

    debtor: Slug
    creditor: Slug
    fen: Fen


class SettlementAnswer(Answer, frozen=True, kw_only=True):
    """`matrix[home][serving]`: fen that home owes serving; `netting`: one entry a pair; `balances`: what an operator
    receives (+) or pays (-) in all, which sums to zero."""

    period: Period
    matrix: dict[Slug, dict[Slug, Fen]]
    netting: tuple[Net, ...]
    balances: dict[Slug, FenSum]


class UsageDay(Answer, frozen=True, kw_only=True):
    """A day's usage of a model. `charged`: the part of `amount` that no grant had paid for."""

    day: Day
    model: Slug
    calls: Count
    usage: b.TokenSums
    amount: b.SignedAmount
    charged: b.SignedAmount


class UsageAnswer(Answer, frozen=True, kw_only=True):
    """Usage by day and model; `quota_position`: how far the account's log, `quota_log`, was followed."""

    days: tuple[UsageDay, ...]
    quota_position: Position
    quota_log: Slug


class Followed(Answer, frozen=True, kw_only=True):
    """How far the other logs are followed. `quota_shards`: each shard's of quota; `quota` is their sum."""

    quota: Position
    quota_shards: tuple[Position, ...]
    catalog: Position


class Status(Answer, frozen=True, kw_only=True):
    """`head` of billing's own log, and what it follows."""

    head: Position
    followed: Followed


METHODS: tuple[Method, ...] = (
    Method(
        "issue_bills",
        b.IssueBills,
        "What was issued. Repeat until `remaining` is 0; a call may issue fewer than `limit`.",
        BillRunAnswer,
        (MalformedCommand, UnknownOperator, PeriodOpen, NotCaughtUp, LimitExceeded, Conflict),
    ),
    Method(
        "dry_run",
        b.DryRun,
        "The bill as it would be, and its hash.",
        DryRunAnswer,
        (MalformedCommand, UnknownAccount),
    ),
    Method(
        "pay",
        b.Pay,
        "The receipt of the payment. A negative payment is a refund.",
        b.BillPaid,
        (MalformedCommand, UnknownBill, IdempotencyConflict, LimitExceeded, Conflict),
        receipt=Receipt,
    ),
    Method(
        "credit",
        b.Credit,
        "The receipt of the credit note with its `number`.",
        b.CreditNoteIssued,
        (MalformedCommand, UnknownBill, IdempotencyConflict, LimitExceeded, Conflict),
        receipt=Receipt,
    ),
    Method(
        "settle_period",
        b.SettlePeriod,
        "What was issued. Repeat until `remaining` is 0.",
        StatementRunAnswer,
        (MalformedCommand, PeriodOpen, NotCaughtUp, LimitExceeded, Conflict),
    ),
    execute(MalformedCommand, LimitExceeded, Conflict),
    Method("bill", BillOf, "The bill and its account.", BillAnswer, (MalformedCommand, UnknownBill)),
    Method("bill_page", BillPage, "The page.", BillHtml, (MalformedCommand, UnknownBill)),
    Method("bills", Bills, "A page of bills.", BillList, (MalformedCommand,)),
    Method("charge_file", ChargeFile, "The file.", ChargeFileAnswer, (MalformedCommand,)),
    Method("focus", Focus, "The rows.", FocusAnswer, (MalformedCommand,)),
    Method("statements", Statements, "A page of statements.", StatementList, (MalformedCommand,)),
    Method("settlement", Settlement, "Fen by operators.", SettlementAnswer, (MalformedCommand,)),
    Method("usage", UsageOf, "The days of the period.", UsageAnswer, (MalformedCommand, UnknownAccount)),
    Method("status", None, "How far billing has come.", Status),
)
