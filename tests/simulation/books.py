"""The model's books: what an account, a grant, a hold, a debit and a rate card are, and what there is to spend.

Pure, and independent of the service: written from the README of quota. Amounts are millipoints.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

MOST = 9 * 10**15
FOREVER = datetime.max.replace(tzinfo=UTC)

Fields = dict[str, Any]


class Refused(Exception):
    """The command must be refused with this code."""

    def __init__(self, code: str, **details: int) -> None:
        self.code = code
        self.details = details
        super().__init__(f"{code} {details or ''}")


class Card(NamedTuple):
    """A rate card: points per 1,000 tokens by class; above so many input tokens a tier's rates hold for all."""

    reference: str
    effective_from: datetime
    rates: Mapping[str, int]
    tiers: tuple[tuple[int, Mapping[str, int]], ...] = ()

    def price(self, usage: Mapping[str, int]) -> int:
        given = sum(tokens for name, tokens in usage.items() if name != "output")
        rates = self.rates
        for above, tier in sorted(self.tiers, key=lambda tier: tier[0]):
            if given > above:
                rates = tier
        return sum(tokens * rates.get(name, 0) for name, tokens in usage.items())

    def output_rate(self, usage: Mapping[str, int]) -> int:
        """What one more output token costs in a call of this usage."""
        return self.price({**usage, "output": 1}) - self.price({**usage, "output": 0})


@dataclass
class Market:
    """Families by model, and the cards of each model in the order in which they take effect."""

    families: Mapping[str, str]
    cards: Mapping[str, tuple[Card, ...]]

    def card(self, model: str, at: datetime) -> Card:
        if model not in self.families:
            raise Refused("UnknownModel")
        in_force = [card for card in self.cards.get(model, ()) if card.effective_from <= at]
        if not in_force:
            raise Refused("NoRateInForce")
        return in_force[-1]


@dataclass
class Grant:
    name: str
    amount: int
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    families: tuple[str, ...]
    held: int = 0
    debited: int = 0
    reversed: int = 0
    expired: int = 0
    voided: int = 0
    void: bool = False

    @property
    def left(self) -> int:
        return self.amount - self.held - self.debited + self.reversed - self.expired - self.voided

    def over(self, at: datetime) -> bool:
        return self.void or (self.expires_at or FOREVER) <= at


@dataclass
class Hold:
    name: str
    model: str
    card: Card
    expires_at: datetime
    parts: dict[str, int]
    state: str = "held"  # or expired, or ended

    @property
    def amount(self) -> int:
        return sum(self.parts.values())


@dataclass
class Debit:
    name: str
    model: str
    amount: int
    draws: list[tuple[str, int]]
    overdrawn: int
    given_back: dict[str, int] = field(default_factory=dict)


@dataclass
class Account:
    status: str = ""
    version: int = 0
    credit_limit: int = 0
    credit_held: int = 0
    credit_debited: int = 0
    overdrawn: int = 0
    grants: dict[str, Grant] = field(default_factory=dict)  # oldest first
    holds: dict[str, Hold] = field(default_factory=dict)
    debits: dict[str, Debit] = field(default_factory=dict)
    keys: dict[str, tuple[Fields, list[Fields]]] = field(default_factory=dict)

    def copied(self) -> Account:
        new = copy.copy(self)
        new.grants = {name: copy.copy(grant) for name, grant in self.grants.items()}
        new.holds = {name: copy.copy(hold) for name, hold in self.holds.items()}
        for hold in new.holds.values():
            hold.parts = dict(hold.parts)
        new.debits = {name: copy.copy(debit) for name, debit in self.debits.items()}
        for debit in new.debits.values():
            debit.given_back = dict(debit.given_back)
        new.keys = dict(self.keys)
        return new

    # -- what there is --------------------------------------------------------------------------
    @property
    def credit_left(self) -> int:
        return self.credit_limit - self.credit_debited - self.credit_held

    def usable(self, at: datetime, model: str | None = None, family: str = "") -> list[Grant]:
        """In the order in which they burn down; of any scope when no model is named."""
        grants = [
            grant
            for grant in self.grants.values()
            if grant.effective_at <= at
            and not grant.over(at)
            and grant.left > 0
            and (model is None or not grant.families or family in grant.families)
        ]
        return sorted(grants, key=lambda grant: (grant.priority, grant.expires_at or FOREVER))

    def available(self, at: datetime, model: str | None = None, family: str = "") -> int:
        return sum(g.left for g in self.usable(at, model, family)) + max(self.credit_left, 0) - self.overdrawn

    def draw(self, at: datetime, model: str, family: str, amount: int) -> tuple[dict[str, int], int]:
        draws: dict[str, int] = {}
        for name, left in [(g.name, g.left) for g in self.usable(at, model, family)] + [("credit", self.credit_left)]:
            part = min(amount, left)
            if part > 0:
                draws[name] = part
                amount -= part
        return draws, amount

    def move(self, column: str, draws: Mapping[str, int], sign: int = 1) -> None:
        """`column` is held or debited; for credit there is nothing else."""
        for name, amount in draws.items():
            book, attribute = (self, f"credit_{column}") if name == "credit" else (self.grants[name], column)
            setattr(book, attribute, getattr(book, attribute) + sign * amount)

    def balance(self, at: datetime) -> Fields:
        """The answer to `balance`, but for the names and for what a grant says of itself."""
        return {
            "status": self.status,
            "version": self.version,
            "available": self.available(at),
            "reserved": sum(g.held for g in self.grants.values()) + self.credit_held,
            "credit_limit": self.credit_limit,
            "credit_left": self.credit_left,
            "overdrawn": self.overdrawn,
            "grants": {g.name: (*self.book(g), g.left, g.over(at)) for g in self.grants.values()},
        }

    @staticmethod
    def book(grant: Grant) -> tuple[int, ...]:
        """granted, reserved, debited, reversed, expired, voided"""
        return grant.amount, grant.held, grant.debited, grant.reversed, grant.expired, grant.voided

    def check(self) -> None:
        """Invariants 1 to 3 of the ledger, on the model's own books."""
        for grant in self.grants.values():
            assert min(*self.book(grant), grant.left, grant.debited - grant.reversed) >= 0, grant
        held: dict[str, int] = {}
        for hold in self.holds.values():
            assert hold.state == "held" or not hold.amount, hold
            for name, amount in hold.parts.items():
                held[name] = held.get(name, 0) + amount
        assert self.credit_held == held.pop("credit", 0)
        assert {g.name: g.held for g in self.grants.values() if g.held} == {n: a for n, a in held.items() if a}
        assert min(self.overdrawn, self.credit_held, self.credit_debited) >= 0


def pairs(parts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Draws as they are in an event: what is something, in order."""
    return [(name, amount) for name, amount in parts.items() if amount > 0]
