"""The writer when its callers are killed, when one of them brings a fault, when the database fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eventlet
import pytest
from eventlet.event import Event
from eventsourcing.persistence import OperationalError
from greenlet import GreenletExit

from services.quota.application import Accounts
from shared.errors import Busy, TokengridError, Unavailable
from shared.eventstore.log import EventLog
from shared.eventstore.recorders import SQLiteLogRecorder
from tests.unit.quota_world import World

DEBIT: dict[str, Any] = {"model": "kimi-k2.5", "usage": {"input": 100}}


class Gate:
    """Holds the first append back, before or after it has stored, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> None:
        self.reached, self.opened = Event(), Event()
        append = EventLog.append

        def held(log: EventLog, *args: Any, **kwargs: Any) -> Any:
            first = not self.reached.ready()
            stored = append(log, *args, **kwargs) if after or not first else None
            if first:
                self.reached.send()
                self.opened.wait()
            return stored or append(log, *args, **kwargs)

        monkeypatch.setattr(EventLog, "append", held)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.open(points=1_000_000)
    return world


def debit(world: World, request_id: str) -> Any:
    """A debit in a green thread of its own; its answer, its refusal, or that it was killed."""

    def run() -> Any:
        try:
            return world.do("debit", request_id=request_id, **DEBIT)
        except (TokengridError, RuntimeError, GreenletExit) as error:
            return error

    return eventlet.spawn(run)


def queued(world: World, count: int) -> None:
    """Returns when so many callers wait behind the one at work."""
    with eventlet.Timeout(10):
        while len(world.app.writer._waiting) < count:
            eventlet.sleep(0)


def debits(world: World) -> list[str]:
    return [e.event.request_id for e in world.app.log.read(0, 100) if "TokensDebited" in e.topic]  # type: ignore[attr-defined]


def test_a_killed_caller_leaves_no_command_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    leader = debit(world, "d1")
    gate.reached.wait()
    waiter = debit(world, "d2")
    queued(world, 1)
    waiter.kill()
    gate.opened.send()
    leader.wait()
    world.do("debit", request_id="d3", **DEBIT)
    assert debits(world) == ["d1", "d3"]


@pytest.mark.parametrize("stored", [False, True])
def test_a_killed_leader_takes_nobody_with_it(world: World, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    gate = Gate(monkeypatch)
    first = debit(world, "d1")
    gate.reached.wait()
    riders = [debit(world, f"d{n}") for n in (2, 3, 4)]
    queued(world, 3)
    # The first is done with its own; the next one leads for the three that waited meanwhile.
    second = Gate(monkeypatch, after=stored)
    gate.opened.send()
    second.reached.wait()
    riders[0].kill()
    answers = [rider.wait() for rider in riders[1:]]
    assert isinstance(riders[0].wait(), GreenletExit)
    assert [answer["request_id"] for answer in (first.wait(), *answers)] == ["d1", "d3", "d4"]
    assert [answer["replayed"] for answer in answers] == [stored, stored]
    assert sorted(debits(world)) == (["d1", "d2", "d3", "d4"] if stored else ["d1", "d3", "d4"])
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
    others = [debit(world, "d2"), debit(world, "bad"), debit(world, "d3")]
    queued(world, 3)
    gate.opened.send()
    answers = [thread.wait() for thread in (first, *others)]
    assert isinstance(answers.pop(2), RuntimeError)
    assert [answer["request_id"] for answer in answers] == debits(world) == ["d1", "d2", "d3"]
    assert world.balance()["available"] == 700_000


@pytest.mark.parametrize("question", ["select_rows", "select_stream", "select_known"])
def test_what_could_not_be_read_is_unavailable_and_leaves_nothing_wrong_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    world.restart()

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
    waiters = [debit(world, name) for name in ("d2", "d3")]
    queued(world, 2)
    assert isinstance(debit(world, "d4").wait(), Busy)
    gate.opened.send()
    for green in (leader, *waiters):
        green.wait()
    assert debits(world) == ["d1", "d2", "d3"]
    assert world.do("debit", request_id="d4", **DEBIT)["replayed"] is False


def test_commands_that_share_a_commit_keep_their_own_traces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = iter(["trace-1", "trace-2", "trace-3"])
    monkeypatch.setattr(world.app.writer, "_trace", lambda: next(traces))
    gate = Gate(monkeypatch)
    callers = [debit(world, "d1")]
    gate.reached.wait()
    callers += [debit(world, name) for name in ("d2", "d3")]
    queued(world, 2)
    gate.opened.send()
    for green in callers:
        green.wait()
    stored = world.app.log.read(2, 10)
    assert [(e.event.request_id, e.trace) for e in stored] == [  # type: ignore[attr-defined]
        ("d1", "trace-1"),
        ("d2", "trace-2"),
        ("d3", "trace-3"),
    ]


def test_what_waits_is_counted_through_kills_and_faults(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    leader = debit(world, "d1")
    gate.reached.wait()
    callers = [debit(world, f"d{n}") for n in range(2, 8)]
    queued(world, 6)
    assert world.app.writer._waiting_count == 6
    callers[0].kill()
    leader.kill()
    for green in callers[1:]:
        green.wait()
    assert world.app.writer._waiting_count == 0
