"""The contract of every RPC method of quota."""

from __future__ import annotations

from typing import Literal

from shared.contracts import quota as q
from shared.contracts.answers import AccountReceipt, Position, RecordedEvent, Shard, Version, execute
from shared.contracts.base import (
    AccountId,
    Amount,
    AmountOrZero,
    AmountSum,
    Answer,
    Command,
    Count,
    Instant,
    Name,
    Reference,
    Requested,
    Slug,
)
from shared.contracts.methods import Method
from shared.errors import (
    AccountClosed,
    AccountExists,
    AccountSuspended,
    Conflict,
    IdempotencyConflict,
    InsufficientQuota,
    LimitExceeded,
    MalformedCommand,
    NoRateInForce,
    ReservationEnded,
    ReversalExceedsDebit,
    TokengridError,
    Unavailable,
    UnknownAccount,
    UnknownDebit,
    UnknownGrant,
    UnknownModel,
    UnknownOperator,
    UnknownPlan,
    UnknownReservation,
)


class Balance(Command, frozen=True, kw_only=True):
    """The books now, or as of a past instant. `at`: what had happened by then, by event time, however late it was
    recorded, and expiry judged at it; an instant to come judges expiry only. `known_at`: of what had been recorded
    by then. Both: what was known then of what had happened by then."""

    NAME = "balance"

    operator: Slug
    account: AccountId
    at: Instant | None = None
    known_at: Instant | None = None


class Statement(Command, frozen=True, kw_only=True):
    """The account's events by version, oldest first, or newest first: those after version `after` and before version
    `before`, that happened (event time) at `since` or later and earlier than `until`, and had been recorded by
    `known_at`; at most `limit`. For the next page give `next` as `after`, or, newest first, as `before`."""

    NAME = "statement"

    operator: Slug
    account: AccountId
    after: Count = 0
    before: Version | None = None
    since: Instant | None = None
    until: Instant | None = None
    known_at: Instant | None = None
    newest_first: bool = False
    limit: Count = 100

    def __post_init__(self) -> None:
        if self.before is not None and self.before <= self.after:
            raise ValueError("before must be above after")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("until must be after since")


class Find(Command, frozen=True, kw_only=True):
    """What a request did: a grant, a reservation, a debit, by the name its request gave it."""

    NAME = "find"

    operator: Slug
    account: AccountId
    name: Name


class Balances(Command, frozen=True, kw_only=True):
    """A shard's accounts in order after `operator/account`, at most `limit`."""

    NAME = "balances"

    shard: Shard = 0
    after: Reference = ""
    limit: Count = 500


class Sweep(Command, frozen=True, kw_only=True):
    """Expire what is due at `until` (now, and no later than now), at most `limit` things."""

    NAME = "sweep"

    operator: Slug | None = None
    until: Instant | None = None
    limit: Count = 500


QUERIES: dict[str, type[Command]] = {
    "balance": Balance,
    "statement": Statement,
    "find": Find,
    "balances": Balances,
    "sweep": Sweep,
}

# --- answers ---------------------------------------------------------------------------------
AccountStatus = Literal["open", "suspended", "closed"]


class GrantBooks(Answer, frozen=True, kw_only=True):
    """A grant and what became of it: available = granted - reserved - debited + reversed - expired - voided."""

    grant: Name
    source: q.GrantSource
    plan: Reference
    granted: Amount
    available: AmountOrZero
    reserved: AmountOrZero
    debited: AmountSum
    reversed: AmountSum
    expired: AmountSum
    voided: AmountSum
    ended: bool
    expires_at: Instant | None


class BalanceAnswer(Answer, frozen=True, kw_only=True):
    """An account's books. `available`: over grants for any model, and what is left of the credit limit, less what is
    overdrawn; it and `credit_left` may be negative."""

    operator: Slug
    account: AccountId
    status: AccountStatus
    version: Version
    available: AmountSum
    reserved: AmountSum
    credit_limit: AmountOrZero
    credit_left: AmountSum
    overdrawn: AmountSum
    grants: tuple[GrantBooks, ...]


class StatementAnswer(Answer, frozen=True, kw_only=True):
    """A page of an account's events; whether there may be `more`, and the cursor to go on with (null: no more). Where
    few events of a long history are in the bounds, a page may hold fewer than `limit`, even none, and go on."""

    events: tuple[RecordedEvent, ...]
    more: bool
    next: Version | None


class Found(Answer, frozen=True, kw_only=True):
    """The event that the request made; null where there is none."""

    event: RecordedEvent | None


class GrantSums(Answer, frozen=True, kw_only=True):
    """What became of a grant, from the read model. The credit limit's, under `credit`, has nothing granted."""

    granted: AmountSum
    reserved: AmountSum
    debited: AmountSum
    reversed: AmountSum
    expired: AmountSum
    voided: AmountSum


class AccountRow(Answer, frozen=True, kw_only=True):
    """An account, from the read model; its grants by name."""

    operator: Slug
    account: AccountId
    status: AccountStatus
    version: Version
    credit_limit: AmountOrZero
    overdrawn: AmountSum
    grants: dict[Name, GrantSums]


class BalanceList(Answer, frozen=True, kw_only=True):
    """Accounts, the `position` of their shard's log they stand at, and whether there may be `more`."""

    accounts: tuple[AccountRow, ...]
    position: Position
    more: bool


class Swept(Answer, frozen=True, kw_only=True):
    """How many things expired. `remaining`: whether there may be more."""

    expired_reservations: Count
    expired_grants: Count
    remaining: bool


class Followed(Answer, frozen=True, kw_only=True):
    """How far the catalogue and, by the read model, quota's own log are followed."""

    catalog: Position
    quota: Position


class ShardStatus(Answer, frozen=True, kw_only=True):
    """A shard: what its `log` is called, the log's `head`, what is followed, how many accounts are in memory."""

    log: Slug
    head: Position
    followed: Followed
    accounts_cached: Count


class Status(Answer, frozen=True, kw_only=True):
    """Every shard, and all of them together: events and accounts are added up, of the catalogue's positions the least
    counts."""

    head: Position
    followed: Followed
    accounts_cached: Count
    shards: tuple[ShardStatus, ...]


# --- methods ---------------------------------------------------------------------------------
_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Conflict, Unavailable)
_ACCOUNT = (UnknownAccount, IdempotencyConflict, AccountClosed)
_RECEIPT = "Receipt: the event's fields, its `position` in the log, its `version`, and whether it was `replayed`."


def _command(struct: type[Command], event: type[Requested], *refusals: type[TokengridError]) -> Method:
    return Method(struct.NAME, struct, _RECEIPT, event, (*_ALWAYS, *refusals), receipt=AccountReceipt)


METHODS: tuple[Method, ...] = (
    _command(q.OpenAccount, q.AccountOpened, UnknownOperator, IdempotencyConflict, AccountExists, UnknownPlan),
    _command(q.Grant, q.PointsGranted, *_ACCOUNT, UnknownPlan, LimitExceeded),
    _command(q.VoidGrant, q.GrantVoided, *_ACCOUNT, UnknownGrant),
    _command(
        q.Reserve,
        q.PointsReserved,
        *_ACCOUNT,
        AccountSuspended,
        UnknownModel,
        NoRateInForce,
        InsufficientQuota,
        LimitExceeded,
    ),
    _command(
        q.Extend,
        q.ReservationExtended,
        *_ACCOUNT,
        AccountSuspended,
        UnknownReservation,
        ReservationEnded,
        InsufficientQuota,
        LimitExceeded,
    ),
    _command(q.Settle, q.TokensDebited, *_ACCOUNT, UnknownReservation, ReservationEnded, LimitExceeded),
    _command(q.Release, q.ReservationReleased, *_ACCOUNT, UnknownReservation, ReservationEnded),
    _command(
        q.Debit,
        q.TokensDebited,
        *_ACCOUNT,
        AccountSuspended,
        UnknownModel,
        NoRateInForce,
        InsufficientQuota,
        LimitExceeded,
    ),
    _command(q.Reverse, q.DebitReversed, *_ACCOUNT, UnknownDebit, ReversalExceedsDebit, LimitExceeded),
    _command(q.SetCreditLimit, q.CreditLimitSet, *_ACCOUNT),
    _command(q.Suspend, q.AccountSuspended, *_ACCOUNT),
    _command(q.Resume, q.AccountResumed, *_ACCOUNT),
    _command(q.CloseAccount, q.AccountClosed, *_ACCOUNT),
    execute(*_ALWAYS, LimitExceeded),
    Method("balance", Balance, "The account's books.", BalanceAnswer, (MalformedCommand, UnknownAccount)),
    Method(
        "statement", Statement, "A page of the account's events.", StatementAnswer, (MalformedCommand, UnknownAccount)
    ),
    Method("find", Find, "The event, or none.", Found, (MalformedCommand,)),
    Method("balances", Balances, "A page of accounts.", BalanceList, (MalformedCommand,)),
    Method("sweep", Sweep, "What was done.", Swept, _ALWAYS),
    Method("status", None, "How far quota has come.", Status),
)
