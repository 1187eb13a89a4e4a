"""The RPC methods of a month's close: runs, drafts and how far they have come. A part of `schemas`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from services.billing.questions import CloseStatus, DraftBills
from shared.contracts import billing as b
from shared.contracts.answers import Position
from shared.contracts.base import (
    Answer,
    Count,
    FenSum,
    Period,
    Reference,
    Sha256,
    Slug,
)
from shared.contracts.methods import Method
from shared.errors import (
    Conflict,
    LimitExceeded,
    MalformedCommand,
    NotCaughtUp,
    PeriodOpen,
    UnknownAccount,
    UnknownOperator,
)

# --- answers ---------------------------------------------------------------------------------
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


class DraftList(Answer, frozen=True, kw_only=True):
    """Drafts in order of account names; the `last` account among them; whether there are `more`. `quota_position`: the
    cut-off in `quota_log`."""

    operator: Slug
    period: Period
    quota_log: Slug
    quota_position: Position
    drafts: tuple[DryRunAnswer, ...]
    last: Reference
    more: bool


class ShardClose(Answer, frozen=True, kw_only=True):
    """The accounts of one shard of quota that have a bill for the period, or are to get one.

    `cut_off`: of the bill that was issued last, to go on with; 0 where none stands. `followed`: how far billing has
    followed `quota_log`. `accounts` = `billed` + `remaining`, those that are without a bill as of the cut-off, or as of
    now where there is none; `late`: accounts without a bill of which the period
    became known behind the cut-off.
    """

    quota_log: Slug
    followed: Position
    cut_off: Position
    accounts: Count
    billed: Count
    remaining: Count
    late: Count


class OperatorClose(Answer, frozen=True, kw_only=True):
    """An operator's bills that stand, how many are void, and its accounts by shard of quota."""

    operator: Slug
    bills: Count
    void: Count
    total_fen: FenSum
    vat_fen: FenSum
    shards: tuple[ShardClose, ...]


class CloseStatusAnswer(Answer, frozen=True, kw_only=True):
    """Operators by name; how many statements were issued, and the cut-offs of the last one, by shard of quota."""

    period: Period
    operators: tuple[OperatorClose, ...]
    statements: Count
    statement_cut_offs: tuple[Position, ...]


CLOSING_METHODS: tuple[Method, ...] = (
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
        "settle_period",
        b.SettlePeriod,
        "What was issued. Repeat until `remaining` is 0.",
        StatementRunAnswer,
        (MalformedCommand, PeriodOpen, NotCaughtUp, LimitExceeded, Conflict),
    ),
    Method(
        "draft_bills",
        DraftBills,
        "A page of drafts, each with its hash.",
        DraftList,
        (MalformedCommand, UnknownOperator, NotCaughtUp),
    ),
    Method(
        "close_status",
        CloseStatus,
        "Operators and statements.",
        CloseStatusAnswer,
        (MalformedCommand, UnknownOperator),
    ),
)
