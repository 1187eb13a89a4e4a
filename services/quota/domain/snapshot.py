"""An account's state as bytes and back. Only facts are kept; what follows from them is made anew.

A snapshot is a shortcut through a stream of events and never a source of truth: `thaw` refuses bytes that are
not a sound account. Pure: it knows nothing of where the bytes are kept.
"""

from __future__ import annotations

from bisect import insort
from datetime import datetime

import msgspec

from services.quota.domain.account import Account, Grant, Hold, Status
from shared.contracts import quota as q

FORMAT = 3  # counted up whenever the structs below, or the events in them, change: older snapshots are then not read


class _Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    event: q.PointsGranted
    sequence: int
    reserved: int
    debited: int
    reversed: int
    expired: int
    voided: int
    void: bool


class _Hold(msgspec.Struct, frozen=True, array_like=True, gc=False):
    event: q.PointsReserved
    expires_at: datetime
    remaining: tuple[q.Draw, ...]  # in the order in which they pay
    expired: bool
    given: int


class _Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    version: int
    status: Status | None
    opened: q.AccountOpened | None
    credit_limit: int
    credit_reserved: int
    credit_debited: int
    overdrawn: int
    grants: tuple[_Grant, ...]
    holds: tuple[_Hold, ...]
    lapsed: tuple[_Hold, ...]
    reversals: dict[str, dict[str, int]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Account).decode


def freeze(account: Account) -> bytes:
    """The account's state; equal states have equal bytes."""
    return _encode(
        _Account(
            account.version,
            account.status,
            account.opened,
            account.credit_limit,
            account.credit_reserved,
            account.credit_debited,
            account.overdrawn,
            tuple(_grant(g) for g in account.grants.values()),
            tuple(_hold(h) for h in account.holds.values()),
            tuple(_hold(h) for h in account.lapsed.values()),
            account.reversals,
        )
    )


def thaw(state: bytes) -> Account:
    """The account that was frozen. Raises ValueError unless the bytes are an account whose books balance."""
    try:
        found = _decode(state)
    except (msgspec.DecodeError, RecursionError, OverflowError) as error:
        raise ValueError("no account's state") from error
    account = Account()
    account.version, account.status, account.opened = found.version, found.status, found.opened
    account.credit_limit, account.overdrawn = found.credit_limit, found.overdrawn
    account.credit_reserved, account.credit_debited = found.credit_reserved, found.credit_debited
    account.reversals = found.reversals
    for grant in found.grants:
        _thaw_grant(account, grant)
    for hold in found.holds:
        account.holds[hold.event.request_id] = _thaw_hold(hold)
    for hold in found.lapsed:
        account.lapsed[hold.event.request_id] = _thaw_hold(hold)
    _refuse_unsound(account)
    return account


def size(account: Account) -> int:
    """How many things a snapshot of the account has to tell of."""
    return len(account.grants) + len(account.holds) + len(account.lapsed) + len(account.reversals)


def _grant(g: Grant) -> _Grant:
    return _Grant(g.event, g.order[2], g.reserved, g.debited, g.reversed, g.expired, g.voided, g.void)


def _hold(h: Hold) -> _Hold:
    return _Hold(h.event, h.expires_at, tuple(q.Draw(*part) for part in h.remaining.items()), h.expired, h.given)


def _thaw_grant(account: Account, found: _Grant) -> None:
    grant = Grant(found.event, found.sequence)
    grant.reserve(found.reserved)
    grant.debit(found.debited)
    grant.give_back(found.reversed)
    grant.expire(found.expired)
    grant.withdraw(found.voided)
    grant.void = found.void
    account.grants[grant.name] = grant
    if grant.reserved or grant.available:
        insort(account._by_order, grant)


def _thaw_hold(found: _Hold) -> Hold:
    hold = Hold(found.event)
    hold.expires_at, hold.expired, hold.given = found.expires_at, found.expired, found.given
    hold.remaining = {draw.grant: draw.amount for draw in found.remaining}
    return hold


def _refuse_unsound(account: Account) -> None:
    """Raises ValueError unless what is held is what is reserved and nothing is negative: whatever wrote such bytes,
    it was not `freeze`."""
    reserved: dict[str, int] = {q.CREDIT: 0}
    for hold in account.holds.values():
        for name, amount in hold.remaining.items():
            reserved[name] = reserved.get(name, 0) + amount
            if amount < 0:
                raise ValueError("a hold of less than nothing")
    sums = [account.version, account.credit_limit, account.credit_debited, account.overdrawn]
    for grant in account.grants.values():
        sums += [grant.available, grant.reserved, grant.debited - grant.reversed, grant.reversed]
        sums += [grant.expired, grant.voided]
        if grant.reserved != reserved.pop(grant.name, 0):
            raise ValueError("a grant reserves what is not held")
    if reserved != {q.CREDIT: account.credit_reserved}:
        raise ValueError("holds of what there is not")
    if account.status is None or account.opened is None or min(sums) < 0:
        raise ValueError("books that do not balance")
