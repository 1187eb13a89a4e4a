"""The writer when its callers are killed, when one of them brings a fault, when the database fails."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import eventlet
import pytest
from eventlet.event import Event
from eventsourcing.persistence import OperationalError
from greenlet import GreenletExit

from services.quota.application import Accounts
from shared.errors import Busy, TokengridError, Unavailable
from shared.eventstore import writer as writer_module
from shared.eventstore.log import EventLog
from shared.eventstore.recorders import SQLiteLogRecorder
from tests.unit.quota_world import OPERATOR, World

DEBIT: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 100}}


class Gate:
    """Holds the next append (or the `nth`) back, before or after it has stored, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int = 1, *, after: bool = False) -> None:
        self.reached, self.opened = Event(), Event()
        append = EventLog.append
        calls = count(1)

        def held(log: EventLog, *args: Any, **kwargs: Any) -> Any:
            ours = next(calls) == nth
            if after or not ours:
                append(log, *args, **kwargs)
            if ours:
                self.reached.send()
                self.opened.wait()
            if ours and not after:
                append(log, *args, **kwargs)

        monkeypatch.setattr(EventLog, "append", held)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.open(points=1_000_000)
    return world


def named(command: str, request_id: str, **fields: Any) -> dict[str, Any]:
    return {"command": command, "operator": OPERATOR, "account": "a1", "request_id": request_id, **fields}


def debit(world: World, request_id: str) -> Any:
    """A debit in a green thread of its own; its answer, its refusal, or that it was killed."""

    def run() -> Any:
        try:
            return world.do("debit", request_id=request_id, **DEBIT)
        except (TokengridError, RuntimeError, GreenletExit) as error:
            return error

    return eventlet.spawn(run)


def queued(world: World, most: int) -> None:
    """Returns when so many callers wait behind those at work."""
    with eventlet.Timeout(10):
        while len(world.app.writer._waiting) < most:
            eventlet.sleep(0)


def decided(world: World, most: int) -> None:
    """Returns when so many commands are decided and not stored."""
    with eventlet.Timeout(10):
        while world.app.writer._decided - world.app.writer.position < most:
            eventlet.sleep(0)


def debits(world: World) -> list[str]:
    return [e.event.request_id for e in world.app.log.read(0, 100) if "TokensDebited" in e.topic]  # type: ignore[attr-defined]


def test_a_killed_caller_leaves_no_command_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    leader = debit(world, "d1")
    gate.reached.wait()
    next_one = debit(world, "d2")
    decided(world, 2)  # on top of the first, which is on its way
    waiter = debit(world, "d3")
    queued(world, 1)
    waiter.kill()
    next_one.kill()
    gate.opened.send()
    leader.wait()
    world.do("debit", request_id="d4", **DEBIT)
    assert debits(world) == ["d1", "d4"]
    assert world.balance()["available"] == 800_000


def test_a_batch_is_decided_while_the_last_one_commits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    callers = [debit(world, "d1")]
    gate.reached.wait()
    callers.append(debit(world, "d2"))
    decided(world, 2)
    gate.opened.send()
    assert [caller.wait()["position"] for caller in callers] == [3, 4]


def test_what_was_decided_on_something_that_was_not_stored_is_decided_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.start()
    gate = Gate(monkeypatch)
    first = debit(world, "d1")
    gate.reached.wait()
    others = [debit(world, f"d{n}") for n in (2, 3)]
    decided(world, 2)
    # Another process takes the place in the log that the first was about to get, and most of the points.
    other.execute([named("debit", "elsewhere", model="kimi-k2.5", usage={"input": 850})])
    gate.opened.send()
    answers = [thread.wait() for thread in (first, *others)]
    assert sorted(type(answer).__name__ for answer in answers) == ["InsufficientQuota", "InsufficientQuota", "dict"]
    assert world.balance()["available"] == 50_000
    assert len(debits(world)) == 2


def test_a_refusal_that_rests_on_what_is_not_stored_yet_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.do("debit", request_id="most", model="kimi-k2.5", usage={"input": 900})
    gate = Gate(monkeypatch)
    first = debit(world, "d1")
    gate.reached.wait()
    refused = debit(world, "d2")
    eventlet.sleep(0)
    assert not refused.dead
    first.kill()  # it was never stored: then there is enough
    assert refused.wait()["request_id"] == "d2"
    assert debits(world) == ["most", "d2"]


def test_a_refused_command_that_was_there_before_gets_its_first_answer(world: World) -> None:
    reserve = named("reserve", "h", model="kimi-k2.5", amount=1000)
    settle = named("settle", "s", reservation="h", usage={"input": 1})
    first = world.app.execute([reserve, settle])
    again = world.app.execute([settle, reserve])  # by itself: the reservation has ended
    assert [a["ok"] for a in again] == [{**first[1]["ok"], "replayed": True}, {**first[0]["ok"], "replayed": True}]
    changed = named("settle", "s", reservation="h", usage={"input": 2})
    assert world.app.execute([changed])[0]["error"]["code"] == "IdempotencyConflict"


@pytest.mark.parametrize("stored", [False, True])
def test_a_killed_leader_takes_nobody_with_it(world: World, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    gate = Gate(monkeypatch)
    first = debit(world, "d1")
    gate.reached.wait()
    second = debit(world, "d2")
    decided(world, 2)
    riders = [debit(world, f"d{n}") for n in (3, 4, 5)]
    queued(world, 3)
    # One of the three leads for all who waited meanwhile.
    theirs = Gate(monkeypatch, 2, after=stored)
    gate.opened.send()
    theirs.reached.wait()
    riders[0].kill()
    answers = [rider.wait() for rider in riders[1:]]
    assert isinstance(riders[0].wait(), GreenletExit)
    assert [answer["request_id"] for answer in (first.wait(), second.wait(), *answers)] == ["d1", "d2", "d4", "d5"]
    assert [answer["replayed"] for answer in answers] == [stored, stored]
    assert sorted(debits(world)) == (["d1", "d2", "d3", "d4", "d5"] if stored else ["d1", "d2", "d4", "d5"])
    assert world.balance()["available"] == 1_000_000 - 100_000 * len(debits(world))


@pytest.mark.parametrize("nth", [1, 2])
def test_who_is_killed_while_giving_up_a_way_into_the_log_gives_up_its_locks_too(
    world: World, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """To end a COPY is to wait for the database. `nth`: of the batch at the log's end, and of the one behind it."""
    reached, calls, abandon = Event(), count(1), EventLog.abandon

    def waits(log: EventLog, opened: Any) -> None:
        if next(calls) == nth:
            reached.send()
            Event().wait()
        abandon(log, opened)

    monkeypatch.setattr(EventLog, "abandon", waits)
    gate = Gate(monkeypatch)
    callers = [debit(world, "d1")]
    gate.reached.wait()
    callers.append(debit(world, "d2"))
    decided(world, 2)
    rider = debit(world, "d3")
    queued(world, 1)
    callers[0].kill()
    reached.wait()
    callers[nth - 1].kill()
    with eventlet.Timeout(10):
        assert rider.wait()["request_id"] == "d3"
        answers = [caller.wait() for caller in callers]
    assert [isinstance(answer, GreenletExit) for answer in answers] == [True, nth == 2]
    assert sorted(debits(world)) == (["d3"] if nth == 2 else ["d2", "d3"])
    assert world.balance()["available"] == 1_000_000 - 100_000 * len(debits(world))


def test_a_fault_in_one_callers_command_is_not_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    first = debit(world, "d1")
    gate.reached.wait()
    decide = Accounts.decide

    def faulty(room: Accounts, command: Any, fingerprint: str) -> Any:
        if command.request_id == "bad":
            raise RuntimeError("a fault")
        return decide(room, command, fingerprint)

    monkeypatch.setattr(Accounts, "decide", faulty)
    second = debit(world, "d2")
    decided(world, 2)
    others = [debit(world, "d3"), debit(world, "bad"), debit(world, "d4")]
    queued(world, 3)
    gate.opened.send()
    answers = [thread.wait() for thread in (first, second, *others)]
    assert isinstance(answers.pop(3), RuntimeError)
    assert [answer["request_id"] for answer in answers] == debits(world) == ["d1", "d2", "d3", "d4"]
    assert world.balance()["available"] == 600_000


@pytest.mark.parametrize("question", ["select_rows", "select_stream", "select_known"])
def test_what_could_not_be_read_is_unavailable_and_leaves_nothing_wrong_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    world.restart()
    world.app.writer._wary = 2  # it looks before it decides

    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(SQLiteLogRecorder, question, fail)
        with pytest.raises(Unavailable):
            world.do("debit", request_id="d", **DEBIT)
    assert world.do("debit", request_id="d", **DEBIT)["replayed"] is False
    assert world.balance()["available"] == 900_000


def test_past_a_bound_of_waiting_commands_a_caller_is_told_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.app.writer, "_waiting_max", 2)
    gate = Gate(monkeypatch)
    leader = debit(world, "d1")
    gate.reached.wait()
    prepared = debit(world, "d2")
    decided(world, 2)
    waiters = [debit(world, name) for name in ("d3", "d4")]
    queued(world, 2)
    assert isinstance(debit(world, "d5").wait(), Busy)
    gate.opened.send()
    for green in (leader, prepared, *waiters):
        green.wait()
    assert debits(world) == ["d1", "d2", "d3", "d4"]
    assert world.do("debit", request_id="d5", **DEBIT)["replayed"] is False


def test_commands_that_share_a_commit_keep_their_own_traces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = iter(["trace-1", "trace-2", "trace-3", "trace-4"])
    monkeypatch.setattr(world.app.writer, "_trace", lambda: next(traces))
    gate = Gate(monkeypatch)
    callers = [debit(world, "d1")]
    gate.reached.wait()
    callers.append(debit(world, "d2"))
    decided(world, 2)
    callers += [debit(world, name) for name in ("d3", "d4")]
    queued(world, 2)
    gate.opened.send()
    for green in callers:
        green.wait()
    stored = world.app.log.read(2, 10)
    assert [(e.event.request_id, e.trace) for e in stored] == [  # type: ignore[attr-defined]
        ("d1", "trace-1"),
        ("d2", "trace-2"),
        ("d3", "trace-3"),
        ("d4", "trace-4"),
    ]


def test_what_waits_is_counted_through_kills_and_faults(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    leader = debit(world, "d1")
    gate.reached.wait()
    callers = [debit(world, "d2")]
    decided(world, 2)
    callers += [debit(world, f"d{n}") for n in range(3, 9)]
    queued(world, 6)
    assert world.app.writer._waiting_count == 6
    callers[0].kill()
    callers[1].kill()
    leader.kill()
    for green in callers[2:]:
        green.wait()
    assert world.app.writer._waiting_count == 0


def test_a_process_that_stood_by_for_long_begins_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CATCH_UP_PAGE", 5)
    monkeypatch.setattr(writer_module, "FAR", 10)
    other = world.start()
    other.execute([named("debit", f"e{n}", **DEBIT) for n in range(2)])
    other.execute([named("debit", f"f{n}", model="kimi-k2.5", usage={"input": 1}) for n in range(30)])
    assert world.app.accounts.accounts  # as they were before all that
    reads: list[int] = []
    read = EventLog.read
    monkeypatch.setattr(EventLog, "read", lambda log, after, limit: reads.append(after) or read(log, after, limit))  # type: ignore[func-returns-value]
    assert world.balance()["available"] == 1_000_000 - 200_000 - 30_000
    assert len(reads) == 2  # a page, and that behind the head there is nothing
    assert world.do("debit", request_id="d", **DEBIT)["position"] == world.app.log.head()
