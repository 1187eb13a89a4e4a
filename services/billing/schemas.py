"""The RPC methods of billing: what they take, give and refuse."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from services.billing.questions import (
    BillOf,
    BillPage,
    Bills,
    ChargeFile,
    Focus,
    Settlement,
    Statements,
    UsageOf,
)
from services.billing.schemas_closing import CLOSING_METHODS, DryRunAnswer
from services.billing.schemas_subscriptions import SUBSCRIPTION_METHODS
from shared.contracts import billing as b
from shared.contracts.answers import Position, Receipt, execute
from shared.contracts.base import (
    AccountId,
    Answer,
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
    BillSettled,
    BillVoid,
    Conflict,
    IdempotencyConflict,
    LimitExceeded,
    MalformedCommand,
    UnknownAccount,
    UnknownBill,
    UnknownOperator,
)

# --- answers ---------------------------------------------------------------------------------
Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", description="`YYYY-MM-DD`, Shanghai's calendar")]
BillStatus = Annotated[
    Literal["issued", "paid", "void"],
    Meta(description="`void`: it was made void; `paid`: nothing is due on it, or never was; else `issued`"),
]


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


class MadeVoid(Answer, frozen=True, kw_only=True):
    """When and why a bill was made void."""

    at: Instant
    request_id: Name
    reason: Text


class BillAnswer(DryRunAnswer, frozen=True, kw_only=True):
    """An issued bill and what happened to it. due_fen = bill's total_fen - credited_fen - paid_fen; 0 if it is void."""

    issued_at: Instant
    position: Position
    payments: tuple[Payment, ...]
    credit_notes: tuple[CreditNote, ...]
    void: MadeVoid | None
    status: BillStatus
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
    status: BillStatus


class BillList(Answer, frozen=True, kw_only=True):
    """Bills in order of their numbers; whether there are `more`."""

    bills: tuple[BillRow, ...]
    more: bool


class ChargeFileAnswer(Answer, frozen=True, kw_only=True):
    """`csv`: the file with header and control totals; how many charges and fen; the `last` bill's number in it; whether
    there are `more` charges. The same of what has become void: how many, fen, the `voids_last` position in billing's
    log, and `voids_more`. The next file begins behind both."""

    csv: str
    count: Count
    sum_fen: FenSum
    last: Reference
    more: bool
    voids: Count
    voids_sum_fen: FenSum
    voids_last: Position
    voids_more: bool


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
    *CLOSING_METHODS,
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
        "void",
        b.Void,
        "The receipt.",
        b.BillVoided,
        (MalformedCommand, UnknownBill, IdempotencyConflict, BillVoid, BillSettled, Conflict),
        receipt=Receipt,
    ),
    Method(
        "grant_credit",
        b.GrantCredit,
        "The receipt.",
        b.AccountCredited,
        (MalformedCommand, UnknownAccount, IdempotencyConflict, LimitExceeded, Conflict),
        receipt=Receipt,
    ),
    *SUBSCRIPTION_METHODS,
    execute(MalformedCommand, LimitExceeded, Conflict),
    Method("bill", BillOf, "The bill and its account.", BillAnswer, (MalformedCommand, UnknownBill)),
    Method("bill_page", BillPage, "The page.", BillHtml, (MalformedCommand, UnknownBill)),
    Method("bills", Bills, "A page of bills.", BillList, (MalformedCommand,)),
    Method("charge_file", ChargeFile, "The file.", ChargeFileAnswer, (MalformedCommand, UnknownOperator)),
    Method("focus", Focus, "The rows.", FocusAnswer, (MalformedCommand, UnknownOperator)),
    Method("statements", Statements, "A page of statements.", StatementList, (MalformedCommand,)),
    Method("settlement", Settlement, "Fen by operators.", SettlementAnswer, (MalformedCommand,)),
    Method("usage", UsageOf, "The days of the period.", UsageAnswer, (MalformedCommand, UnknownAccount)),
    Method("status", None, "How far billing has come.", Status),
)
