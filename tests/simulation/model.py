"""What the ledger means, in the plainest words: a second opinion on every decision of quota.

It is written from the README of quota and shares no code with its domain: commands are dictionaries as
clients send them, events are dictionaries of what must be in the log. Pure: time comes as an argument,
a ledger is never changed, `do` returns the next one. Amounts are millipoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.simulation.books import Account, Fields, Market, Refused, pairs
from tests.simulation.rules import RULES, Case

OLDEST, NEWEST = timedelta(days=35), timedelta(seconds=60)  # how far from now a command may have occurred


class Outcome(NamedTuple):
    """What a command must do: its events in order, and whether it had done so before."""

    events: list[Fields]
    replayed: bool


class Ledger:
    """All accounts of one operator, as of one place in the log."""

    def __init__(self, market: Market, accounts: Mapping[str, Account] | None = None) -> None:
        self.market = market
        self.accounts = dict(accounts or {})

    def account(self, name: str) -> Account:
        return self.accounts.get(name) or Account()

    def do(self, command: Fields, now: datetime) -> tuple[Ledger, Outcome]:
        """The ledger after a command, and what must be in the log. Raises Refused."""
        occurred = _time(command["occurred_at"])
        if command["command"] == "grant" and command["expires_at"] and occurred:
            _unless(_time(command["expires_at"]) > occurred, "MalformedCommand")  # type: ignore[operator]
        account = self.account(command["account"])
        if command["request_id"] in account.keys:
            first, events = account.keys[command["request_id"]]
            _unless(first == command, "IdempotencyConflict")
            return self, Outcome(events, replayed=True)
        _unless(occurred is None or now - OLDEST <= occurred <= now + NEWEST, "MalformedCommand")
        account = account.copied()
        events = RULES[command["command"]](Case(command, account, occurred or now, self.market))
        for event in events:
            event.update(at=occurred or now, recorded_at=now)
        account.version += len(events)
        account.keys[command["request_id"]] = (command, events)
        return self._with(command["account"], account), Outcome(events, replayed=False)

    def expire(self, name: str, kind: str, thing: str, at: datetime) -> tuple[Ledger, Fields]:
        """What the sweep must write when it finds that a hold or a grant is due. Raises AssertionError if it is not."""
        account = self.account(name).copied()
        account.version += 1
        if kind == "ReservationExpired":
            hold = account.holds[thing]
            assert hold.state == "held", "only what is held can expire"
            assert at == hold.expires_at, "it expires when its time is over"
            event = {"kind": kind, "reservation": thing, "amount": hold.amount, "draws": pairs(hold.parts)}
            account.move("held", hold.parts, -1)
            hold.parts, hold.state = {}, "expired"
        else:
            grant = account.grants[thing]
            assert grant.left > 0, "nothing is left to expire"
            assert grant.void or at == grant.expires_at, "it expires when its time is over"
            event = {"kind": "GrantVoided" if grant.void else "GrantExpired", "grant": thing, "amount": grant.left}
            if grant.void:
                grant.voided += grant.left
            else:
                grant.expired += grant.left
        return self._with(name, account), event | {"request_id": f"expire/{thing}", "at": at}

    def due(self, at: datetime) -> list[str]:
        """Everything that a sweep at this instant has to write down."""
        found = []
        for name, account in self.accounts.items():
            found += [f"{name}/{h.name}" for h in account.holds.values() if h.state == "held" and h.expires_at <= at]
            found += [f"{name}/{g.name}" for g in account.grants.values() if g.over(at) and g.left > 0]
        return found

    def _with(self, name: str, account: Account) -> Ledger:
        return Ledger(self.market, {**self.accounts, name: account})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _unless(right: bool, code: str, **details: int) -> None:
    if not right:
        raise Refused(code, **details)
