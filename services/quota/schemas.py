"""The contract of every RPC method of quota."""

from __future__ import annotations

from shared.contracts import quota as q
from shared.contracts.base import AccountId, Command, Count, Instant, Name, Reference, Requested, Slug
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
    """`at`: expiry is judged at this instant (now). `known_at`: as it had been recorded by then (now)."""

    operator: Slug
    account: AccountId
    at: Instant | None = None
    known_at: Instant | None = None


class Statement(Command, frozen=True, kw_only=True):
    """The account's events after version `after`, at most `limit`."""

    operator: Slug
    account: AccountId
    after: Count = 0
    limit: Count = 100


class Find(Command, frozen=True, kw_only=True):
    """What a request did: a grant, a reservation, a debit, by the name its request gave it."""

    operator: Slug
    account: AccountId
    name: Name


class Balances(Command, frozen=True, kw_only=True):
    """Accounts in order after `operator/account`, at most `limit`."""

    after: Reference = ""
    limit: Count = 500


class Sweep(Command, frozen=True, kw_only=True):
    """Expire what is due at `until` (now, and no later than now), at most `limit` things."""

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

_ALWAYS: tuple[type[TokengridError], ...] = (MalformedCommand, Conflict, Unavailable)
_ACCOUNT = (UnknownAccount, IdempotencyConflict, AccountClosed)
_RECEIPT = "Receipt: the event's fields, its `position` in the log, its `version`, and whether it was `replayed`."


def _command(struct: type[Command], event: type[Requested], *refusals: type[TokengridError]) -> Method:
    return Method(struct.NAME, struct, _RECEIPT, event, (*_ALWAYS, *refusals))


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
    Method(
        "execute",
        None,
        "`commands`: up to 8,192 objects, each with its method's name under `command` and that method's fields. "
        'One transaction. A list in the same order: `{"ok": receipt}` or '
        '`{"error": {"code", "message", "details"}}`; a refused command does not touch the others.',
        None,
        _ALWAYS,
    ),
    Method(
        "balance",
        Balance,
        "`status`, `available` over all models, `reserved`, `credit_limit`, `credit_left`, `overdrawn` (millipoints), "
        "and `grants`, each with what became of it.",
        None,
        (MalformedCommand, UnknownAccount),
    ),
    Method("statement", Statement, "`events`, oldest first, and `more`.", None, (MalformedCommand, UnknownAccount)),
    Method("find", Find, "The event that the request made, or none.", None, (MalformedCommand, UnknownAccount)),
    Method(
        "balances",
        Balances,
        "`accounts` with the books of each grant from the read model, the log `position` they stand at, and `more`.",
        None,
        (MalformedCommand,),
    ),
    Method(
        "sweep",
        Sweep,
        "`expired_reservations`, `expired_grants`, and `remaining`: whether there may be more.",
        None,
        _ALWAYS,
    ),
    Method("status", None, "`head`, and how far the catalogue and the read model are followed."),
)
