"""Routing on PostgreSQL: the same rules as on SQLite, with two replicas on one database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.routing_world import World

pytestmark = pytest.mark.servers


@pytest.fixture
def world(tmp_path: Path, postgres_database: str) -> Iterator[World]:
    made = World(tmp_path, database=postgres_database)
    yield made
    made.close()


def test_two_replicas_route_report_and_learn_together(world: World) -> None:
    other = world.replica()
    for n in range(5):
        first = world.route(f"c{n}", app=[world.app, other][n % 2])
        assert first["deployment"] == "bj-a"
        assert world.route(f"c{n}", app=[other, world.app][n % 2]) == first | {"replayed": True}
        world.report(f"c{n}", "bj-a", "error", app=other)
    assert world.seen("bj-a") == world.seen("bj-a", other)
    assert world.route("c0", exclude=["bj-a"])["deployment"] == "bj-b"


def test_a_restart_knows_what_was_known(world: World) -> None:
    for n in range(5):
        world.route(f"c{n}")
        world.report(f"c{n}", "bj-a", "error")
    before = world.seen("bj-a")
    world.restart()
    assert world.seen("bj-a") == before
    assert world.route("next")["deployment"] == "bj-b"
