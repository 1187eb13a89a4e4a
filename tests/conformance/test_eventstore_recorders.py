"""The eventsourcing library's own suite for application recorders, run on ours."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.tests.persistence import ApplicationRecorderTestCase

from shared.eventstore.database import engine, migrate
from shared.eventstore.log import EventLog


class Suite(ApplicationRecorderTestCase[Any]):
    """Driven by pytest below, one method at a time: fixtures bring the database."""

    INITIAL_VERSION = 1
    url = ""

    def new_originator_id(self) -> UUID | str:  # type: ignore[override]
        return str(uuid.uuid4())

    def create_recorder(self) -> Any:
        made = engine(self.url)
        migrate(made, "quota")
        made.dispose()
        log = EventLog(self.url)
        self.addCleanup(log.close)
        return log.recorder


Suite.__test__ = False  # type: ignore[attr-defined]


def run(method: str, url: str) -> None:
    suite = Suite(method)
    suite.url = url
    result = suite.run()
    assert result is not None
    told = [text for _, text in result.failures + result.errors]
    assert result.wasSuccessful(), "\n".join(told)


def test_sqlite_inserts_and_selects_as_the_library_expects(tmp_path: Path) -> None:
    run("test_insert_select", f"sqlite:///{tmp_path}/log.db")


@pytest.mark.servers
@pytest.mark.parametrize("method", ["test_insert_select", "test_concurrent_no_conflicts"])
def test_postgresql_inserts_and_selects_as_the_library_expects(method: str, new_database: Callable[[str], str]) -> None:
    run(method, new_database("quota"))
