"""What we promise ourselves, each as a row of the table. Must not know how a row came to its figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tokengrid.bench import closing, counted, evidence, projecting, sealing
from tokengrid.bench.measure import Row


class Goal(NamedTuple):
    """Of the row `name`: its ratio to `against` is at least `at_least`, or, against nothing, its value is; or its value
    is at most `at_most`."""

    name: str
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None


ENGINE = "PostgreSQL: engine, 1,000 a batch"
EXECUTE = "RabbitMQ: quota.execute, 1,000 a call"
SINGLE = "RabbitMQ: quota.debit, one command a call"
ON_EMPTY = "PostgreSQL, a minute: 0 events stored"
ON_TEN_MILLION = "PostgreSQL, a minute: 10,000,000 events stored"
MANY_ACCOUNTS = "PostgreSQL: memory of a process, 1,000,000 accounts, 50,000 of them active, at its most"
USAGE_PROJECTED = projecting.row_name("PostgreSQL", projecting.PAGES[-1])
CLOSED = closing.row_name("PostgreSQL", closing.ACCOUNTS)
REBUILT = closing.rebuilt_name("PostgreSQL", closing.ACCOUNTS)
CLOSED_FULL = closing.row_name("PostgreSQL", closing.FULL_ACCOUNTS)
REPLAYED, ARCHIVED = "replay from the archive", "archive, bytes a debit"  # of `replaying`, which needs an extra
COUNTED_MILLION, COUNTED_TEN_MILLION = counted.row_name(counted.MILLION), counted.row_name(10 * counted.MILLION)

GOALS = (
    Goal(ENGINE, "PostgreSQL: floor, bare insert, 1,000 a commit", at_least=0.7),
    Goal(ENGINE, "PostgreSQL: stock library, 1 a commit", at_least=60),
    Goal("PostgreSQL: engine, 1,000 a batch, one hot account", ENGINE, at_least=0.9),
    Goal("PostgreSQL: replay of the log", ENGINE, at_least=4),
    Goal(EXECUTE, ENGINE, at_least=0.6),
    Goal(SINGLE, "RabbitMQ: stock @rpc that does nothing", at_least=4),
    Goal(SINGLE, "RabbitMQ: stock @rpc, SQLAlchemy updates a balance", at_least=6),
    Goal(ON_TEN_MILLION, ON_EMPTY, at_least=0.7),
    Goal(MANY_ACCOUNTS, at_most=1024),
    Goal(USAGE_PROJECTED, ENGINE, at_least=3),
    Goal(sealing.row_name("PostgreSQL"), ENGINE, at_least=3),
    Goal(evidence.MADE, at_most=1),
    Goal(evidence.SIZE, at_most=5),
    Goal(evidence.PROVEN, at_least=50_000),
    Goal(REPLAYED, ENGINE, at_least=5),
    Goal(REPLAYED, "SQLite: engine, 1,000 a batch", at_least=5),
    Goal(ARCHIVED, at_most=60),
    Goal(CLOSED, at_least=2000),
    Goal(CLOSED_FULL, at_least=2000),
    Goal(REBUILT, f"{CLOSED}: first run, followed and closed", at_least=1),
    Goal(COUNTED_TEN_MILLION, COUNTED_MILLION, at_least=0.7),
)


def with_goals(rows: Iterable[Row]) -> list[Row]:
    """The rows, with ratios, beside what was promised of them."""
    goals = {(goal.name, goal.against): goal for goal in GOALS}
    return [_beside(row, goals.get((row.name, row.against))) for row in rows]


def _beside(row: Row, goal: Goal | None) -> Row:
    if goal is None:
        return row
    if goal.at_most is not None:
        return row._replace(goal=f"at most {goal.at_most:g} {row.unit}", met=row.value <= goal.at_most)
    assert goal.at_least is not None
    if goal.against is None:
        return row._replace(goal=f"at least {goal.at_least:g} {row.unit}", met=row.value >= goal.at_least)
    return row._replace(goal=f"at least {goal.at_least:g}", met=row.ratio is not None and row.ratio >= goal.at_least)
