"""The ledger's seven invariants by name: which difference breaks which, and what an account's books must keep. Pure.

`standing` judges books at rest; everything that only an event can break is judged by the ledger while it folds.
The property tests, the simulation and an audit of live data all run these and nothing else. It must not know
where events come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from services.audit.replay.account import Account, Grant
from services.audit.replay.findings import Difference

CREDIT = "credit"

INVARIANTS: dict[str, str] = {
    "grants": "per grant: granted = available + reserved + debited - reversed + expired + voided, none negative",
    "overdrawn": "per account: what is available is never below zero, and owed is only usage that nothing covered",
    "holds": "per reservation: held = settled + released, and the second phase ends once",
    "requests": "per request key: at most one effect",
    "prices": "per model and rate: the sum of debits is the sum of tokens times rate",
    "order": "per log: positions 1..n and versions per account 1..m without a gap, each event of its kind",
    "one state": "state folded from events = state in memory = read model",
}

# By the first words of a difference: how a status ends its sentence does not matter.
_BROKEN_BY: dict[str, str] = {
    "no such grant": "grants",
    "grant is overdrawn": "grants",
    "books of a grant are negative": "grants",
    "two grants of one name": "grants",
    "ended grant had another rest": "grants",
    "grant expired early": "grants",
    "drawn from a grant that was not valid": "grants",
    "drawn from a grant for other models": "grants",
    "granted back is not what was reversed": "grants",
    "reversed, but not granted back": "grants",
    "more was reversed than debited of a grant": "grants",
    "more is freed than was held of a grant": "grants",
    "credit limit exceeded": "overdrawn",
    "more is forgiven than was owed": "overdrawn",
    "overdrawn though there was something to draw from": "overdrawn",
    "less is owed than nothing": "overdrawn",
    "account was": "overdrawn",
    "held amount is not the sum of its draws": "holds",
    "expired reservation extended": "holds",
    "expired reservation holds something": "holds",
    "reservation expired early or twice": "holds",
    "reservation is not there or has ended": "holds",
    "released is not what was held": "holds",
    "freed without a reservation": "holds",
    "freed is not what leaves the hold": "holds",
    "held points were not used first": "holds",
    "held is not settled plus released": "holds",
    "held is not what is reserved": "holds",
    "request has two effects": "requests",
    "reversal of no debit": "requests",
    "more is reversed than was debited": "requests",
    "reversal is not the sum of its draws": "prices",
    "price is not the pinned one": "prices",
    "debit is not the sum of its draws and what was overdrawn": "prices",
    "rate card of another operator or model": "prices",
    "rate card was not in force": "prices",
    "no such rate card": "prices",
    "rates are not those of the rate card": "prices",
    "amount is not usage times rates": "prices",
    "unknown kind of event": "order",
    "event of an account that was not opened": "order",
    "account opened twice": "order",
    "account of another shard": "order",
    "positions have a gap": "order",
    "versions of a stream have a gap": "order",
    "event is not of its kind": "order",
}


class Broken(NamedTuple):
    """What is wrong with an account's books."""

    what: str
    expected: object
    found: object


def invariant_of(difference: Difference) -> str:
    """The name of the invariant that a difference breaks."""
    if difference.area == "balances":
        return "one state"
    what = difference.what
    return _BROKEN_BY.get(what) or next(name for begin, name in _BROKEN_BY.items() if what.startswith(f"{begin} "))


def standing(account: Account) -> Iterator[Broken]:
    """What the books of an account break, whatever led to them."""
    held: dict[str, int] = {}
    for name, hold in account.holds.items():
        if hold.expired and any(hold.remaining.values()):
            yield Broken("expired reservation holds something", "nothing", f"{name}: {hold.remaining}")
        for source, amount in hold.remaining.items():
            held[source] = held.get(source, 0) + amount
    for name, grant in {**account.grants, CREDIT: account.credit}.items():
        if _least(name, grant) < 0:
            yield Broken("books of a grant are negative", ">= 0", f"{name}: {grant.books()}, left {grant.available}")
        if grant.reserved != held.pop(name, 0):
            yield Broken("held is not what is reserved", f"{name}: the sum of its holds", grant.reserved)
    if any(held.values()):
        yield Broken("held is not what is reserved", "grants of the account", held)
    if account.overdrawn < 0:
        yield Broken("less is owed than nothing", ">= 0", account.overdrawn)


def _least(name: str, grant: Grant) -> int:
    left = 0 if name == CREDIT else grant.available  # a limit may be set below what was drawn from it
    return min(left, grant.debited - grant.reversed, *grant.books().values())
