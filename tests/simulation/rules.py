"""What each command must put into the log: one function each, as the README of quota says it.

A rule reads the books and returns the events that must follow, or raises Refused. Of an event only the fields that
say what happened. What the events then do to the books is the auditor's business.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from services.audit.replay.account import Account, Grant, Hold
from services.audit.replay.prices import Card, rates_of
from tests.simulation.books import MOST, Books, Fields, available, draw, held, pairs


class Refused(Exception):
    """The command must be refused with this code."""

    def __init__(self, code: str, **details: int) -> None:
        self.code = code
        self.details = details
        super().__init__(f"{code} {details or ''}")


class Case(NamedTuple):
    """A command before the judge."""

    command: Fields
    books: Books
    at: datetime

    @property
    def name(self) -> str:
        return str(self.command["request_id"])

    @property
    def account(self) -> Account:
        return self.books.account(self.command["account"])

    def living(self, *, spends: bool = False) -> Account:
        """The account, unless its state forbids the command."""
        account = self.account
        if not account.status:
            raise Refused("UnknownAccount")
        if account.status == "closed":
            raise Refused("AccountClosed")
        if account.status == "suspended" and spends:
            raise Refused("AccountSuspended")
        return account

    def hold(self) -> Hold:
        name = self.command["reservation"]
        found = self.account.holds.get(name)
        if found is None:
            self.first_event(name, "quota.PointsReserved:1", "UnknownReservation")
            raise Refused("ReservationEnded")
        return found

    def first_event(self, name: str, topic: str, unless: str) -> Fields:
        """The event of this kind that a request of the account has made."""
        made = self.books.made(self.command["account"], name)
        if made is None or made.entries[0].topic != topic:
            raise Refused(unless)
        return made.entries[0].event

    def card(self, model: str) -> tuple[str, Card]:
        """The rate card in force and its reference."""
        if not self.family(model):
            raise Refused("UnknownModel")
        key = f"{self.command['operator']}/{model}"
        version = self.books.prices.in_force("rate card", key, self.at)
        if version is None:
            raise Refused("NoRateInForce")
        reference = f"{key}@{version.number}"
        card = self.books.prices.card(reference)
        assert card is not None
        return reference, card

    def family(self, model: str) -> str:
        return self.books.prices.family(model, self.at)

    def available(self, model: str) -> int:
        return available(self.account, self.at, model, self.family(model))

    def draw(self, model: str, amount: int) -> tuple[dict[str, int], int]:
        return draw(self.account, self.at, model, self.family(model), amount)

    def event(self, kind: str, **fields: object) -> Fields:
        return {"kind": kind, "request_id": self.name, **fields}


def price(card: Card, usage: Fields, at: datetime, given: int = 0) -> int:
    tokens = rates_of(usage)
    return sum(count * rate for count, rate in zip(tokens, card.rates(tokens, at, given), strict=True))


def open_account(case: Case) -> list[Fields]:
    if case.account.status:
        raise Refused("AccountExists")
    return [case.event("AccountOpened", credit_limit=case.command["credit_limit"])]


def grant(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    if case.name in account.grants:
        raise Refused("IdempotencyConflict")
    expires_at = datetime.fromisoformat(command["expires_at"]) if command["expires_at"] else None
    if expires_at and expires_at <= case.at:
        raise Refused("MalformedCommand")
    _countable(account, command["amount"])
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
    return [case.event("GrantVoided", grant=case.command["grant"], amount=found.available)]


def reserve(case: Case) -> list[Fields]:
    case.living(spends=True)
    command = case.command
    model, usage = command["model"], command["max_usage"]
    reference, card = case.card(model)
    there = case.available(model)
    required = command["amount"] if usage is None else price(card, usage, case.at)
    final, output_max = False, None
    if required > there > 0 and command["accept_partial"]:
        if usage is None:
            required, final = there, True
        elif rate := card.rates(rates_of(usage), case.at)[3]:
            # The largest number of output tokens that what is there pays for, with the input as it is.
            given = price(card, {**usage, "output": 0}, case.at)
            tokens = (there - given) // rate
            if tokens > 0:
                required, final, output_max = given + tokens * rate, True, tokens
    _affordable(required, there)
    if required > MOST:
        raise Refused("LimitExceeded")
    draws, _ = case.draw(model, required)
    return [
        case.event(
            "PointsReserved",
            model=model,
            rate_card=reference,
            amount=required,
            draws=pairs(draws),
            expires_at=case.at + timedelta(seconds=command["ttl_s"]),
            final=final,
            max_output_tokens=output_max,
        )
    ]


def extend(case: Case) -> list[Fields]:
    case.living(spends=True)
    command = case.command
    hold = case.hold()
    if hold.expired or hold.expires_at <= case.at:
        raise Refused("ReservationEnded")
    _affordable(command["amount"], case.available(hold.model))
    if held(hold) + command["amount"] > MOST:
        raise Refused("LimitExceeded")
    draws, _ = case.draw(hold.model, command["amount"])
    return [
        case.event(
            "ReservationExtended",
            reservation=command["reservation"],
            amount=command["amount"],
            draws=pairs(draws),
            expires_at=max(hold.expires_at, case.at + timedelta(seconds=command["ttl_s"])),
        )
    ]


def settle(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    hold = case.hold()
    card = case.books.prices.card(hold.rate_card)
    assert card is not None
    amount = rest = price(card, command["usage"], hold.reserved_at, hold.given)
    _owing_countable(account, amount)
    paid: dict[str, int] = {}
    for name, there in hold.remaining.items():
        if part := min(rest, there):
            paid[name] = part
            rest -= part
    freed = hold.remaining if command["final"] else paid
    return [
        _used(case, hold.model, hold.rate_card, amount, paid, rest)
        | {
            "freed": pairs(freed),
            "released": sum(freed.values()) - sum(paid.values()),
            "reservation": command["reservation"],
            "final": command["final"],
            "late": hold.expired or hold.expires_at <= case.at,
        }
    ]


def release(case: Case) -> list[Fields]:
    case.living()
    return [case.event("ReservationReleased", **_given_up(case.command["reservation"], case.hold()))]


def debit(case: Case) -> list[Fields]:
    command = case.command
    account = case.living(spends=command["on_insufficient"] == "refuse")
    reference, card = case.card(command["model"])
    amount = price(card, command["usage"], case.at)
    if command["on_insufficient"] == "refuse":
        _affordable(amount, case.available(command["model"]))
    _owing_countable(account, amount)
    event = _used(case, command["model"], reference, amount, {}, amount)
    return [event | {"freed": [], "released": 0, "reservation": "", "final": True, "late": False}]


def reverse(case: Case) -> list[Fields]:
    account, command = case.living(), case.command
    debited = case.first_event(command["debit"], "quota.TokensDebited:1", "UnknownDebit")
    given = case.books.given_back(command["account"], command["debit"])
    most = debited["amount"] - sum(given.values())
    amount = most if command["amount"] is None else command["amount"]
    if amount > most or not most:
        raise Refused("ReversalExceedsDebit", reversible=most)
    # What was taken last goes back first: what is owed, then the draws from the last to the first.
    back: dict[str, int] = {}
    left = amount
    for name, drawn in [("", debited.get("overdrawn", 0)), *reversed(debited["draws"])]:
        if part := min(left, drawn - given.get(name, 0)):
            back[name] = part
            left -= part
    _countable(account, sum(part for name, part in back.items() if name not in ("", "credit")))
    owed = back.pop("", 0)
    regranted = [name for name in back if name != "credit" and account.grants[name].ended(case.at)]
    reversal = case.event("DebitReversed", debit=command["debit"], model=debited["model"], amount=amount)
    reversal |= {"draws": pairs(back), "overdrawn": owed, "regranted": regranted}
    free = (name for n in range(len(account.grants) + 1 + len(back)) if (name := f"{case.name}/{n}"))
    names = (name for name in free if name not in account.grants)
    return [reversal, *(_regrant(case, next(names), old, account.grants[old], back[old]) for old in regranted)]


def set_credit_limit(case: Case) -> list[Fields]:
    case.living()
    return [case.event("CreditLimitSet", credit_limit=case.command["credit_limit"])]


def suspend(case: Case) -> list[Fields]:
    case.living()
    return [case.event("AccountSuspended")]


def resume(case: Case) -> list[Fields]:
    case.living()
    return [case.event("AccountResumed")]


def close_account(case: Case) -> list[Fields]:
    live = [(name, hold) for name, hold in case.living().holds.items() if not hold.expired]
    return [
        case.event("AccountClosed"),
        *(
            {"kind": "ReservationReleased", "request_id": f"{case.name}/{n}", **_given_up(name, hold)}
            for n, (name, hold) in enumerate(live)
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


def _used(case: Case, model: str, rate_card: str, amount: int, paid: dict[str, int], rest: int) -> Fields:
    """A debit: what a hold paid, then the grants, then credit; what is left is owed."""
    # The rest is above zero only when the hold is used up, so nothing of it is in the way.
    more, overdrawn = case.draw(model, rest)
    draws = {name: paid.get(name, 0) + more.get(name, 0) for name in {**paid, **more}}
    return case.event(
        "TokensDebited",
        model=model,
        rate_card=rate_card,
        usage={name: tokens for name, tokens in case.command["usage"].items() if tokens},
        amount=amount,
        draws=pairs(draws),
        overdrawn=overdrawn,
    )


def _given_up(name: str, hold: Hold) -> Fields:
    return {"reservation": name, "amount": held(hold), "draws": pairs(hold.remaining)}


def _regrant(case: Case, name: str, origin: str, old: Grant, amount: int) -> Fields:
    """A grant that is over gives back as a new one, for as long as the old one ran."""
    return {
        "kind": "PointsGranted",
        "request_id": name,
        "amount": amount,
        "source": "adjustment",
        "priority": old.priority,
        "effective_at": case.at,
        "expires_at": old.expires_at and case.at + (old.expires_at - old.effective_at),
        "origin": origin,
    }


def _affordable(required: int, there: int) -> None:
    if required > there:
        raise Refused("InsufficientQuota", available=there, required=required)


def _countable(account: Account, more: int) -> None:
    """No account holds more than a JSON reader can count."""
    if sum(g.available + g.reserved for g in account.grants.values()) + more > MOST:
        raise Refused("LimitExceeded")


def _owing_countable(account: Account, more: int) -> None:
    if account.overdrawn + more > MOST:
        raise Refused("LimitExceeded")
