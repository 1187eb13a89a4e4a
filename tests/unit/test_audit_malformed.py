"""One event that is nothing to compute with, anywhere: the audit says so, goes on, and its report can be shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.audit.report import write_pages
from tests.unit.audit_world import JUNE, Market, Tampering, two_months
from tests.unit.report_checks import audit_of


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    made = two_months(tmp_path_factory.mktemp("market"), seed=7)
    yield made
    made.close()


# Each of them once ended the audit, or the writing of its pages, with a traceback and no report.
CASES: tuple[tuple[str, str, tuple[str | int, ...], Any], ...] = (
    ("quota", "AccountOpened", ("at",), "x"),
    ("quota", "AccountOpened", ("at",), "2026-06-01"),
    ("quota", "PointsGranted", ("amount",), "x"),
    ("quota", "TokensDebited", ("amount",), 1e3),
    ("quota", "TokensDebited", ("usage", "input"), 1.0),
    ("quota", "PointsGranted", ("price_fen",), []),
    ("quota", "PointsGranted", ("source",), {}),
    ("quota", "DebitReversed", ("debit",), 1.5),
    ("quota", "DebitReversed", ("rate_card",), None),
    ("routing", "CallServed", ("serving_operator",), True),
    ("catalog", "RateCardPublished", ("item", "rates", "input"), ["a"]),
    ("catalog", "TariffPublished", ("item", "rates"), "x"),
    ("catalog", "TariffPublished", ("recorded_at",), "2026-06-01"),
    ("catalog", "PlanPublished", ("effective_from",), "2026-06-01"),
    ("billing", "BillPaid", ("recorded_at",), "x"),
    ("billing", "BillIssued", ("bill", "number"), [7]),
    ("billing", "BillIssued", ("bill", "quota_position"), "x"),
    ("billing", "BillIssued", ("bill", "catalog_position"), None),
    ("billing", "BillIssued", ("bill", "lines", 0, "usage"), "x"),
    ("billing", "StatementIssued", ("statement", "quota_position"), "x"),
    ("billing", "StatementIssued", ("statement", "lines"), ["a"]),
    ("billing", "StatementIssued", ("statement", "lines", 0, "usage"), None),
)


@pytest.mark.parametrize(("log", "kind", "path", "value"), CASES)
def test_it_is_a_difference_and_no_end(
    market: Market, tmp_path: Path, log: str, kind: str, path: tuple[str | int, ...], value: Any
) -> None:
    events = [e for e in getattr(market, log).shards[0].log.read(0, 100_000) if f".{kind}:" in e.topic]
    assert events

    def malformed(event: dict[str, Any]) -> None:
        within: Any = event
        for step in path[:-1]:
            within = within[step]
        within[path[-1]] = value

    tampering = Tampering(market.client)
    tampering.event(log, events[0].position, malformed)
    found = audit_of(tampering, JUNE, wait_s=0, calls_wait_s=0)
    assert not found.report.log_verified
    assert found.report.differences_count > 0
    written = write_pages(found, tmp_path / "report")
    assert (tmp_path / "report" / "index.html").is_file()
    assert written.pages > 1


@pytest.mark.parametrize(
    ("log", "kind", "path"),
    [
        ("quota", "TokensDebited", ("amount",)),
        ("quota", "TokensDebited", ("draws", 0, 1)),
        ("quota", "DebitReversed", ("amount",)),
        ("billing", "BillIssued", ("bill", "total_fen")),
        ("billing", "StatementIssued", ("statement", "lines", 0, "net_fen")),
    ],
)
def test_a_whole_number_written_as_a_fraction_is_none(
    market: Market, log: str, kind: str, path: tuple[str | int, ...]
) -> None:
    """1000.0 adds up like 1000, and no contract has it."""
    event = next(
        e
        for e in getattr(market, log).shards[0].log.read(0, 100_000)
        if f".{kind}:" in e.topic and '"draws":[]' not in e.state
    )

    def fraction(event: dict[str, Any]) -> None:
        within: Any = event
        for step in path[:-1]:
            within = within[step]
        within[path[-1]] = float(within[path[-1]])

    tampering = Tampering(market.client)
    tampering.event(log, event.position, fraction)
    report = audit_of(tampering, JUNE, wait_s=0, calls_wait_s=0).report
    found = [d for d in report.differences if d.what == "event is not of its kind"]
    assert [(d.log, d.position) for d in found] == [(log, event.position)]
