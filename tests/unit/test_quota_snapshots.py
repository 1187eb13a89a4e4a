"""Snapshots affect cost, never meaning: with them, without them and with bad ones an account is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from services.quota.domain import snapshot as snapshot_module
from services.quota.domain.account import Account
from services.quota.snapshots import Snapshots, snapshots
from shared.contracts import quota as q
from shared.errors import Conflict, TokengridError
from shared.eventstore.log import EventLog
from tests.unit.quota_histories import LITTLE, NAMES, begin, check_snapshots, folded, live, whole_state
from tests.unit.quota_world import OPERATOR, World

STREAM = f"{OPERATOR}/a1"
DEBIT: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 1}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.settings.snapshot_every = 10
    made.restart()
    yield made
    made.app.close()


def debits(world: World, count: int, account: str = "a1") -> None:
    for _ in range(count):
        world.do("debit", account, **DEBIT)


def rows(world: World) -> dict[str, Any]:
    with world.app.engine.connect() as connection:
        return {row.stream: row for row in connection.execute(sa.select(snapshots))}


def change(world: World, **values: Any) -> None:
    with world.app.engine.begin() as connection:
        connection.execute(sa.update(snapshots).where(snapshots.c.stream == STREAM).values(values))


def folds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions that are folded from now on."""
    seen: list[int] = []
    evolve = Account.evolve

    def counted(account: Account, version: int, event: Any) -> None:
        seen.append(version)
        evolve(account, version, event)

    monkeypatch.setattr(Account, "evolve", counted)
    return seen


# --- an account is the same with them ----------------------------------------------------------------
@pytest.mark.parametrize("number", range(10))
def test_after_any_commands_events_and_snapshot_and_memory_are_one(tmp_path: Path, seed: int, number: int) -> None:
    dice = Random(seed + number)
    world = World(tmp_path)
    world.settings.snapshot_every = dice.choice([1, 3, 8])
    world.settings.accounts_cached_max = dice.choice([1, 5])
    world.restart()
    begin(world)
    for _ in range(4):
        live(world, dice, 24, LITTLE)
        if dice.random() < 0.7:
            world.app.take_snapshots()
        if dice.random() < 0.3:
            world.restart()
    for _ in range(20):
        world.app.take_snapshots()
        if rows(world):
            break
        live(world, dice, 24, LITTLE)  # by chance no account had lived for long enough since a restart
    live(world, dice, 5, LITTLE)
    taken = rows(world)
    assert taken, "the test must have something to compare"
    for name in NAMES:
        stream = f"{OPERATOR}/{name}"
        check_snapshots(world.app, stream)
        if stream in taken:
            assert world.app.snapshots.load(stream).kept == taken[stream].version, "what was taken is used"
    world.app.close()


def test_only_what_happened_since_the_last_one_is_folded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)
    debits(world, 20)
    assert world.app.take_snapshots() == 1
    debits(world, 3)
    world.restart()
    seen = folds(monkeypatch)
    assert world.balance()["version"] == 25
    assert seen == [23, 24, 25]


def test_deleted_they_are_not_missed(world: World) -> None:
    world.open(points=1_000_000)
    debits(world, 20)
    before = world.balance()
    world.app.take_snapshots()
    with world.app.engine.begin() as connection:
        connection.execute(sa.delete(snapshots))
    world.restart()
    assert world.balance() == before


# --- when they are taken -------------------------------------------------------------------------------
def test_one_is_taken_when_an_account_has_grown_and_replaces_the_one_before(world: World) -> None:
    world.open(points=1_000_000)
    debits(world, 7)
    assert world.app.take_snapshots() == 0
    debits(world, 1)
    assert world.app.take_snapshots() == 1
    assert world.app.take_snapshots() == 0
    debits(world, 10)
    assert world.app.take_snapshots() == 1
    assert rows(world)[STREAM].version == 20


def test_one_is_taken_of_an_account_that_took_many_events_to_load(world: World) -> None:
    world.open(points=1_000_000)
    debits(world, 20)
    world.restart()
    world.balance()
    assert world.app.take_snapshots() == 1


def test_one_is_taken_of_an_account_that_left_memory(world: World) -> None:
    world.settings.accounts_cached_max = 1
    world.open(points=1_000_000)
    debits(world, 20)
    push_out(world)
    assert world.app.take_snapshots() == 1
    assert rows(world)[STREAM].version == 22
    debits(world, 3)
    push_out(world)
    assert world.app.take_snapshots() == 0, "it has grown by little since"


def push_out(world: World) -> None:
    for account in ("other", "another", "a third"):
        with contextlib.suppress(TokengridError):
            world.balance(account)
    assert STREAM not in world.app.accounts.accounts


def test_a_large_account_is_kept_less_often_and_no_command_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.quota.snapshots.AT_ONCE", 2)
    world.open(points=1_000_000)
    for _ in range(15):
        world.do("grant", amount=1, source="trial")
    assert world.app.take_snapshots() == 1
    debits(world, 14)
    assert world.app.take_snapshots() == 0
    debits(world, 2)
    seen = folds(monkeypatch)
    assert world.app.take_snapshots() == 1
    assert seen == list(range(18, 34)), "folded apart from the one in memory"
    assert whole_state(world.app.snapshots.load(STREAM).account) == whole_state(folded(world, STREAM))
    assert world.app.take_snapshots() == 0


def test_many_accounts_that_are_due_are_taken_a_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.quota.snapshots.AT_ONCE", 5)
    names = [f"m{n}" for n in range(7)]
    for name in names:
        world.open(name, points=1_000_000)
        debits(world, 10, name)
    assert world.app.take_snapshots() == 7
    assert {row.version for row in rows(world).values()} == {12}
    assert len(rows(world)) == 7


def test_no_command_takes_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a command paid for a snapshot")

    monkeypatch.setattr(Snapshots, "_write", refused)
    monkeypatch.setattr("services.quota.snapshots.freeze", refused)
    world.settings.accounts_cached_max = 1
    for account in ("a1", "a2"):
        world.open(account, points=1_000_000)
        debits(world, 30, account)
    assert world.balance("a1")["version"] == 32


# --- never of what is not stored -----------------------------------------------------------------------
def test_a_decision_that_is_not_stored_is_in_no_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's event takes the very version at which a snapshot would be due."""
    world.open(points=1_000_000)
    debits(world, 7)
    other = world.start()
    append = EventLog.append
    raced: list[bool] = []

    def race(log: EventLog, *args: Any) -> Any:
        if log is world.app.log and not raced:
            raced.append(True)
            fields = {"operator": OPERATOR, "account": "a1", "model": "kimi-k2.5", "usage": {"input": 50}}
            other.submit("debit", {**fields, "request_id": "theirs"})
            assert world.app.accounts.accounts[STREAM].version == 10, "ours is decided, and not stored"
            raise Conflict("another writer was faster")
        return append(log, *args)

    monkeypatch.setattr(EventLog, "append", race)
    world.do("debit", request_id="ours", **DEBIT)
    assert raced
    world.app.take_snapshots()
    assert whole_state(world.app.snapshots.load(STREAM).account) == whole_state(folded(world, STREAM))
    assert rows(world)[STREAM].version == 11
    other.close()


def test_an_account_that_the_log_does_not_have_is_not_kept(world: World) -> None:
    world.open(points=1_000_000)
    ahead = folded(world, STREAM)
    ahead.evolve(50, q.AccountSuspended(at=world.clock(), recorded_at=world.clock(), request_id="never"))
    assert world.app.snapshots.take({STREAM: ahead}, lambda question: question()) == 0
    assert rows(world) == {}


# --- one that cannot be believed is not ------------------------------------------------------------------
def resealed(world: World, **changes: Any) -> None:
    """A row by somebody who knows how they are made."""
    row = rows(world)[STREAM]._asdict() | changes
    digest = snapshots_module_digest(row["stream"], row["version"], row["event_digest"], row["state"])
    change(world, **{**row, "digest": digest})


def snapshots_module_digest(*args: Any) -> bytes:
    from services.quota.snapshots import _digest

    return _digest(*args)


def richer(state: bytes) -> bytes:
    """A state with a grant that reserves what no hold holds."""
    fields = msgspec.msgpack.decode(state)
    fields[7][0][2] += 5
    return msgspec.msgpack.encode(fields)


def overspent(state: bytes) -> bytes:
    fields = msgspec.msgpack.decode(state)
    fields[7][0][3] += 10**15
    return msgspec.msgpack.encode(fields)


BAD: dict[str, Callable[[World], None]] = {
    "another format": lambda w: change(w, format=snapshot_module.FORMAT + 1),
    "no bytes": lambda w: change(w, state=b""),
    "garbage": lambda w: change(w, state=b"\xff" * 100),
    "garbage, sealed": lambda w: resealed(w, state=b"\xff" * 100),
    "half of it": lambda w: resealed(w, state=rows(w)[STREAM].state[:-40]),
    "endless nesting": lambda w: resealed(w, state=b"\x91" * 100_000),
    "a flipped bit": lambda w: change(w, state=rows(w)[STREAM].state[:-1] + b"\x01"),
    "another version": lambda w: change(w, version=20),
    "another version, sealed": lambda w: resealed(w, version=20),
    "ahead of the stream": lambda w: resealed(w, version=10**15),
    "before the stream": lambda w: resealed(w, version=0),
    "of a log that was restored": lambda w: resealed(w, event_digest=b"\x00" * 16),
    "reserves what is not held": lambda w: resealed(w, state=richer(rows(w)[STREAM].state)),
    "spent more than there was": lambda w: resealed(w, state=overspent(rows(w)[STREAM].state)),
    "another account's": lambda w: change(w, **(_other(w)._asdict() | {"stream": STREAM})),
}


def _other(world: World) -> Any:
    return rows(world)[f"{OPERATOR}/a2"]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_one_is_as_if_it_were_not_there(world: World, bad: Callable[[World], None]) -> None:
    for account, count in (("a1", 20), ("a2", 22)):
        world.open(account, points=1_000_000)
        debits(world, count, account)
    assert world.app.take_snapshots() == 2
    assert world.app.snapshots.load(STREAM).kept == 22
    debits(world, 1)
    before = whole_state(folded(world, STREAM))
    bad(world)
    world.restart()
    assert world.app.snapshots.load(STREAM).kept == 0
    assert whole_state(world.app.accounts.account(STREAM)) == before
    assert world.app.take_snapshots() == 1, "and a good one takes its place"
    assert world.app.snapshots.load(STREAM).kept == 23


def test_without_the_table_commands_go_on(world: World) -> None:
    world.open(points=1_000_000)
    debits(world, 20)
    with world.app.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE snapshots"))
    assert world.app.take_snapshots() == 0
    world.restart()
    debits(world, 1)
    assert world.balance()["version"] == 23


def test_the_format_is_counted_up_when_what_is_kept_changes() -> None:
    """Whoever changes what an account is made of: count FORMAT up, keep the new facts, then change this."""
    events = [q.AccountOpened, q.PointsGranted, q.PointsReserved, q.Draw, q.Scope, q.Usage]
    assert snapshot_module.FORMAT == 3
    assert {e.__name__: " ".join(e.__struct_fields__) for e in events} == {
        "AccountOpened": "at recorded_at request_id fingerprint subscriber plan credit_limit",
        "PointsGranted": "at recorded_at request_id fingerprint amount source price_fen scope priority effective_at "
        "expires_at plan plan_version origin subscription",
        "PointsReserved": "at recorded_at request_id fingerprint call model rate_card amount draws expires_at "
        "max_usage final max_output_tokens",
        "Draw": "grant amount",
        "Scope": "models families",
        "Usage": "input cached_input cache_write output",
    }
