"""What a command does to an account: one pure function each, from state and command to events.

A refusal raises and changes nothing. Errors are raised in their order of precedence
(`shared.errors.PRECEDENCE`). Time, the catalogue and records of the past come in by `Context`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from services.quota.domain.account import Account, Hold
from services.quota.domain.burndown import draw, merged
from shared.catalogue.view import CatalogueView, applicable_rates
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import (
    AccountClosed,
    AccountExists,
    AccountSuspended,
    InsufficientQuota,
    LimitExceeded,
    ReservationEnded,
    ReversalExceedsDebit,
    UnknownAccount,
    UnknownDebit,
    UnknownGrant,
    UnknownReservation,
)
from shared.units import AMOUNT_MAX

GRANTS_MAX = 10_000  # live grants of one account: each debit walks them
HOLDS_MAX = 10_000  # calls in flight of one account


class Context(NamedTuple):
    """What a decision may know besides the account."""

    at: datetime
    recorded_at: datetime
    fingerprint: str
    catalogue: CatalogueView
    find: Callable[[str], Event | None]  # the account's event made by a request_id

    def stamp(self, command: q.QuotaCommand) -> dict[str, Any]:
        """The fields that every event of this command has."""
        return {
            "at": self.at,
            "recorded_at": self.recorded_at,
            "request_id": command.request_id,
            "fingerprint": self.fingerprint,
        }


class ExpireReservation(q.QuotaCommand, frozen=True, kw_only=True):
    """Asked by the sweep, never by a client."""

    reservation: str


class ExpireGrant(q.QuotaCommand, frozen=True, kw_only=True):
    """Asked by the sweep, never by a client."""

    grant: str


Decision = Callable[[Any, Account, Context], list[Event]]


def decide(command: q.QuotaCommand, account: Account, context: Context) -> list[Event]:
    """What happens to the account. Raises a TokengridError if the command is refused."""
    name = f"{command.operator}/{command.account}"
    if isinstance(command, q.OpenAccount):
        return open_account(command, account, context)
    if account.status is None:
        raise UnknownAccount(f"no account {name}", {"operator": command.operator, "account": command.account})
    if account.status == "closed" and not isinstance(command, ExpireGrant):
        raise AccountClosed(f"account {name} is closed")
    if account.status == "suspended" and _spends(command):
        raise AccountSuspended(f"account {name} is suspended")
    return DECISIONS[type(command)](command, account, context)


def _spends(command: q.QuotaCommand) -> bool:
    """What a suspended account may not do. Usage that happened is never lost: settle and overdraw stay."""
    if isinstance(command, q.Debit):
        return command.on_insufficient == "refuse"
    return isinstance(command, q.Reserve | q.Extend)


# --- the account -------------------------------------------------------------------------------
def open_account(command: q.OpenAccount, account: Account, context: Context) -> list[Event]:
    context.catalogue.operator(command.operator, context.at)
    if account.status is not None:
        raise AccountExists(f"account {command.operator}/{command.account} exists")
    if command.plan:
        context.catalogue.plan(command.operator, command.plan, context.at)
    return [
        q.AccountOpened(
            **context.stamp(command),
            subscriber=command.subscriber,
            plan=command.plan,
            credit_limit=command.credit_limit,
        )
    ]


def set_credit_limit(command: q.SetCreditLimit, _: Account, context: Context) -> list[Event]:
    return [q.CreditLimitSet(**context.stamp(command), credit_limit=command.credit_limit)]


def suspend(command: q.Suspend, _: Account, context: Context) -> list[Event]:
    return [q.AccountSuspended(**context.stamp(command), reason=command.reason)]


def resume(command: q.Resume, _: Account, context: Context) -> list[Event]:
    return [q.AccountResumed(**context.stamp(command))]


def close_account(command: q.CloseAccount, account: Account, context: Context) -> list[Event]:
    stamp = context.stamp(command)
    releases = [
        q.ReservationReleased(
            **{**stamp, "request_id": f"{command.request_id}/{index}"},
            reservation=name,
            amount=hold.amount,
            draws=_remaining(hold),
            reason="account closed",
        )
        for index, (name, hold) in enumerate(account.holds.items())
        if not hold.expired
    ]
    return [q.AccountClosed(**stamp), *releases]


# --- grants ------------------------------------------------------------------------------------
def grant(command: q.Grant, account: Account, context: Context) -> list[Event]:
    if command.plan and command.plan_version:
        context.catalogue.plan_version(command.operator, command.plan, command.plan_version)
    elif command.plan:
        context.catalogue.plan(command.operator, command.plan, context.at)
    if len(account.grants) >= GRANTS_MAX:
        raise LimitExceeded(f"an account has at most {GRANTS_MAX} grants", {"limit": GRANTS_MAX})
    if sum(g.available + g.reserved for g in account.grants.values()) + command.amount > AMOUNT_MAX:
        raise LimitExceeded(f"an account holds at most {AMOUNT_MAX} millipoints", {"limit": AMOUNT_MAX})
    return [
        q.PointsGranted(
            **context.stamp(command),
            amount=command.amount,
            source=command.source,
            price_fen=command.price_fen,
            scope=command.scope,
            priority=command.priority,
            effective_at=command.effective_at or context.at,
            expires_at=command.expires_at,
            plan=command.plan,
            plan_version=command.plan_version,
        )
    ]


def void_grant(command: q.VoidGrant, account: Account, context: Context) -> list[Event]:
    found = account.grants.get(command.grant)
    if found is None:
        raise UnknownGrant(f"no grant {command.grant!r}", {"grant": command.grant})
    return [q.GrantVoided(**context.stamp(command), grant=command.grant, amount=found.available, reason=command.reason)]


def expire_grant(command: ExpireGrant, account: Account, context: Context) -> list[Event]:
    found = account.grants.get(command.grant)
    if found is None or found.available <= 0 or not found.ended(context.at):
        return []
    if found.void:  # something held came back after it was voided
        return [q.GrantVoided(**context.stamp(command), grant=command.grant, amount=found.available)]
    return [q.GrantExpired(**context.stamp(command), grant=command.grant, amount=found.available)]


# --- the life of a call --------------------------------------------------------------------------
def reserve(command: q.Reserve, account: Account, context: Context) -> list[Event]:
    model = context.catalogue.model(command.model, context.at)
    rate_card, card = context.catalogue.rate_card(command.operator, command.model, context.at)
    if len(account.holds) >= HOLDS_MAX:
        raise LimitExceeded(f"an account has at most {HOLDS_MAX} reservations", {"limit": HOLDS_MAX})
    available = account.available(model.model, model.family, context.at)
    output_max: int | None = None
    final = False
    if command.max_usage is not None:
        rates = applicable_rates(card, command.max_usage, context.at)
        required = rates.price(command.max_usage)
        if required > available and command.accept_partial and rates.output:
            given = rates.price(msgspec.structs.replace(command.max_usage, output=0))
            output_max = max(available - given, 0) // rates.output
            if output_max > 0:
                required, final = given + output_max * rates.output, True
    else:
        assert command.amount is not None, "the command's own check"
        required = command.amount
        if required > available > 0 and command.accept_partial:
            required, final = available, True
    _refuse_unless(available >= required, available, required)
    draws, short = draw(account, model.model, model.family, context.at, required)
    assert short == 0, "what is available can be drawn"
    return [
        q.PointsReserved(
            **context.stamp(command),
            call=command.call or command.request_id,
            model=command.model,
            rate_card=rate_card,
            amount=required,
            draws=draws,
            expires_at=context.at + timedelta(seconds=command.ttl_s),
            max_usage=command.max_usage,
            final=final,
            max_output_tokens=output_max if final else None,
        )
    ]


def extend(command: q.Extend, account: Account, context: Context) -> list[Event]:
    hold = _hold(command.reservation, account, context)
    if hold.expired or hold.expires_at <= context.at:
        raise ReservationEnded(f"reservation {command.reservation!r} has expired")
    model = context.catalogue.model(hold.event.model, hold.reserved_at)
    available = account.available(model.model, model.family, context.at)
    _refuse_unless(available >= command.amount, available, command.amount)
    draws, _ = draw(account, model.model, model.family, context.at, command.amount)
    return [
        q.ReservationExtended(
            **context.stamp(command),
            reservation=command.reservation,
            amount=command.amount,
            draws=draws,
            expires_at=max(hold.expires_at, context.at + timedelta(seconds=command.ttl_s)),
        )
    ]


def settle(command: q.Settle, account: Account, context: Context) -> list[Event]:
    """Charge the usage: from the hold, then from other grants, then credit; what is left is owed."""
    hold = _hold(command.reservation, account, context)
    event = hold.event
    rates = applicable_rates(context.catalogue.rate_card_of(event.rate_card), command.usage, hold.reserved_at)
    amount = rates.price(command.usage)
    held, rest = _take(hold, amount)
    model = context.catalogue.model(event.model, hold.reserved_at)
    # `rest` is above zero only when the hold is used up, so what it held is no longer in the way.
    more, overdrawn = draw(account, model.model, model.family, context.at, rest)
    freed = _remaining(hold) if command.final else held
    return [
        q.TokensDebited(
            **context.stamp(command),
            call=event.call,
            model=event.model,
            rate_card=event.rate_card,
            rates=rates,
            usage=command.usage,
            amount=amount,
            draws=merged(held, more),
            overdrawn=overdrawn,
            freed=freed,
            released=sum(d.amount for d in freed) - sum(d.amount for d in held),
            reservation=command.reservation,
            final=command.final,
            late=hold.expired or hold.expires_at < context.at,
            deployment=command.deployment,
            serving_operator=command.serving_operator,
        )
    ]


def release(command: q.Release, account: Account, context: Context) -> list[Event]:
    hold = _hold(command.reservation, account, context)
    return [
        q.ReservationReleased(
            **context.stamp(command),
            reservation=command.reservation,
            amount=hold.amount,
            draws=_remaining(hold),
            reason=command.reason,
        )
    ]


def expire_reservation(command: ExpireReservation, account: Account, context: Context) -> list[Event]:
    hold = account.holds.get(command.reservation)
    if hold is None or hold.expired or hold.expires_at > context.at:
        return []
    return [
        q.ReservationExpired(
            **context.stamp(command), reservation=command.reservation, amount=hold.amount, draws=_remaining(hold)
        )
    ]


def debit(command: q.Debit, account: Account, context: Context) -> list[Event]:
    model = context.catalogue.model(command.model, context.at)
    rate_card, card = context.catalogue.rate_card(command.operator, command.model, context.at)
    rates = applicable_rates(card, command.usage, context.at)
    amount = rates.price(command.usage)
    if command.on_insufficient == "refuse":
        available = account.available(model.model, model.family, context.at)
        _refuse_unless(available >= amount, available, amount)
    draws, overdrawn = draw(account, model.model, model.family, context.at, amount)
    return [
        q.TokensDebited(
            **context.stamp(command),
            call=command.call or command.request_id,
            model=command.model,
            rate_card=rate_card,
            rates=rates,
            usage=command.usage,
            amount=amount,
            draws=draws,
            overdrawn=overdrawn,
            deployment=command.deployment,
            serving_operator=command.serving_operator,
        )
    ]


def reverse(command: q.Reverse, account: Account, context: Context) -> list[Event]:
    """Give back in reverse order of the draw: what was owed first, the first grant last."""
    event = context.find(command.debit)
    if not isinstance(event, q.TokensDebited):
        raise UnknownDebit(f"no debit {command.debit!r}", {"debit": command.debit})
    given = account.reversals.get(command.debit, {})
    reversible = event.amount - sum(given.values())
    amount = reversible if command.amount is None else command.amount
    if amount > reversible or reversible == 0:
        raise ReversalExceedsDebit(
            f"at most {reversible} of debit {command.debit!r} can be reversed", {"reversible": reversible}
        )
    left = amount
    overdrawn = min(left, event.overdrawn - given.get("", 0))
    left -= overdrawn
    draws: list[q.Draw] = []
    for taken in reversed(event.draws):
        back = min(left, taken.amount - given.get(taken.grant, 0))
        if back > 0:
            draws.append(q.Draw(taken.grant, back))
            left -= back
    assert left == 0, "a debit is its draws and what was overdrawn"
    ended = [d for d in draws if d.grant != q.CREDIT and account.grants[d.grant].ended(context.at)]
    stamp = context.stamp(command)
    reversal = q.DebitReversed(
        **stamp,
        debit=command.debit,
        model=event.model,
        rate_card=event.rate_card,
        amount=amount,
        draws=tuple(draws),
        overdrawn=overdrawn,
        regranted=tuple(d.grant for d in ended),
        reason=command.reason,
    )
    return [reversal, *(_regrant(d, account, stamp, context, index) for index, d in enumerate(ended))]


def _regrant(given: q.Draw, account: Account, stamp: dict[str, Any], context: Context, index: int) -> Event:
    """A new grant with the provenance of one that has ended, for as long as that one ran."""
    old = account.grants[given.grant].event
    return q.PointsGranted(
        **{**stamp, "request_id": f"{stamp['request_id']}/{index}"},
        amount=given.amount,
        source="adjustment",
        scope=old.scope,
        priority=old.priority,
        effective_at=context.at,
        expires_at=None if old.expires_at is None else context.at + (old.expires_at - old.effective_at),
        plan=old.plan,
        plan_version=old.plan_version,
        origin=given.grant,
    )


# --- shared by the decisions above -----------------------------------------------------------------
def _refuse_unless(affordable: bool, available: int, required: int) -> None:
    if not affordable:
        raise InsufficientQuota(
            f"{required} millipoints required, {available} available",
            {"available": available, "required": required},
        )


def _hold(reservation: str, account: Account, context: Context) -> Hold:
    hold = account.holds.get(reservation)
    if hold is not None:
        return hold
    if isinstance(context.find(reservation), q.PointsReserved):
        raise ReservationEnded(f"reservation {reservation!r} has ended", {"reservation": reservation})
    raise UnknownReservation(f"no reservation {reservation!r}", {"reservation": reservation})


def _remaining(hold: Hold) -> tuple[q.Draw, ...]:
    return tuple(q.Draw(name, amount) for name, amount in hold.remaining.items() if amount > 0)


def _take(hold: Hold, amount: int) -> tuple[tuple[q.Draw, ...], int]:
    """What the hold pays of an amount, by grant in the order of the hold, and what it does not."""
    taken = []
    for name, held in hold.remaining.items():
        part = min(amount, held)
        if part > 0:
            taken.append(q.Draw(name, part))
            amount -= part
    return tuple(taken), amount


DECISIONS: dict[type[q.QuotaCommand], Decision] = {
    q.Grant: grant,
    q.VoidGrant: void_grant,
    q.Reserve: reserve,
    q.Extend: extend,
    q.Settle: settle,
    q.Release: release,
    q.Debit: debit,
    q.Reverse: reverse,
    q.SetCreditLimit: set_credit_limit,
    q.Suspend: suspend,
    q.Resume: resume,
    q.CloseAccount: close_account,
    ExpireReservation: expire_reservation,
    ExpireGrant: expire_grant,
}
