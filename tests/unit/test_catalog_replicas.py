"""The log is the truth: it survives a restart, and any number of processes may publish into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import OperationalError

from shared.errors import Conflict, Unavailable
from shared.eventstore.log import EventLog
from shared.eventstore.recorders import SQLiteLogRecorder
from tests.unit.catalog_world import CARD, TODAY, TOMORROW, World, small


def card(input_rate: int) -> list[dict[str, Any]]:
    return [CARD | {"rates": {"input": input_rate}}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.publish(TODAY, "first", **small())
    yield world
    world.app.close()


LISTS = ("models", "rate_cards", "plans", "tariffs", "deployments")
ORDER = ("region", "operator", "model", "data_centre", "deployment", "rate_card", "tariff", "plan")


def everything(world: World) -> list[Any]:
    return [world.app.listed(name, {"at": TOMORROW}) for name in LISTS]


def test_the_catalogue_comes_back_from_the_log(world: World) -> None:
    before = everything(world)
    restarted = world.again()
    assert everything(restarted) == before
    assert restarted.publish(TODAY, "first", **small())["replayed"]
    assert restarted.publish(TODAY, **small())["skipped"] == 10
    restarted.app.close()


def test_two_processes_publish_in_turn(world: World) -> None:
    other = world.again()
    for n in range(1, 7):
        (world, other)[n % 2].publish(TOMORROW, rate_cards=card(n))
    assert everything(world) == everything(other)
    versions = world.app.history({"kind": "rate_card", "key": "east/m1"})
    assert [(v["version"], v["item"]["rates"]["input"]) for v in versions[1:]] == [(n + 1, n) for n in range(1, 7)]
    assert [e.position for e in world.app.log.read(0, 100)] == list(range(1, 17))
    other.app.close()


def test_a_question_sees_what_another_process_published(world: World) -> None:
    other = world.again()
    world.publish(TOMORROW, rate_cards=card(5))
    assert other.input_rate(at=TOMORROW) == 5
    other.app.close()


def test_the_slower_of_two_decides_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other process publishes the same change after ours was decided and before it was stored.
    other = world.again()
    append = world.app.log.append
    races = iter([card(5)])

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        for theirs in races:
            other.publish(TOMORROW, rate_cards=theirs)
        return append(*args, **kwargs)

    monkeypatch.setattr(world.app.log, "append", overtaken)
    answer = world.publish(TOMORROW, rate_cards=card(5), plans=[small()["plans"][0] | {"plan": "p2"}])
    assert (answer["published"], answer["skipped"], answer["first_position"]) == (1, 1, 12)
    assert everything(world) == everything(other)
    assert len(world.app.history({"kind": "rate_card", "key": "east/m1"})) == 2
    other.app.close()


def test_only_the_first_event_carries_the_request(world: World) -> None:
    known = world.app.log.known(["publish:first"])
    assert known["publish:first"].position == 1
    assert {e.event.request_id for e in world.app.log.read(0, 100)} == {"first"}  # type: ignore[attr-defined]


def test_followers_find_no_reference_to_nothing_on_their_way(world: World) -> None:
    kinds = [e.stream.split(":")[0] for e in world.app.log.read(0, 100)]
    assert kinds == sorted(kinds, key=ORDER.index)


def test_a_database_that_fails_after_a_lost_race_leaves_nothing_unpublished_in_view(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(world)

    def lose(*_: object, **__: object) -> object:
        monkeypatch.setattr(SQLiteLogRecorder, "select_rows", fail)
        raise Conflict("another writer was faster")

    def fail(*_: object, **__: object) -> object:
        raise OperationalError("connection lost")

    with monkeypatch.context() as broken:
        broken.setattr(EventLog, "append", lose)
        with pytest.raises(Unavailable):
            world.publish(TOMORROW, rate_cards=card(9))
    monkeypatch.undo()
    assert everything(world) == before
    world.publish(TOMORROW, rate_cards=card(9))
    assert world.input_rate(at=TOMORROW) == 9
