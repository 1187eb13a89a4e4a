"""Decisions along the life of a call: reserve, extend, settle, release, expire; and the one-shot debit."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from services.quota.domain.account import Account, Hold
from services.quota.domain.burndown import draw, merged, remaining
from services.quota.domain.context import Context, ExpireReservation
from shared.catalogue.view import applicable_rates
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import InsufficientQuota, LimitExceeded, ReservationEnded, UnknownReservation
from shared.units import AMOUNT_MAX

HOLDS_MAX = 10_000  # calls in flight of one account


def reserve(command: q.Reserve, account: Account, context: Context) -> list[Event]:
    price = context.catalogue.price(command.operator, command.model, context.at)
    model = price.model
    available = account.available(model.model, model.family, context.at)
    output_max: int | None = None
    final = False
    if command.max_usage is not None:
        rates = applicable_rates(price.card, command.max_usage, context.at)
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
    if len(account.holds) >= HOLDS_MAX:
        raise LimitExceeded(f"an account has at most {HOLDS_MAX} reservations", {"limit": HOLDS_MAX})
    refuse_beyond_counting(required)
    draws, short = draw(account, model.model, model.family, context.at, required)
    assert short == 0, "what is available can be drawn"
    return [
        q.PointsReserved(
            **context.stamp(command),
            call=command.call or command.request_id,
            model=command.model,
            rate_card=price.reference,
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
    model = context.catalogue.model(hold.event.model, hold.reserved_at, retired_too=True)
    available = account.available(model.model, model.family, context.at)
    _refuse_unless(available >= command.amount, available, command.amount)
    refuse_beyond_counting(hold.amount + command.amount)
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
    card = context.catalogue.rate_card_of(event.rate_card)
    rates = applicable_rates(card, command.usage, hold.reserved_at, hold.given)
    amount = rates.price(command.usage)
    refuse_beyond_counting(account.overdrawn + amount)
    held, rest = _take(hold, amount)
    model = context.catalogue.model(event.model, hold.reserved_at, retired_too=True)
    # `rest` is above zero only when the hold is used up, so what it held is no longer in the way.
    more, overdrawn = draw(account, model.model, model.family, context.at, rest)
    freed = remaining(hold) if command.final else held
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
            late=hold.expired or hold.expires_at <= context.at,
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
            draws=remaining(hold),
            reason=command.reason,
        )
    ]


def expire_reservation(command: ExpireReservation, account: Account, context: Context) -> list[Event]:
    hold = account.holds.get(command.reservation)
    if hold is None or hold.expires_at > context.at:
        return []
    return [
        q.ReservationExpired(
            **context.stamp(command), reservation=command.reservation, amount=hold.amount, draws=remaining(hold)
        )
    ]


def debit(command: q.Debit, account: Account, context: Context) -> list[Event]:
    at, usage = context.at, command.usage
    price = context.catalogue.price(command.operator, command.model, at)
    model = price.model
    rates = applicable_rates(price.card, usage, at)
    amount = rates.price(usage)
    draws, overdrawn = draw(account, model.model, model.family, at, amount)
    # Who owes nothing and can draw it all can afford it.
    if (overdrawn or account.overdrawn) and command.on_insufficient == "refuse":
        available = account.available(model.model, model.family, at)
        _refuse_unless(available >= amount, available, amount)
    refuse_beyond_counting(account.overdrawn + amount)
    return [
        q.TokensDebited(
            at=at,
            recorded_at=context.recorded_at,
            request_id=command.request_id,
            fingerprint=context.fingerprint,
            call=command.call or command.request_id,
            model=command.model,
            rate_card=price.reference,
            rates=rates,
            usage=usage,
            amount=amount,
            draws=draws,
            overdrawn=overdrawn,
            deployment=command.deployment,
            serving_operator=command.serving_operator,
        )
    ]


def refuse_beyond_counting(amount: int) -> None:
    """An amount that a JSON reader could not count must not get into the log: no reader would accept it."""
    if amount > AMOUNT_MAX:
        raise LimitExceeded(f"{amount} millipoints are more than {AMOUNT_MAX}", {"limit": AMOUNT_MAX})


def _refuse_unless(affordable: bool, available: int, required: int) -> None:
    if not affordable:
        raise InsufficientQuota(
            f"{required} millipoints required, {available} available",
            {"available": available, "required": required},
        )


def _hold(reservation: str, account: Account, context: Context) -> Hold:
    hold = account.hold(reservation)
    if hold is not None:
        return hold
    if isinstance(context.find(reservation), q.PointsReserved):
        raise ReservationEnded(f"reservation {reservation!r} has ended", {"reservation": reservation})
    raise UnknownReservation(f"no reservation {reservation!r}", {"reservation": reservation})


def _take(hold: Hold, amount: int) -> tuple[tuple[q.Draw, ...], int]:
    """What the hold pays of an amount, by grant in the order of the hold, and what it does not."""
    taken = []
    for name, held in hold.remaining.items():
        part = min(amount, held)
        if part > 0:
            taken.append(q.Draw(name, part))
            amount -= part
    return tuple(taken), amount
