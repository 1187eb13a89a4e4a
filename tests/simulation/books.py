"""The books that every decision is judged on: the auditor's own replay of the log so far, and which command made what.

Pure. There is one bookkeeping besides the service's, that of `tokengrid audit`: it folds each event from its raw
JSON and says at once which of the seven invariants an event breaks. Amounts are millipoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from services.audit.replay.account import Account, Grant, Hold
from services.audit.replay.findings import Findings
from services.audit.replay.invariants import INVARIANTS, invariant_of, standing
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from tests.simulation.clients import OPERATOR

MOST = 9 * 10**15
FOREVER = datetime.max.replace(tzinfo=UTC)

Fields = dict[str, Any]


class Entry(NamedTuple):
    """One event of the log: its content as the JSON says it."""

    stream: str
    topic: str
    event: Fields


class Effect(NamedTuple):
    """What one command, or the sweep (then there is no command), put into the log."""

    command: Fields | None
    entries: Sequence[Entry]


class Books:
    """All accounts of one operator, as of one place in the log between two commands."""

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.findings = Findings()
        self.log: list[Entry] = []
        self.ledger = Ledger(prices, self.findings, lambda *_: None, self._event)
        self.effects: dict[int, Effect] = {}  # by the place in the log at which each began
        self._made: dict[tuple[str, str], Effect] = {}

    def append(self, effect: Effect) -> None:
        """Fold what a command has done. Raises AssertionError, with the invariant's name, when one is broken."""
        self.effects[len(self.log)] = effect
        for entry in effect.entries:
            self.log.append(entry)
            self.ledger.apply(len(self.log), *entry)
        if effect.command is not None:
            self._made[effect.command["account"], effect.command["request_id"]] = effect
        self.check({entry.stream for entry in effect.entries})

    def check(self, streams: set[str]) -> None:
        """All that can be said of these accounts now, invariant by invariant."""
        broken = {name: [d for d in self.findings.differences if invariant_of(d) == name] for name in INVARIANTS}
        for name, differences in broken.items():
            assert not differences, f"{name} ({INVARIANTS[name]}): {differences}"
        for stream in streams:
            wrong = list(standing(self.ledger.accounts[stream]))
            assert not wrong, f"{stream}: {wrong}"

    def account(self, name: str) -> Account:
        stream = f"{OPERATOR}/{name}"
        return self.ledger.accounts.get(stream) or Account(stream)

    @property
    def accounts(self) -> dict[str, Account]:
        return {stream.split("/", 1)[1]: account for stream, account in self.ledger.accounts.items()}

    def made(self, account: str, request_id: str) -> Effect | None:
        """What a request of this account has done."""
        return self._made.get((account, request_id))

    def given_back(self, account: str, debit: str) -> dict[str, int]:
        """What was given back of a debit by grant; under "" what was owed."""
        given = self.ledger.requests.given_back(f"{OPERATOR}/{account}", debit)
        return {**given.by_grant, "": given.overdrawn}

    def up_to(self, place: int) -> Books | None:
        """The books when the log had so many events; None inside the events of one command."""
        if place == len(self.log):
            return self
        if place not in self.effects:
            return None
        earlier = Books(self.prices)
        for begin, effect in self.effects.items():
            if begin < place:
                earlier.append(effect)
        return earlier

    def _event(self, position: int) -> tuple[str, Fields]:
        entry = self.log[position - 1]
        return entry.stream, entry.event


# --- what there is to spend ------------------------------------------------------------------------------
def usable(account: Account, at: datetime, model: str | None = None, family: str = "") -> list[tuple[str, Grant]]:
    """Grants in the order in which they burn down; of any scope when no model is named."""
    grants = [
        (name, grant)
        for name, grant in account.grants.items()
        if grant.valid(at) and grant.available > 0 and (model is None or grant.covers(model, family))
    ]
    return sorted(grants, key=lambda named: (named[1].priority, named[1].expires_at or FOREVER))


def available(account: Account, at: datetime, model: str | None = None, family: str = "") -> int:
    grants = sum(grant.available for _, grant in usable(account, at, model, family))
    return grants + max(account.credit_left, 0) - account.overdrawn


def draw(account: Account, at: datetime, model: str, family: str, amount: int) -> tuple[dict[str, int], int]:
    """Where an amount is drawn from, and what nothing covers."""
    draws: dict[str, int] = {}
    sources = [(name, grant.available) for name, grant in usable(account, at, model, family)]
    for name, left in [*sources, ("credit", account.credit_left)]:
        part = min(amount, left)
        if part > 0:
            draws[name] = part
            amount -= part
    return draws, amount


def held(hold: Hold) -> int:
    return sum(hold.remaining.values())


def book(grant: Grant) -> tuple[int, ...]:
    """granted, reserved, debited, reversed, expired, voided"""
    return tuple(grant.books().values())


def balance(account: Account, at: datetime) -> Fields:
    """The answer to `balance`, but for the names and for what a grant says of itself."""
    return {
        "status": account.status,
        "version": account.version,
        "available": available(account, at),
        "reserved": sum(g.reserved for g in account.grants.values()) + account.credit.reserved,
        "credit_limit": account.credit_limit,
        "credit_left": account.credit_left,
        "overdrawn": account.overdrawn,
        "grants": {name: (*book(g), g.available, g.ended(at)) for name, g in account.grants.items()},
    }


def pairs(parts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Draws as they are in an event: what is something, in order."""
    return [(name, amount) for name, amount in parts.items() if amount > 0]
