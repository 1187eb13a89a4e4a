"""What each command does to the model's account: one function each, as the README of quota says it.

A rule changes the account it was given (a copy) and returns the events that must be in the log, or
raises Refused. Of an event only the fields that say what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.simulation.books import MOST, Account, Card, Debit, Fields, Grant, Hold, Market, Refused, pairs


class Case(NamedTuple):
    """A command before the judge."""

    command: Fields
    account: Account
    at: datetime
    market: Market

    @property
    def name(self) -> str:
        return str(self.command["request_id"])

    def living(self, *, spends: bool = False) -> Account:
        """The account, unless its state forbids the command."""
        if not self.account.status:
            raise Refused("UnknownAccount")
        if self.account.status == "closed":
            raise Refused("AccountClosed")
        if self.account.status == "suspended" and spends:
            raise Refused("AccountSuspended")
        return self.account

    def hold(self) -> Hold:
        found = self.account.holds.get(self.command["reservation"])
        if found is None:
            raise Refused("UnknownReservation")
        if found.state == "ended":
            raise Refused("ReservationEnded")
        return found

    def event(self, kind: str, **fields: object) -> Fields:
        return {"kind": kind, "request_id": self.name, **fields}


def open_account(case: Case) -> list[Fields]:
    if case.account.status:
        raise Refused("AccountExists")
    case.account.status = "open"
    case.account.credit_limit = case.command["credit_limit"]
    return [case.event("AccountOpened", credit_limit=case.account.credit_limit)]


def grant(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    if case.name in account.grants:
        raise Refused("IdempotencyConflict")
    expires_at = datetime.fromisoformat(command["expires_at"]) if command["expires_at"] else None
    if expires_at and expires_at <= case.at:
        raise Refused("MalformedCommand")
    _countable(account, command["amount"])
    families = tuple(command["scope"].get("families", ()))
    account.grants[case.name] = Grant(case.name, command["amount"], command["priority"], case.at, expires_at, families)
    return [
        case.event(
            "PointsGranted",
            amount=command["amount"],
            source=command["source"],
            priority=command["priority"],
            effective_at=case.at,
            expires_at=expires_at,
        )
    ]


def void_grant(case: Case) -> list[Fields]:
    found = case.living().grants.get(case.command["grant"])
    if found is None:
        raise Refused("UnknownGrant")
    amount = found.left
    found.voided += amount
    found.void = True
    return [case.event("GrantVoided", grant=found.name, amount=amount)]


def reserve(case: Case) -> list[Fields]:
    account, command = case.living(spends=True), case.command
    model, usage = command["model"], command["max_usage"]
    card = case.market.card(model, case.at)
    family = case.market.families[model]
    available = account.available(case.at, model, family)
    required = command["amount"] if usage is None else card.price(usage)
    final, output_max = False, None
    if required > available > 0 and command["accept_partial"]:
        if usage is None:
            required, final = available, True
        elif rate := card.output_rate(usage):
            # The largest number of output tokens that what is there pays for, with the input as it is.
            given = card.price({**usage, "output": 0})
            tokens = (available - given) // rate
            if tokens > 0:
                required, final, output_max = given + tokens * rate, True, tokens
    if required > available:
        raise Refused("InsufficientQuota", available=available, required=required)
    if required > MOST:
        raise Refused("LimitExceeded")
    draws, _ = account.draw(case.at, model, family, required)
    account.move("held", draws)
    expires_at = case.at + timedelta(seconds=command["ttl_s"])
    account.holds[case.name] = Hold(case.name, model, card, expires_at, draws)
    return [
        case.event(
            "PointsReserved",
            model=model,
            rate_card=card.reference,
            amount=required,
            draws=pairs(draws),
            expires_at=expires_at,
            final=final,
            max_output_tokens=output_max,
        )
    ]


def extend(case: Case) -> list[Fields]:
    account, command = case.living(spends=True), case.command
    hold = case.hold()
    if hold.state == "expired" or hold.expires_at <= case.at:
        raise Refused("ReservationEnded")
    if hold.amount + command["amount"] > MOST:
        raise Refused("LimitExceeded")
    family = case.market.families[hold.model]
    available = account.available(case.at, hold.model, family)
    if command["amount"] > available:
        raise Refused("InsufficientQuota", available=available, required=command["amount"])
    draws, _ = account.draw(case.at, hold.model, family, command["amount"])
    account.move("held", draws)
    for name, amount in draws.items():
        hold.parts[name] = hold.parts.get(name, 0) + amount
    hold.expires_at = max(hold.expires_at, case.at + timedelta(seconds=command["ttl_s"]))
    return [
        case.event(
            "ReservationExtended",
            reservation=hold.name,
            amount=command["amount"],
            draws=pairs(draws),
            expires_at=hold.expires_at,
        )
    ]


def settle(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    hold = case.hold()
    late = hold.state == "expired" or hold.expires_at <= case.at
    paid: dict[str, int] = {}
    rest = hold.card.price(command["usage"])
    if account.overdrawn + rest > MOST:
        raise Refused("LimitExceeded")
    for name, held in hold.parts.items():
        if part := min(rest, held):
            paid[name] = part
            rest -= part
    freed = dict(hold.parts) if command["final"] else dict(paid)
    released = sum(freed.values()) - sum(paid.values())
    account.move("held", paid, -1)
    for name, part in paid.items():
        hold.parts[name] -= part
    event = _used(case, account, hold.model, hold.card, paid, rest)
    if command["final"]:
        account.move("held", hold.parts, -1)
        hold.parts, hold.state = {}, "ended"
    return [
        event
        | {
            "freed": pairs(freed),
            "released": released,
            "reservation": hold.name,
            "final": command["final"],
            "late": late,
        }
    ]


def release(case: Case) -> list[Fields]:
    account = case.living()
    hold = case.hold()
    return [case.event("ReservationReleased", **_give_up(account, hold))]


def debit(case: Case) -> list[Fields]:
    command = case.command
    account = case.living(spends=command["on_insufficient"] == "refuse")
    card = case.market.card(command["model"], case.at)
    amount = card.price(command["usage"])
    if account.overdrawn + amount > MOST:
        raise Refused("LimitExceeded")
    if command["on_insufficient"] == "refuse":
        available = account.available(case.at, command["model"], case.market.families[command["model"]])
        if amount > available:
            raise Refused("InsufficientQuota", available=available, required=amount)
    event = _used(case, account, command["model"], card, {}, amount)
    return [event | {"freed": [], "released": 0, "reservation": "", "final": True, "late": False}]


def reverse(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    found = account.debits.get(command["debit"])
    if found is None:
        raise Refused("UnknownDebit")
    most = found.amount - sum(found.given_back.values())
    amount = most if command["amount"] is None else command["amount"]
    if amount > most or not most:
        raise Refused("ReversalExceedsDebit", reversible=most)
    # What was taken last goes back first: what is owed, then the draws from the last to the first.
    taken = [("", found.overdrawn), *reversed(found.draws)]
    back: dict[str, int] = {}
    left = amount
    for name, drawn in taken:
        if part := min(left, drawn - found.given_back.get(name, 0)):
            back[name] = part
            left -= part
    _countable(account, sum(part for name, part in back.items() if name not in ("", "credit")))
    for name, part in back.items():
        found.given_back[name] = found.given_back.get(name, 0) + part
    owed = back.pop("", 0)
    account.overdrawn -= owed
    events = [case.event("DebitReversed", debit=found.name, model=found.model, amount=amount, draws=pairs(back))]
    regranted = [name for name in back if name != "credit" and account.grants[name].over(case.at)]
    events[0] |= {"overdrawn": owed, "regranted": regranted}
    for name, part in back.items():
        if name == "credit":
            account.credit_debited -= part
        elif name in regranted:
            events.append(_regrant(case, account, account.grants[name], part))
        else:
            account.grants[name].reversed += part
    return events


def set_credit_limit(case: Case) -> list[Fields]:
    case.living().credit_limit = case.command["credit_limit"]
    return [case.event("CreditLimitSet", credit_limit=case.command["credit_limit"])]


def suspend(case: Case) -> list[Fields]:
    case.living().status = "suspended"
    return [case.event("AccountSuspended")]


def resume(case: Case) -> list[Fields]:
    case.living().status = "open"
    return [case.event("AccountResumed")]


def close_account(case: Case) -> list[Fields]:
    account = case.living()
    account.status = "closed"
    held = [hold for hold in account.holds.values() if hold.state == "held"]
    return [
        case.event("AccountClosed"),
        *(
            {"kind": "ReservationReleased", "request_id": f"{case.name}/{n}", **_give_up(account, hold)}
            for n, hold in enumerate(held)
        ),
    ]


RULES: dict[str, Callable[[Case], list[Fields]]] = {
    rule.__name__: rule
    for rule in (
        open_account,
        grant,
        void_grant,
        reserve,
        extend,
        settle,
        release,
        debit,
        reverse,
        set_credit_limit,
        suspend,
        resume,
        close_account,
    )
}


def _used(case: Case, account: Account, model: str, card: Card, paid: dict[str, int], rest: int) -> Fields:
    """A debit: what a hold paid, then the grants, then credit; what is left is owed."""
    usage = case.command["usage"]
    account.move("debited", paid)
    more, overdrawn = account.draw(case.at, model, case.market.families[model], rest)
    draws = dict(paid)
    for name, part in more.items():
        draws[name] = draws.get(name, 0) + part
    account.move("debited", more)
    account.overdrawn += overdrawn
    amount = sum(draws.values()) + overdrawn
    account.debits[case.name] = Debit(case.name, model, amount, pairs(draws), overdrawn)
    return case.event(
        "TokensDebited",
        model=model,
        rate_card=card.reference,
        usage={name: tokens for name, tokens in usage.items() if tokens},
        amount=card.price(usage),
        draws=pairs(draws),
        overdrawn=overdrawn,
    )


def _give_up(account: Account, hold: Hold) -> Fields:
    fields: Fields = {"reservation": hold.name, "amount": hold.amount, "draws": pairs(hold.parts)}
    account.move("held", hold.parts, -1)
    hold.parts, hold.state = {}, "ended"
    return fields


def _regrant(case: Case, account: Account, old: Grant, amount: int) -> Fields:
    """A grant that is over gives back as a new one, for as long as the old one ran."""
    number = 0
    while (name := f"{case.name}/{number}") in account.grants:
        number += 1
    expires_at = old.expires_at and case.at + (old.expires_at - old.effective_at)
    account.grants[name] = Grant(name, amount, old.priority, case.at, expires_at, old.families)
    return {
        "kind": "PointsGranted",
        "request_id": name,
        "amount": amount,
        "source": "adjustment",
        "priority": old.priority,
        "effective_at": case.at,
        "expires_at": expires_at,
        "origin": old.name,
    }


def _countable(account: Account, more: int) -> None:
    """No account holds more than a JSON reader can count."""
    if sum(g.left + g.held for g in account.grants.values()) + more > MOST:
        raise Refused("LimitExceeded")
