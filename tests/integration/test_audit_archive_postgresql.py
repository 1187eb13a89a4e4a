"""Archives of PostgreSQL's logs: a log restored into it is archived again to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.archive.databases import Rows, restore
from services.audit.archive.writing import write_log
from shared.archive.reading import LogArchive
from shared.errors import Conflict, Unavailable
from tests.unit.archive_world import World

pytestmark = pytest.mark.servers


def test_a_log_goes_into_postgresql_and_back(world: World, new_database: Callable[[str], str], tmp_path: Path) -> None:
    url = new_database("quota")
    archive = LogArchive.open(world.archive, "quota")
    assert restore(archive, url) == archive.manifest.size
    assert restore(archive, url) == 0
    with Rows(url) as rows:
        assert rows.read(0, 10_000) == world.rows.read(0, 10_000)
        assert write_log(tmp_path, world.about(), rows.read, rows.head()) == archive.manifest
    with psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO events (position, originator_id, originator_version, topic, state)"
            " SELECT max(position) + 1, 'somebody', 1, 't', '{}' FROM events"
        )
    with pytest.raises(Conflict):
        restore(archive, url)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with Rows("postgresql+psycopg://nobody@127.0.0.1:1/nothing") as rows, pytest.raises(Unavailable):
        rows.read(0, 1)
