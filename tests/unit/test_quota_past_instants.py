"""The balance as of a past instant: by event time, by recorded time, and by both, of any history there can be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from services.quota.books import books
from services.quota.domain.account import Account
from services.quota.domain.past import History
from services.quota.history import account_as_of
from services.quota.schemas import Sweep
from shared.errors import UnknownAccount
from tests.unit.quota_histories import LITTLE, MUCH, NAMES, begin, folded, follow, live, whole_state
from tests.unit.quota_world import OPERATOR, START, World

STREAM = f"{OPERATOR}/a1"
HISTORIES = 6


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.app.close()


def minutes(count: float) -> datetime:
    return START + timedelta(minutes=count)


def at(world: World, minute: float) -> None:
    world.clock.now = minutes(minute)


def grant_at(world: World, instant: datetime, name: str = "g-a1") -> dict[str, Any]:
    return {g["grant"]: g for g in world.balance(at=instant)["grants"]}[name]


def history(tmp_path: Path, dice: Random, backdates: tuple[int, ...]) -> World:
    world = World(tmp_path)
    begin(world)
    live(world, dice, 110, backdates)
    return world


def sound(account: Account) -> None:
    """Nothing is negative, what is held is what is reserved, and no point is lost."""
    held: dict[str, int] = {}
    for hold in account.holds.values():
        for name, amount in hold.remaining.items():
            assert amount >= 0
            held[name] = held.get(name, 0) + amount
    for grant in account.grants.values():
        parts = (grant.available, grant.reserved, grant.debited - grant.reversed, grant.expired, grant.voided)
        assert sum(parts) == grant.event.amount, (
            "granted = available + reserved + debited - reversed + expired + voided"
        )
        assert min(*parts, grant.reversed) >= 0, grant.name
        assert grant.reserved == held.pop(grant.name, 0)
    assert account.credit_reserved == held.pop("credit", 0)
    assert not any(held.values())
    assert min(account.overdrawn, account.credit_debited, account.credit_reserved) >= 0


# --- by event time: what it means, by example ----------------------------------------------------------
def test_a_debit_that_came_late_is_in_the_books_of_when_it_happened(world: World) -> None:
    world.open(points=1_000_000)
    at(world, 10)
    world.do("debit", model="kimi-k2.5", usage={"input": 100})
    at(world, 60)
    world.do("debit", model="kimi-k2.5", usage={"input": 1}, occurred_at=minutes(5).isoformat())
    assert world.balance(at=minutes(4))["available"] == 1_000_000
    assert world.balance(at=minutes(5))["available"] == 999_000
    assert world.balance(at=minutes(10))["available"] == 899_000


def test_by_recorded_time_it_is_not_known_before_it_came(world: World) -> None:
    world.open(points=1_000_000)
    at(world, 60)
    world.do("debit", model="kimi-k2.5", usage={"input": 1}, occurred_at=minutes(5).isoformat())
    assert world.balance(known_at=minutes(59))["available"] == 1_000_000
    assert world.balance(known_at=minutes(60))["available"] == 999_000


def test_both_what_was_known_then_of_what_had_happened_by_then(world: World) -> None:
    world.open(points=1_000_000)
    at(world, 10)
    world.do("debit", model="kimi-k2.5", usage={"input": 100})
    at(world, 20)
    world.do("debit", model="kimi-k2.5", usage={"input": 10}, occurred_at=minutes(5).isoformat())
    at(world, 30)
    world.do("debit", model="kimi-k2.5", usage={"input": 1}, occurred_at=minutes(4).isoformat())

    def available(happened: float, known: float) -> int:
        found: int = world.balance(at=minutes(happened), known_at=minutes(known))["available"]
        return found

    assert available(6, 15) == 1_000_000
    assert available(6, 25) == 990_000
    assert available(6, 30) == 989_000
    assert available(15, 15) == 900_000


def test_expiry_is_judged_at_the_instant_however_late_the_sweep(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=500, source="trial", expires_at=minutes(10).isoformat())
    at(world, 30)
    follow(world)
    world.app.sweep(Sweep())
    assert grant_at(world, minutes(9), "g") | {"ended": False, "available": 500, "expired": 0} == grant_at(
        world, minutes(9), "g"
    )
    assert grant_at(world, minutes(10), "g") | {"ended": True, "available": 0, "expired": 500} == grant_at(
        world, minutes(10), "g"
    )


def test_an_instant_to_come_judges_expiry_only(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=500, source="trial", expires_at=minutes(10).isoformat())
    world.do("debit", model="kimi-k2.5", usage={}, occurred_at=(START + timedelta(seconds=30)).isoformat())
    assert world.balance(at=minutes(20)) == {
        **world.balance(),
        "available": 0,
        "grants": world.balance(at=minutes(20))["grants"],
    }
    assert world.balance(at=minutes(20))["version"] == 3
    assert world.balance(at=START) == world.balance(), "as of now: all that there is"


def test_before_it_was_opened_there_is_no_account(world: World) -> None:
    world.open(points=5)
    at(world, 10)
    with pytest.raises(UnknownAccount):
        world.balance(at=START - timedelta(seconds=1))
    with pytest.raises(UnknownAccount):
        world.balance(known_at=START - timedelta(seconds=1))
    with pytest.raises(UnknownAccount):
        world.balance("nobody", at=START)


# --- what is dated before what it builds on --------------------------------------------------------------
def test_an_account_counts_from_the_first_that_happened_in_it(world: World) -> None:
    at(world, 10)
    world.open()
    world.do("grant", request_id="g", amount=5, source="trial", occurred_at=minutes(3).isoformat())
    at(world, 20)
    assert world.balance(at=minutes(3))["available"] == 5


def test_a_hold_counts_from_a_settlement_that_is_dated_before_it(world: World) -> None:
    world.open(points=1_000_000)
    at(world, 10)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=500_000, ttl_s=3600)
    at(world, 20)
    world.do("settle", reservation="h", usage={"input": 100}, occurred_at=minutes(5).isoformat())
    at(world, 30)
    assert world.balance(at=minutes(4))["available"] == 1_000_000
    assert (world.balance(at=minutes(5))["available"], world.balance(at=minutes(5))["reserved"]) == (900_000, 0)


def _held_and_spent(world: World, points: int) -> None:
    """A million is held in minutes 1 to 10. A debit of as much is dated minute 5, and recorded in minute 11."""
    world.open(points=points)
    at(world, 1)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=1_000_000, ttl_s=3600)
    at(world, 10)
    world.do("release", reservation="h")
    at(world, 11)
    world.do("debit", model="kimi-k2.5", usage={"input": 1000}, occurred_at=minutes(5).isoformat())
    at(world, 20)


def test_points_that_were_given_back_count_from_the_debit_that_takes_them(world: World) -> None:
    """All is held until minute 10; what was recorded later says that at minute 5 it was spent."""
    _held_and_spent(world, points=1_000_000)
    assert world.balance(at=minutes(4))["reserved"] == 1_000_000
    assert (world.balance(at=minutes(5))["reserved"], grant_at(world, minutes(5))["debited"]) == (0, 1_000_000)


def test_what_it_does_not_need_does_not_count_sooner(world: World) -> None:
    """There was enough left beside what was held: the release stays where it was."""
    _held_and_spent(world, points=2_000_000)
    assert world.balance(at=minutes(5))["reserved"] == 1_000_000
    assert grant_at(world, minutes(5))["available"] == 0


def test_a_late_sweep_makes_nothing_count_sooner(world: World) -> None:
    world.open(points=1_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=500_000, ttl_s=60)
    at(world, 5)
    world.do("settle", reservation="h", usage={"input": 100}, final=False)
    at(world, 10)
    follow(world)
    assert world.app.sweep(Sweep())["expired_reservations"] == 1
    at(world, 20)
    assert world.balance(at=minutes(4))["reserved"] == 500_000, "due since minute 1, but used at minute 5"
    assert world.balance(at=minutes(5))["reserved"] == 0


# --- any history -------------------------------------------------------------------------------------
def instants(world: World, dice: Random) -> list[datetime]:
    times = [logged.event.at for logged in world.app.log.read(0, 5000)]
    return [*dice.sample(times, min(12, len(times))), min(times) - timedelta(seconds=1), max(times)]


@pytest.mark.parametrize("number", range(HISTORIES))
def test_the_books_are_sound_at_any_instant(tmp_path: Path, seed: int, number: int) -> None:
    dice = Random(seed + number)
    world = history(tmp_path, dice, MUCH)
    for name in NAMES:
        stream = f"{OPERATOR}/{name}"
        for instant in instants(world, dice):
            known_at = dice.choice([None, None, *instants(world, dice)])
            account = account_as_of(world.app.log, stream, instant, known_at)
            sound(account)
            books(account, instant)
    world.app.close()


@pytest.mark.parametrize("number", range(HISTORIES))
def test_what_counts_by_an_instant_counts_by_every_later_one(tmp_path: Path, seed: int, number: int) -> None:
    """And all that happened by it does, but for expiries; at the end it is everything, however it began."""
    dice = Random(seed + number)
    world = history(tmp_path, dice, MUCH)
    for name in NAMES:
        logged = list(world.app.log.whole_stream(f"{OPERATOR}/{name}"))
        before: set[int] = set()
        for instant in sorted(instants(world, dice)):
            counts = counted([e.event for e in logged], instant)
            assert before <= counts
            happened = {n for n, e in enumerate(logged) if e.event.at <= instant and "Expired" not in e.topic}
            assert happened <= counts
            before = counts
        assert before == set(range(len(logged)))
    world.app.close()


def counted(events: list[Any], instant: datetime) -> set[int]:
    asked = History(instant)
    for event in events:
        asked.add(event)
    return {number for number, one in enumerate(asked.counted()) if one}


@pytest.mark.parametrize("number", range(HISTORIES))
def test_what_has_happened_to_the_last_event_may_be_folded_first(tmp_path: Path, seed: int, number: int) -> None:
    """The rule does not depend on from where it is applied: `account_as_of` begins where something is amiss."""
    dice = Random(seed + number)
    world = history(tmp_path, dice, MUCH)
    for name in NAMES:
        stream = f"{OPERATOR}/{name}"
        logged = list(world.app.log.whole_stream(stream))
        for instant in instants(world, dice):
            whole = Account()
            counts = counted([e.event for e in logged], instant)
            for index in sorted(counts):
                whole.evolve(logged[index].version, logged[index].event)
            assert whole_state(account_as_of(world.app.log, stream, instant, None)) == whole_state(whole)
    world.app.close()


@pytest.mark.parametrize("number", range(HISTORIES // 2))
def test_now_it_is_the_plain_balance(tmp_path: Path, seed: int, number: int) -> None:
    world = history(tmp_path, Random(seed + number), MUCH)
    for name in ("a", "b"):
        assert world.balance(name, at=world.clock()) == world.balance(name)
        last = max(e.event.at for e in world.app.log.whole_stream(f"{OPERATOR}/{name}"))
        folded_now = account_as_of(world.app.log, f"{OPERATOR}/{name}", last, None)
        assert whole_state(folded_now) == whole_state(world.app.accounts.account(f"{OPERATOR}/{name}"))
    world.app.close()


@pytest.mark.parametrize("number", range(HISTORIES // 2))
def test_where_nothing_is_out_of_order_it_is_a_plain_cut(tmp_path: Path, seed: int, number: int) -> None:
    """Whatever else was dated back: if all before had happened by then and nothing after had."""
    dice = Random(seed + number)
    world = history(tmp_path, dice, dice.choice([(), LITTLE]))
    cuts = 0
    for name in ("a", "b"):
        stream = f"{OPERATOR}/{name}"
        times = [logged.event.at for logged in world.app.log.whole_stream(stream)]
        for version, instant in enumerate(times, start=1):
            if max(times[:version]) <= instant < min(times[version:], default=world.clock.now + timedelta(1)):
                cuts += 1
                account = account_as_of(world.app.log, stream, instant, None)
                assert whole_state(account) == whole_state(folded(world, stream, version))
    assert cuts > 4
    world.app.close()


@pytest.mark.parametrize("number", range(4))
def test_of_what_was_known_the_same_as_if_it_had_been_asked_then(tmp_path: Path, seed: int, number: int) -> None:
    """Both times: what an application answered when no more was recorded, it answers for ever."""
    dice = Random(seed + number)
    world = World(tmp_path)
    begin(world)
    told: list[tuple[str, datetime, datetime, dict[str, Any]]] = []

    def ask() -> None:
        world.clock.advance(0.001)
        if dice.random() < 0.2:
            name, happened = dice.choice(["a", "b"]), world.clock() - timedelta(seconds=dice.choice(MUCH))
            told.append((name, happened, world.clock(), world.balance(name, at=happened)))
            world.clock.advance(0.001)

    live(world, dice, 60, LITTLE, after=ask)
    assert told
    for name, happened, known_at, answer in told:
        assert world.balance(name, at=happened, known_at=known_at) == answer
    world.app.close()
