"""The precedence of refusals: which one is told where a command breaks several rules.

For each command a good one, and how to get each of its refusals. Two that set the same field cannot meet.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from services.quota.domain import calls
from shared import errors
from tests.unit.quota_world import World

KIMI = {"model": "kimi-k2.5"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


NOBODY, CLOSED, SUSPENDED = {"account": "nobody"}, {"account": "closed"}, {"account": "suspended"}
USED = {"request_id": "used"}
ON_AN_ACCOUNT = {"UnknownAccount": NOBODY, "IdempotencyConflict": USED, "AccountClosed": CLOSED}
ON_A_MODEL = {"UnknownModel": {"model": "no-such"}, "NoRateInForce": {"model": "unpriced"}}
ON_A_HOLD = {"UnknownReservation": {"reservation": "no-such"}, "ReservationEnded": {"reservation": "ended"}}
BIG = 10**15
GOOD: dict[str, dict[str, Any]] = {
    "open_account": {"account": "new"},
    "grant": {"amount": 1, "source": "purchase"},
    "void_grant": {"grant": "g"},
    "reserve": {"amount": 1, **KIMI},
    "extend": {"reservation": "held", "amount": 1},
    "settle": {"reservation": "held", "usage": {"input": 1}},
    "release": {"reservation": "held"},
    "debit": {"usage": {"input": 1}, **KIMI},
    "reverse": {"debit": "debited"},
    "set_credit_limit": {"credit_limit": 0},
    "suspend": {},
    "resume": {},
    "close_account": {},
}
REFUSALS: dict[str, dict[str, dict[str, Any]]] = {
    "open_account": {
        "MalformedCommand": {"credit_limit": -1},
        "UnknownOperator": {"operator": "nobody"},
        "IdempotencyConflict": {"account": "open", "request_id": "used"},
        "AccountExists": {"account": "open"},
    },
    "grant": {"MalformedCommand": {"source": "theft"}, **ON_AN_ACCOUNT, "LimitExceeded": {"amount": 9 * BIG}},
    "void_grant": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT, "UnknownGrant": {"grant": "no-such"}},
    "reserve": {
        "MalformedCommand": {"ttl_s": 0},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_MODEL,
        "InsufficientQuota": {"amount": BIG},
        "LimitExceeded": {"HOLDS_MAX": 0},
    },
    "extend": {
        "MalformedCommand": {"ttl_s": 0},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_HOLD,
        "InsufficientQuota": {"amount": BIG},
    },
    "settle": {"MalformedCommand": {"usage": {"input": -1}}, **ON_AN_ACCOUNT, **ON_A_HOLD},
    "release": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT, **ON_A_HOLD},
    "debit": {
        "MalformedCommand": {"on_insufficient": "ask"},
        **ON_AN_ACCOUNT,
        "AccountSuspended": SUSPENDED,
        **ON_A_MODEL,
        "InsufficientQuota": {"usage": {"input": 10**9}},
    },
    "reverse": {
        "MalformedCommand": {"reason": 5},
        **ON_AN_ACCOUNT,
        "UnknownDebit": {"debit": "no-such"},
        "ReversalExceedsDebit": {"amount": BIG},
    },
    "set_credit_limit": {"MalformedCommand": {"credit_limit": -1}, **ON_AN_ACCOUNT},
    "suspend": {"MalformedCommand": {"reason": 5}, **ON_AN_ACCOUNT},
    "resume": {"MalformedCommand": {"colour": 1}, **ON_AN_ACCOUNT},
    "close_account": {"MalformedCommand": {"colour": 1}, **ON_AN_ACCOUNT},
}
ORDER = [error.__name__ for error in errors.PRECEDENCE]
# An account that does not exist has used no request; an operator that does not exist has no accounts.
NEVER_MEET = {frozenset(["UnknownAccount", "IdempotencyConflict"])} | {
    frozenset(["UnknownOperator", other]) for other in ("IdempotencyConflict", "AccountExists")
}


def meeting() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Command, the refusal that must be told, the one it hides, and the command's fields: each that is refused for
    two reasons at once."""
    cases = []
    for command, refusals in REFUSALS.items():
        for (one, how), (other, too) in itertools.combinations(refusals.items(), 2):
            clash = any(how[field] != too[field] for field in how.keys() & too.keys())
            if not clash and frozenset([one, other]) not in NEVER_MEET:
                first, second = sorted((one, other), key=ORDER.index)
                cases.append((command, first, second, {**GOOD[command], **how, **too}))
    return cases


def accounts(world: World) -> None:
    for account in ("open", "closed", "suspended"):
        world.open(account)
        world.do("grant", account, request_id="g", amount=1_000_000, source="purchase")
        world.do("set_credit_limit", account, request_id="used", credit_limit=5)
        for name in ("held", "ended"):
            world.do("reserve", account, request_id=name, amount=1000, **KIMI)
        world.do("release", account, reservation="ended")
        world.do("debit", account, request_id="debited", usage={"input": 1}, **KIMI)
    world.do("close_account", "closed")
    world.do("suspend", "suspended")


def refusal_of(world: World, monkeypatch: pytest.MonkeyPatch, command: str, fields: dict[str, Any]) -> str:
    fields = dict(fields)
    if "HOLDS_MAX" in fields:
        monkeypatch.setattr(calls, "HOLDS_MAX", fields.pop("HOLDS_MAX"))
    return world.refusal(command, fields.pop("account", "open"), **fields)


def test_each_refusal_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts(world)
    for command, refusals in REFUSALS.items():
        for code, how in refusals.items():
            with monkeypatch.context() as patch:
                assert (command, refusal_of(world, patch, command, {**GOOD[command], **how})) == (command, code)


def test_of_two_reasons_the_earlier_in_the_published_order_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts(world)
    for command, first, second, fields in meeting():
        with monkeypatch.context() as patch:
            told = refusal_of(world, patch, command, fields)
        assert (command, told) == (command, first), f"{second} is told before {first}: {fields}"


def test_more_than_can_be_counted_is_first_of_all_more_than_there_is(world: World) -> None:
    accounts(world)
    assert world.refusal("extend", "open", reservation="held", amount=9 * BIG) == "InsufficientQuota"


def test_every_refusal_of_the_published_order_is_in_the_table() -> None:
    in_table = {code for refusals in REFUSALS.values() for code in refusals}
    assert in_table == set(ORDER) - {"NotAuthorised"}, "who may act for an operator is judged before quota is asked"
    assert set(GOOD) == set(REFUSALS)
