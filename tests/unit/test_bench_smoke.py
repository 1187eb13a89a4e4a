"""The benchmark runs and says what it promises, on tiny counts. No figure is looked at: no test is timed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tokengrid.bench import run, sqlite
from tokengrid.bench.measure import Row, percentile, with_ratios

FLOOR = "SQLite: floor, bare insert, 1,000 a commit"


def test_the_rows_of_the_embedded_store_are_kept_as_json_and_as_a_chart_without_scripts(tmp_path: Path) -> None:
    rows = sqlite.rows(tmp_path / "stores", lambda _line: None, rounds=1, batches=(1, 10, 20), long_life=50)
    rows = with_ratios(rows)
    latest = run.keep(tmp_path, rows)

    kept = json.loads(latest.read_text())["rows"]
    assert [list(row) for row in kept] == [["name", "value", "unit", "ratio", "against"]] * len(rows)
    assert all(row["value"] > 0 for row in kept)
    assert {"SQLite: engine, 10 a batch", "SQLite: replay of the log", FLOOR} <= {row["name"] for row in kept}
    assert all((row["ratio"] is None) == (row["against"] is None) for row in kept)
    drawn = ElementTree.parse(tmp_path / "latest.svg").getroot()
    assert not [each for each in drawn.iter() if str(each.tag).endswith("script")]


def test_a_ratio_is_within_the_run_and_what_was_not_measured_is_no_reference() -> None:
    rows = [Row("a", 10.0, "x/s"), Row("b", 5.0, "x/s", None, "a"), Row("c", 5.0, "x/s", None, "absent")]
    assert [(row.ratio, row.against) for row in with_ratios(rows)] == [(None, None), (0.5, "a"), (None, None)]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert percentile(range(1, 101), share) == expected
