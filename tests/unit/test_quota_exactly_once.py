"""Same request, same answer; batches; restarts; several writers of one log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.errors import Conflict, IdempotencyConflict
from shared.eventstore.log import EventLog
from tests.unit.quota_world import OPERATOR, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def named(command: str, request_id: str, account: str = "a1", **fields: Any) -> dict[str, Any]:
    return {"command": command, "operator": OPERATOR, "account": account, "request_id": request_id, **fields}


DEBIT: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 100}}


def test_a_repeated_request_has_one_effect_and_the_same_answer_for_good(world: World) -> None:
    world.open(points=1_000_000)
    first = world.do("debit", request_id="d", **DEBIT)
    again = world.do("debit", request_id="d", **DEBIT)
    world.restart()
    after_restart = world.do("debit", request_id="d", **DEBIT)
    assert first["replayed"] is False
    assert again == after_restart == first | {"replayed": True}
    assert world.balance()["available"] == 900_000


def test_another_command_under_an_old_key_conflicts(world: World) -> None:
    world.open(points=1_000_000)
    world.do("debit", request_id="d", **DEBIT)
    with pytest.raises(IdempotencyConflict):
        world.do("debit", request_id="d", model="kimi-k2.5", usage={"input": 101})
    with pytest.raises(IdempotencyConflict):
        world.do("release", request_id="d", reservation="x")


def test_a_refusal_is_judged_anew(world: World) -> None:
    world.open()
    assert world.refusal("debit", request_id="d", **DEBIT) == "InsufficientQuota"
    world.do("grant", amount=1_000_000, source="purchase")
    assert world.do("debit", request_id="d", **DEBIT)["replayed"] is False


def test_a_batch_answers_each_command_in_order_and_a_refusal_touches_no_other(world: World) -> None:
    answers = world.app.execute(
        [
            named("open_account", "o"),
            named("grant", "g", amount=250_000, source="purchase"),
            named("debit", "d1", **DEBIT),
            named("debit", "d1", **DEBIT),
            named("debit", "d1", model="kimi-k2.5", usage={"input": 1}),
            named("debit", "d2", account="nobody", **DEBIT),
            {"command": "fly"},
            "nonsense",
            named("debit", "d3", **DEBIT),
            named("debit", "d4", **DEBIT),
        ]
    )
    told = [a["ok"]["kind"] if "ok" in a else a["error"]["code"] for a in answers]
    assert told == [
        "AccountOpened",
        "PointsGranted",
        "TokensDebited",
        "TokensDebited",
        "IdempotencyConflict",
        "UnknownAccount",
        "MalformedCommand",
        "MalformedCommand",
        "TokensDebited",
        "InsufficientQuota",
    ]
    assert [answers[2]["ok"]["replayed"], answers[3]["ok"]["replayed"]] == [False, True]
    assert world.app.log.head() == 4


def test_one_batch_equals_the_same_commands_one_by_one(world: World, tmp_path: Path) -> None:
    commands = [
        named("open_account", "o"),
        named("grant", "g", amount=10_000_000, source="purchase"),
        *(named("reserve", f"h{n}", model="kimi-k2.5", amount=1_000_000) for n in range(5)),
        *(named("settle", f"s{n}", reservation=f"h{n}", usage={"input": 100 * n}) for n in range(4)),
        named("release", "l", reservation="h4"),
        named("reverse", "v", debit="s3"),
    ]
    world.app.execute(commands)
    other = World(tmp_path / "other")
    for command in commands:
        other.app.execute([command])
    assert [e[:5] for e in world.app.log.read(0, 100)] == [e[:5] for e in other.app.log.read(0, 100)]


def test_positions_and_versions_have_no_gap_after_refusals_and_conflicts(world: World) -> None:
    world.open(points=500_000)
    for n in range(8):
        world.refusal("debit", request_id=f"d{n}", **DEBIT) if n > 4 else world.do("debit", request_id=f"d{n}", **DEBIT)
    events = world.app.log.read(0, 100)
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    assert [e.version for e in events] == list(range(1, len(events) + 1))


def test_two_processes_on_one_log_take_turns_and_agree(world: World) -> None:
    world.open(points=1_000_000)
    other = world.start()
    for n in range(10):
        app = (world.app, other)[n % 2]
        app.execute([named("debit", f"d{n}", **DEBIT), named("debit", f"x{n}", account="nobody", **DEBIT)])
    assert [a["error"]["code"] for a in other.execute([named("debit", "d10", **DEBIT)])] == ["InsufficientQuota"]
    assert other.execute([named("debit", "d0", **DEBIT)])[0]["ok"]["replayed"] is True
    assert world.balance()["available"] == 0
    assert world.app.writer.refresh() == other.writer.refresh() == 12
    assert [app.accounts.account(f"{OPERATOR}/a1").version for app in (world.app, other)] == [12, 12]


def test_a_writer_that_lost_the_race_decides_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=100_000)
    other = world.start()
    append = EventLog.append
    raced: list[bool] = []

    def race(log: EventLog, *args: Any, **kwargs: Any) -> Any:
        if log is world.app.log and not raced:
            raced.append(True)
            other.execute([named("debit", "theirs", **DEBIT)])
        return append(log, *args, **kwargs)

    monkeypatch.setattr(EventLog, "append", race)
    assert world.app.execute([named("debit", "ours", **DEBIT)])[0]["error"]["code"] == "InsufficientQuota"
    assert raced


def test_a_reservation_made_elsewhere_during_a_decision_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)
    other = world.start()
    known = EventLog.known
    raced: list[bool] = []

    def race(log: EventLog, keys: Any) -> Any:
        if log is world.app.log and not raced:  # its account in memory is as the log was a moment ago
            raced.append(True)
            other.execute([named("reserve", "h", model="kimi-k2.5", amount=1)])
        return known(log, keys)

    monkeypatch.setattr(EventLog, "known", race)
    settle = named("settle", "s", reservation="h", usage={"input": 100})
    assert world.app.execute([settle])[0]["ok"]["amount"] == 100_000


def test_nothing_is_answered_when_nothing_was_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open(points=1_000_000)

    def fail(*_: Any, **__: Any) -> Any:
        raise Conflict("never")

    with monkeypatch.context() as broken:
        broken.setattr(EventLog, "append", fail)
        with pytest.raises(Conflict):
            world.do("debit", request_id="d", **DEBIT)
    assert world.balance()["available"] == 1_000_000
    assert world.do("debit", request_id="d", **DEBIT)["replayed"] is False


def test_accounts_in_memory_are_bounded_and_come_back_from_the_log(world: World) -> None:
    world.settings.accounts_cached_max = 3
    for n in range(10):
        world.open(f"b{n}", points=1_000_000)
    assert len(world.app.accounts.accounts) <= 4
    world.do("debit", "b0", **DEBIT)
    assert world.balance("b0")["available"] == 900_000


def test_the_read_model_equals_the_state_folded_from_events(world: World) -> None:
    world.open(points=5_000_000, credit_limit=1_000_000)
    world.do("reserve", request_id="h", model="kimi-k2.5", amount=1_000_000)
    world.do("settle", reservation="h", usage={"input": 5500})
    world.do("reserve", request_id="h2", model="kimi-k2.5", amount=100_000)
    events = [e._asdict() for e in world.app.log.read(0, 100)]
    for cut in (events[:2], events[1:5], events):  # in any sections, with repeats
        world.app.follow_quota(cut)
    from services.quota.schemas import Balances

    (row,) = world.app.balances(Balances())["accounts"]
    folded = world.app.accounts.account(f"{OPERATOR}/a1")
    assert row["grants"]["credit"] == {
        "granted": 0, "reserved": 100_000, "debited": 500_000, "reversed": 0, "expired": 0, "voided": 0
    }  # fmt: skip
    for name, grant in folded.grants.items():
        book = row["grants"][name]
        assert (book["granted"], book["reserved"], book["debited"]) == (
            grant.event.amount,
            grant.reserved,
            grant.debited,
        )
    assert (row["version"], row["overdrawn"]) == (folded.version, folded.overdrawn)
