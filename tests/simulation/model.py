"""What each command must do: a second opinion on every decision of quota, in the plainest words.

It is written from the README of quota and shares no code with its domain: commands are dictionaries as clients send
them, the books are the auditor's, what is decided are dictionaries of what must be in the log. Pure: time comes as
an argument, and nothing is changed: whoever has seen the events in the log appends them to the books.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.simulation.books import Books, Fields, held, pairs
from tests.simulation.rules import RULES, Case, Refused

OLDEST, NEWEST = timedelta(days=35), timedelta(seconds=60)  # how far from now a command may have occurred


def decide(command: Fields, books: Books, now: datetime) -> list[Fields] | None:
    """The events that a command must make, in order; None if it is a replay. Raises Refused."""
    occurred = _time(command["occurred_at"])
    if command["command"] == "grant" and command["expires_at"] and occurred:
        _unless(_time(command["expires_at"]) > occurred, "MalformedCommand")  # type: ignore[operator]
    made = books.made(command["account"], command["request_id"])
    if made is not None:
        _unless(made.command == command, "IdempotencyConflict")
        return None
    _unless(occurred is None or now - OLDEST <= occurred <= now + NEWEST, "MalformedCommand")
    events = RULES[command["command"]](Case(command, books, occurred or now))
    for event in events:
        event.update(at=occurred or now, recorded_at=now)
    return events


def expire(books: Books, account: str, kind: str, thing: str, at: datetime) -> Fields:
    """What the sweep must write when it finds that a hold or a grant is due. Raises AssertionError if it is not."""
    found = books.account(account)
    if kind == "ReservationExpired":
        hold = found.holds[thing]
        assert not hold.expired, "only what is held can expire"
        assert at == hold.expires_at, "it expires when its time is over"
        event = {"kind": kind, "reservation": thing, "amount": held(hold), "draws": pairs(hold.remaining)}
    else:
        grant = found.grants[thing]
        assert grant.available > 0, "nothing is left to expire"
        assert grant.void or at == grant.expires_at, "it expires when its time is over"
        kind = "GrantVoided" if grant.void else "GrantExpired"
        event = {"kind": kind, "grant": thing, "amount": grant.available}
    return event | {"request_id": f"expire/{thing}", "at": at}


def due(books: Books, at: datetime) -> list[str]:
    """Everything that a sweep at this instant has to write down."""
    found = []
    for name, account in books.accounts.items():
        found += [f"{name}/{n}" for n, h in account.holds.items() if not h.expired and h.expires_at <= at]
        found += [f"{name}/{n}" for n, g in account.grants.items() if g.ended(at) and g.available > 0]
    return found


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _unless(right: bool, code: str) -> None:
    if not right:
        raise Refused(code)
