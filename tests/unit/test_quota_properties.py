"""The ledger's invariants, after any sequence of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.quota.domain.account import Account
from services.quota.schemas import Balances, Sweep
from shared.contracts import quota as q
from shared.eventstore.log import LoggedEvent
from tests.unit.quota_world import OPERATOR, World


# Few names, so that what one command makes another refers to; a name used up is a replay or a conflict.
def hold(dice: Random) -> str:
    return f"h{dice.randrange(6)}"


def debit(dice: Random) -> str:
    return f"d{dice.randrange(6)}"


def usage(dice: Random) -> dict[str, int]:
    classes = {"input": 2000, "cached_input": 1000, "output": 200}
    return {name: dice.randrange(most) for name, most in classes.items() if dice.random() < 0.7}


def amount(dice: Random) -> int:
    return dice.choice([1, dice.randrange(1, 10_000), dice.randrange(1, 3_000_000)])


def model(dice: Random) -> str:
    return dice.choice(["kimi-k2.5", "deepseek-chat"])


# Weight, command, and how its fields are made up.
STEPS: list[tuple[int, str, Callable[[Random], dict[str, Any]]]] = [
    (
        4,
        "grant",
        lambda d: {
            "request_id": f"g{d.randrange(6)}",
            "amount": amount(d),
            "source": "purchase",
            "priority": d.randrange(3),
            "scope": d.choice([{}, {"families": ["kimi"]}]),
            "expires_at": d.choice([None, None, "2026-06-01T00:02:00Z", "2026-06-01T00:05:00Z"]),
        },
    ),
    (
        6,
        "reserve",
        lambda d: {"request_id": hold(d), "model": model(d), "amount": amount(d), "ttl_s": d.randint(1, 90)},
    ),
    (6, "reserve", lambda d: {"request_id": hold(d), "model": model(d), "max_usage": usage(d), "accept_partial": True}),
    (4, "extend", lambda d: {"reservation": hold(d), "amount": amount(d)}),
    (9, "settle", lambda d: {"reservation": hold(d), "usage": usage(d), "final": d.random() < 0.5}),
    (3, "settle", lambda d: {"request_id": debit(d), "reservation": hold(d), "usage": usage(d)}),
    (3, "release", lambda d: {"reservation": hold(d)}),
    (
        5,
        "debit",
        lambda d: {
            "request_id": debit(d),
            "model": model(d),
            "usage": usage(d),
            "on_insufficient": d.choice(["refuse", "overdraw"]),
        },
    ),
    (5, "reverse", lambda d: {"debit": debit(d), "amount": d.choice([None, amount(d)])}),
    (1, "void_grant", lambda d: {"grant": f"g{d.randrange(6)}"}),
    (1, "set_credit_limit", lambda d: {"credit_limit": d.randrange(2_000_000)}),
    (1, "suspend", lambda _: {}),
    (3, "resume", lambda _: {}),
    (4, "sweep", lambda d: {"seconds": d.randrange(30)}),
]


def steps(dice: Random, count: int) -> Iterator[dict[str, Any]]:
    for number, (_, command, fields) in enumerate(dice.choices(STEPS, [weight for weight, _, _ in STEPS], k=count)):
        account = dice.choice(["a", "a", "b"])
        yield {"command": command, "operator": OPERATOR, "account": account, "request_id": f"x{number}", **fields(dice)}


def run(world: World, commands: Iterator[dict[str, Any]]) -> None:
    for account in ("a", "b"):
        world.open(account, points=1_000_000, credit_limit=500_000)
    for one in commands:
        if one["command"] == "sweep":
            world.clock.advance(one["seconds"])
            world.app.follow_quota([e._asdict() for e in world.app.log.read(world.app.projector.position(), 5000)])
            world.app.sweep(Sweep())
        else:
            world.app.execute([one])


def check_grants(account: Account) -> None:
    for grant in account.grants.values():
        parts = (grant.available, grant.reserved, grant.debited - grant.reversed, grant.expired, grant.voided)
        assert sum(parts) == grant.event.amount, (
            "granted = available + reserved + debited - reversed + expired + voided"
        )
        assert min(*parts, grant.reversed) >= 0, "and none of them is negative"
    held: dict[str, int] = {}
    for hold in account.holds.values():
        for name, amount in hold.remaining.items():
            assert amount >= 0
            held[name] = held.get(name, 0) + amount
    reserved = {g.name: g.reserved for g in account.grants.values()} | {q.CREDIT: account.credit_reserved}
    assert {n: a for n, a in held.items() if a} == {n: a for n, a in reserved.items() if a}, "held = reserved"
    assert account.overdrawn >= 0


def check_log(events: list[LoggedEvent]) -> None:
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    versions: dict[str, int] = {}
    keys: set[tuple[str, str]] = set()
    ended: set[tuple[str, str]] = set()
    for logged in events:
        versions[logged.stream] = versions.get(logged.stream, 0) + 1
        assert logged.version == versions[logged.stream]
        event: Any = logged.event
        if not event.request_id.startswith("expire/"):
            assert (logged.stream, event.request_id) not in keys, "at most one effect per request"
            keys.add((logged.stream, event.request_id))
        if isinstance(event, q.TokensDebited):
            assert event.amount == event.rates.price(event.usage)
            assert event.amount == sum(d.amount for d in event.draws) + event.overdrawn
        ends = isinstance(event, q.ReservationReleased) or (
            isinstance(event, q.TokensDebited) and bool(event.reservation) and event.final
        )
        if ends:
            assert (logged.stream, event.reservation) not in ended, "the second phase ends once"
            ended.add((logged.stream, event.reservation))


@pytest.mark.parametrize("run_number", range(30))
def test_the_books_balance_after_any_commands(tmp_path: Path, seed: int, run_number: int) -> None:
    world = World(tmp_path)
    run(world, steps(Random(seed + run_number), 150))
    events = world.app.log.read(0, 5000)
    check_log(events)
    for name in ("a", "b"):
        in_memory = world.app.accounts.account(f"{OPERATOR}/{name}")
        check_grants(in_memory)
        folded = Account()
        for logged in world.app.log.stream(f"{OPERATOR}/{name}"):
            folded.evolve(logged.version, logged.event)
        assert books(folded) == books(in_memory), "state folded from events = state in memory"
    world.app.follow_quota([e._asdict() for e in events[world.app.projector.position() :]])
    for row in world.app.balances(Balances())["accounts"]:
        account = world.app.accounts.account(f"{OPERATOR}/{row['account']}")
        check_row(account, row)
    world.app.close()


def books(account: Account) -> Any:
    grants = {g.name: (g.reserved, g.debited, g.reversed, g.expired, g.voided, g.void) for g in account.grants.values()}
    holds = {name: (h.remaining, h.expires_at, h.expired) for name, h in account.holds.items()}
    credit = (account.credit_limit, account.credit_reserved, account.credit_debited, account.overdrawn)
    return account.version, account.status, grants, holds, credit, account.reversals


def check_row(account: Account, row: dict[str, Any]) -> None:
    assert (row["version"], row["status"], row["overdrawn"]) == (account.version, account.status, account.overdrawn)
    for name, grant in account.grants.items():
        assert row["grants"][name] == {
            "granted": grant.event.amount,
            "reserved": grant.reserved,
            "debited": grant.debited,
            "reversed": grant.reversed,
            "expired": grant.expired,
            "voided": grant.voided,
        }
    credit = row["grants"].get(q.CREDIT, {"reserved": 0, "debited": 0, "reversed": 0})
    assert credit["reserved"] == account.credit_reserved
    assert credit["debited"] - credit["reversed"] == account.credit_debited
