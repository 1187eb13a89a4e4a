"""Whoever rules over PostgreSQL changes events behind the services' backs: each of it is found, and where it is.

The administrator switches the triggers off, edits the table of events, keeps positions gapless where that can be
done, and switches the triggers on again. Audit has sealed what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from shared.eventstore.database import engine
from tests.unit.audit_scene import Scene, flags, found
from tests.unit.audit_world import two_months
from tokengrid.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.servers

LOGS = ("catalog", "quota", "routing", "billing")
FAR = 500_000  # room in the partition to move positions in, row by row
CHANGED, GONE = "event is not the one that was sealed", "event that was sealed is not there"


class Administrator:
    """Rights over everything in one service's database, and no respect."""

    def __init__(self, url: str) -> None:
        self._engine = engine(url)
        self.run("CREATE TABLE kept AS TABLE events")

    def run(self, *statements: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))  # no trigger fires
            for statement in statements:
                connection.execute(sa.text(statement), values)

    def undo(self) -> None:
        self.run("TRUNCATE events", "INSERT INTO events SELECT * FROM kept")

    def move(self, behind: int, by: int) -> None:
        """Everything behind a position gets another one, without a gap for anybody to see."""
        self.run(
            f"UPDATE events SET position = position + {FAR} WHERE position > :behind",
            f"UPDATE events SET position = position - {FAR} + :by WHERE position > {FAR}",
            behind=behind,
            by=by,
        )

    def head(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT max(position) FROM events")).scalar_one())

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture(scope="module")
def scene(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    for service in (*LOGS, "audit"):
        postgresql.create_database(f"tampered_{service}")
    # As the administrator: the services' own users may not switch triggers off.
    url = sa.make_url(postgresql.admin_url()).set(database="tampered_SERVICE")
    template = url.render_as_string(hide_password=False).replace("SERVICE", "{service}")
    market = two_months(tmp_path_factory.mktemp("tampered"), seed=5, events=60, database=template)
    # The last of billing's events is one that can be told twice: moved behind its end, billing reads it again.
    due = next(bill for bill in market.client.call("billing", "bills")["bills"] if bill["total_fen"] > 2)
    market.billing.submit("pay", {"request_id": "p9", "number": due["number"], "fen": 1})
    market.follow()
    yield Scene(market)
    market.close()


@pytest.fixture(scope="module")
def administrators(scene: Scene) -> Iterator[dict[str, Administrator]]:
    of = {log: Administrator(scene.market.settings.database_url(log)) for log in LOGS}
    yield of
    for each in of.values():
        each.close()


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def administrator(administrators: dict[str, Administrator], log: str) -> Iterator[Administrator]:
    yield administrators[log]
    administrators[log].undo()


def located(scene: Scene, log: str) -> list[tuple[str, int]]:
    """What an audit says is not as it was sealed, and where; there is always somebody who does not agree."""
    report = scene.audit()
    assert "log" in flags(report)
    assert {d.log for d in report.differences if d.area == "log"} == {log}
    return [(what, d.position) for what in (CHANGED, GONE) for d in found(report, "log", what)]


def test_untouched_everything_agrees(scene: Scene, administrators: dict[str, Administrator]) -> None:
    assert scene.audit().ok, scene.audit().differences


def test_the_door_is_locked_for_everybody_else(scene: Scene, log: str) -> None:
    door = engine(scene.market.settings.database_url(log))
    with door.begin() as connection, pytest.raises(sa.exc.DBAPIError, match="events are immutable"):
        connection.execute(sa.text("DELETE FROM events WHERE position = 1"))
    door.dispose()


def test_a_changed_event(scene: Scene, administrator: Administrator, log: str) -> None:
    middle = administrator.head() // 2
    administrator.run(
        "UPDATE events SET state = convert_to(replace(convert_from(state, 'UTF8'), '\"at\":\"2', '\"at\":\"3'), 'UTF8')"
        " WHERE position = :at",
        at=middle,
    )
    assert located(scene, log) == [(CHANGED, middle)]


def test_a_deleted_event(scene: Scene, administrator: Administrator, log: str) -> None:
    middle = administrator.head() // 2
    administrator.run("DELETE FROM events WHERE position = :at", at=middle)
    assert located(scene, log) == [(GONE, middle)]


def test_a_deleted_event_and_all_behind_it_moved_up(scene: Scene, administrator: Administrator, log: str) -> None:
    near = administrator.head() - 3
    administrator.run("DELETE FROM events WHERE position = :at", at=near)
    administrator.move(near, -1)
    report = scene.audit()
    assert found(report, "log", "log is shorter than its checkpoint")
    assert found(report, "invariants", "positions have a gap") == []


def test_an_invented_event_among_the_others(scene: Scene, administrator: Administrator, log: str) -> None:
    near = administrator.head() - 3
    administrator.move(near, 1)
    administrator.run(
        "INSERT INTO events (position, originator_id, originator_version, topic, state)"
        " SELECT position + 1, originator_id || '-copy', 1, topic, state FROM events WHERE position = :at",
        at=near,
    )
    assert located(scene, log) == [(CHANGED, near + n) for n in (1, 2, 3)]


def test_two_events_that_changed_places(scene: Scene, administrator: Administrator, log: str) -> None:
    first, second = administrator.head() // 3, administrator.head() // 3 + 1
    administrator.run(
        f"UPDATE events SET position = position + {FAR} WHERE position IN (:first, :second)",
        f"UPDATE events SET position = :first + :second - (position - {FAR}) WHERE position > {FAR}",
        first=first,
        second=second,
    )
    assert located(scene, log) == [(CHANGED, first), (CHANGED, second)]


def test_a_cut_tail(scene: Scene, administrator: Administrator, log: str) -> None:
    head = administrator.head()
    administrator.run("DELETE FROM events WHERE position > :last", last=head - 2)
    report = scene.audit()
    shorter = found(report, "log", "log is shorter than its checkpoint")
    assert (shorter[-1].position, shorter[-1].expected) == (head - 2, str(head))


def test_another_version_number(scene: Scene, administrator: Administrator, log: str) -> None:
    last = administrator.head()
    administrator.run("UPDATE events SET originator_version = originator_version + 1 WHERE position = :at", at=last)
    assert located(scene, log) == [(CHANGED, last)]


def test_the_tiles_and_the_event_alike(
    scene: Scene, administrators: dict[str, Administrator], change_tile: Callable[[], None]
) -> None:
    """Who rules over audit's database too cannot sign: what was signed gives it away, though not where."""
    quota = administrators["quota"]
    quota.run("UPDATE events SET trace = NULL, state = state || ' '::bytea WHERE position = 5")
    change_tile()
    report = scene.audit()
    assert found(report, "log", "log is not the one that was signed")
    assert found(report, "log", "what differs could not be located")
    quota.undo()


@pytest.fixture
def change_tile(scene: Scene) -> Iterator[Callable[[], None]]:
    audit = engine(scene.market.settings.database_url("audit"))

    def flip() -> None:
        changed = "set_byte(hashes, 128, 255 - get_byte(hashes, 128))"
        where = "log = 'quota' AND level = 0 AND index = 0"
        with audit.begin() as connection:
            connection.execute(sa.text(f"UPDATE tiles SET hashes = {changed} WHERE {where}"))

    yield flip
    flip()
    audit.dispose()
