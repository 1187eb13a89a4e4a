"""A log filled for the benchmark is one that the application could have written, and is measured as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from shared.config import Settings
from tokengrid.bench import calls, counted, engine, filling, growth
from tokengrid.bench import postgresql as postgresql_rows
from tokengrid.bench.measure import first_error
from tokengrid.servers import PostgreSQL

EVENTS, ACCOUNTS = 95, 10


@pytest.mark.parametrize("random_keys", [False, True], ids=["ordered", "random"])
def test_a_filled_log_is_whole_and_goes_on(tmp_path: Path, postgres_database: str, random_keys: bool) -> None:
    app = engine.priced(Settings(database=postgres_database), Settings(var=tmp_path))
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'events' ORDER BY indexname"
    with app.engine.connect() as connection:
        before = connection.execute(sa.text(indexes)).scalars().all()
    filling.fill(app, postgres_database, EVENTS, ACCOUNTS, random_keys=random_keys)

    head = app.log.head()
    logged = app.log.read(0, head + 1)
    assert [each.position for each in logged] == list(range(1, head + 1))
    filled = logged[-EVENTS:]
    versions: dict[str, list[int]] = {}
    for each in filled:
        assert each.event
        versions.setdefault(each.stream, []).append(each.version)
    assert set(versions) == {calls.stream(n) for n in range(ACCOUNTS)}
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    debits = len(versions[calls.stream(0)]) - len(filling.LIFE)
    amount = filled[-1].event.amount  # type: ignore[attr-defined]
    assert app.accounts.account(calls.stream(0)).balance == 10**14 - debits * amount
    with app.engine.connect() as connection:
        assert connection.execute(sa.text(indexes)).scalars().all() == before
        keys = connection.execute(sa.text("SELECT count(DISTINCT request_key) FROM events")).scalar_one()
    assert keys == head

    known = filled[-1].event.request_id  # type: ignore[attr-defined]
    again = {"command": "debit", **calls.debit(1, 0), "account": filled[-1].stream.split("/")[1], "request_id": known}
    (replayed,) = app.execute([again])
    assert "error" in replayed, "the key is taken, by another command"
    first_error(app.execute([{"command": "debit", **calls.debit(1, 0)}]))
    app.close()


def test_growth_is_measured_on_a_server_that_is_gone_afterwards(tmp_path: Path, postgresql: PostgreSQL) -> None:
    del postgresql  # its programs are there
    tmp_path.chmod(0o711)
    run = growth.Run("a", 5, None, 0.2)
    memory = growth.Run("b", 5, None, 0.2, memory_alone=True)
    rows = growth.rows(tmp_path, lambda _line: None, [(growth.Log(50, 10), [run, memory])])
    assert [row.unit for row in rows] == ["debits/s", "ms", "ms", "bytes", "MiB", "MiB"]
    assert all(row.value > 0 for row in rows)
    assert not (tmp_path / "growth").exists()


def test_usage_is_projected_with_a_past_and_a_month_is_closed(tmp_path: Path, postgresql: PostgreSQL) -> None:
    few, many = counted.Past(3000, 30), counted.Past(6000, 60)
    rows = counted.rows(postgresql, tmp_path, lambda _line: None, [few, many, few], page=50, active=10)
    assert [(row.unit, row.against) for row in rows] == [("debits/s", None), ("debits/s", rows[0].name)]
    month = postgresql_rows.month(postgresql, tmp_path, lambda _line: None, 30)
    assert [row.unit for row in month] == ["bills/s", "ms", "ms", "bills/s", "bills/s"]
    assert all(row.value > 0 for row in (*rows, *month))
