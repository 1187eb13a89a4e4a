"""The benchmark runs and says what it promises, on tiny counts. No figure is looked at: no test is timed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml

from services.billing import service
from shared.config import Settings
from shared.errors import MalformedCommand
from tokengrid.bench import calls, counted, engine, goals, growth, projecting, run, sqlite, sustained
from tokengrid.bench.load import Load
from tokengrid.bench.measure import Measure, Row, interleaved, percentile, with_ratios
from tokengrid.bench.serving import Answered, receipts, serve

FLOOR = "SQLite: floor, bare insert, 1,000 a commit"
SCHEMA = ["name", "value", "unit", "ratio", "against"]
ACCOUNTS = 20


def test_the_rows_of_the_embedded_store_are_kept_as_json_and_as_a_chart_without_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TURNS", {1: 2, 10: 1, 1000: 1})
    rows = sqlite.rows(
        tmp_path / "stores", lambda _line: None, rounds=1, batches=(1, 10, 20), long_life=1500, accounts=ACCOUNTS
    )
    rows = with_ratios(rows)
    latest = run.keep(tmp_path, rows)

    kept = json.loads(latest.read_text())["rows"]
    assert [list(row) for row in kept] == [SCHEMA] * len(rows)
    assert all(row["value"] > 0 for row in kept)
    names = {row["name"] for row in kept}
    assert {"SQLite: engine, 10 a batch", "SQLite: replay of the log", FLOOR} <= names
    assert {"SQLite: usage projected, 100 debits a page", "SQLite: a month closed, 40 accounts"} <= names
    loading = "SQLite: load an account with 1,500 events"
    assert {loading, f"{loading}, 500 of them after its snapshot"} <= names
    assert all((row["ratio"] is None) == (row["against"] is None) for row in kept)
    drawn = ElementTree.parse(tmp_path / "latest.svg").getroot()
    assert not [each for each in drawn.iter() if str(each.tag).endswith("script")]


def test_a_ratio_is_within_the_run_and_what_was_not_measured_is_no_reference() -> None:
    rows = [Row("a", 10.0, "x/s"), Row("b", 5.0, "x/s", None, "a"), Row("c", 5.0, "x/s", None, "absent")]
    assert [(row.ratio, row.against) for row in with_ratios(rows)] == [(None, None), (0.5, "a"), (None, None)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([Row(goals.ENGINE, 60.0, "debits/s", 0.6, "PostgreSQL: floor, bare insert, 1,000 a commit")], False),
        ([Row(goals.ENGINE, 70.0, "debits/s", 0.7, "PostgreSQL: floor, bare insert, 1,000 a commit")], True),
        ([Row(goals.MANY_ACCOUNTS, 1024.0, "MiB")], True),
        ([Row(goals.MANY_ACCOUNTS, 1025.0, "MiB")], False),
        ([Row(goals.ENGINE, 60.0, "debits/s", 0.6, "another row")], None),
        ([Row(goals.CLOSED, 2000.0, "bills/s")], True),
        ([Row(goals.CLOSED, 1999.0, "bills/s")], False),
    ],
)
def test_a_row_stands_beside_what_was_promised_of_it(rows: list[Row], expected: bool | None) -> None:
    (row,) = goals.with_goals(rows)
    assert row.met is expected
    assert (row.goal is None) == (expected is None)


def test_goals_are_kept_with_the_rows_that_have_one(tmp_path: Path) -> None:
    rows = goals.with_goals([Row(goals.MANY_ACCOUNTS, 1025.0, "MiB"), Row("a", 1.0, "x/s")])
    with_one, without = json.loads(run.keep(tmp_path, rows).read_text())["rows"]
    assert (with_one["goal"], with_one["met"]) == ("at most 1024 MiB", False)
    assert list(without) == SCHEMA


def test_every_goal_of_growth_has_a_row_to_stand_beside() -> None:
    planned = {run.name for _, runs in growth.plan() for run in runs}
    assert {goals.ON_EMPTY, goals.ON_TEN_MILLION, goals.MANY_ACCOUNTS} <= planned
    counts = {counted.row_name(past.debits) for past in counted.plan()}
    assert counts == {goals.COUNTED_MILLION, goals.COUNTED_TEN_MILLION}


def test_usage_is_projected_in_the_pages_that_the_service_takes() -> None:
    assert projecting.PAGE == service.QUOTA_PAGE


def test_growth_is_measured_with_the_settings_that_are_deployed() -> None:
    compose = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text())
    options = compose["services"]["postgres"]["command"]
    assert {f"-c{name}={value}" for name, value in growth.SETTINGS.items()} <= set(options)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected


def test_what_a_round_gave_is_looked_at_when_the_clock_has_stopped() -> None:
    seen: list[object] = []
    interleaved([Measure("a", "x/s", 1, lambda: lambda: "given", (), seen.append)], 2, lambda _line: None)
    assert seen == ["given", "given"]


def test_a_body_made_quickly_is_the_one_a_caller_would_send() -> None:
    fields = calls.debits(itertools.count(7), [1, 2, 3], 3)
    assert calls.quick_body([7, 8, 9], [1, 2, 3]) == Load.bodies([{"commands": fields}])[0]


def test_keys_are_uuids_and_the_ordered_ones_are_ordered_by_time() -> None:
    keys = [calls.ordered_key(n) for n in range(0, 1000, calls.KEYS_PER_MS)]
    assert keys == sorted(keys)
    assert len({calls.ordered_key(n) for n in range(1000)}) == 1000
    assert {len(calls.ordered_key(1)), len(calls.random_key(1))} == {36}
    assert calls.random_key(1) != calls.random_key(1)


def test_every_body_is_served_once_and_a_caller_that_fails_is_heard() -> None:
    taken: list[bytes] = []
    serve(_Echo(), (b"%d" % n for n in range(100)), _answers(taken))  # type: ignore[arg-type]
    assert sorted(taken) == sorted(b"%d" % n for n in range(100))

    def refuse(_seconds: float, _answer: object) -> None:
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        serve(_Echo(), [b"1", b"2"], refuse)  # type: ignore[arg-type]


class _Echo:
    def serve(self, requests: Iterable[Any]) -> list[bytes]:
        return [request.body for request in requests]


def _answers(into: list[bytes]) -> Answered:
    return lambda _seconds, answer: into.append(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [MalformedCommand("refused"), b'[{"ok":{}},{"error":{"code":"x"}}]'],
    ids=["request", "command"],
)
def test_a_refusal_is_no_receipt(answer: bytes | Exception) -> None:
    with pytest.raises(AssertionError):
        receipts(answer)


def test_debits_for_a_while_are_counted_and_weighed(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path)
    engine.quota(settings, settings, ACCOUNTS).close()
    url = settings.database_url("quota")
    options = sustained.Options(url=url, seconds=0.05, accounts=ACCOUNTS, active=ACCOUNTS // 2, batch=5)
    found = sustained.run(msgspec.json.decode(msgspec.json.encode(options), type=sustained.Options))
    assert found.debits >= options.batch
    assert found.rate > 0
    assert found.rss_peak_mib >= 1


def test_a_log_told_from_templates_is_archived_signed_and_audited(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")
    from tokengrid.bench import replaying

    rows = replaying.rows(tmp_path, lambda _line: None, ("SQLite", "PostgreSQL"), accounts=ACCOUNTS, debits=300)
    assert {row.name for row in rows} == {goals.REPLAYED, goals.ARCHIVED}
    assert all(row.value > 0 for row in rows)
    assert {row.against for row in rows} >= {goals.ENGINE, "SQLite: engine, 1,000 a batch"}
