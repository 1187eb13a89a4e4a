"""The report's pages, read back: they add up from the total to the debit, every proof leads to the signed root, and
nothing that a log says becomes markup, an address or a file's name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.audit.replay import Audited
from services.audit.report import names, write_pages
from shared.errors import MalformedCommand, SetupFailed, Unavailable
from tests.unit.audit_world import CATALOGUE, EAST, JULY, JUNE, LONG_AGO, Market, two_months
from tests.unit.report_checks import (
    audit_of,
    bill_rows,
    check_bill,
    check_links,
    check_offline,
    check_total,
    kind_of,
    kinds_of,
    lines_of,
    proofs,
    sum_row,
)
from tests.unit.report_pages import Pages, leaf_of, number, root_of
from tokengrid import cli


@pytest.fixture(scope="module")
def july(market: Market) -> Audited:
    """What came late for June is on it."""
    return audit_of(market.client, JULY)


@pytest.fixture(scope="module")
def pages(july: Audited, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    folder = tmp_path_factory.mktemp("report") / "july"
    written = write_pages(july, folder)
    made = Pages(folder)
    assert written.pages == len(made.paths)
    assert not written.left_out
    return made


# -- it adds up -------------------------------------------------------------------------------------
def test_everything_adds_up_from_the_total_to_the_debits(pages: Pages, market: Market) -> None:
    check_total(pages)
    bills = market.client.call("billing", "bills", period=JULY)["bills"]
    month = next(table for table in pages.index.all("table") if table.all("tr", "sum"))
    assert number(sum_row(month)[4]) == sum(bill["total_fen"] for bill in bills)
    assert len(pages.bills()) == len(bills) == 8
    debits = sum(check_bill(pages, path) for path in pages.bills())
    assert f"{debits:,} debits are shown" in pages.index.text
    assert debits > 30
    assert {"usage", "late usage"} <= kinds_of(pages)


def test_a_month_of_subscriptions_adds_up(subscribers: Market, tmp_path: Path) -> None:
    kinds: set[str] = set()
    for period in (JUNE, JULY):
        folder = tmp_path / period
        write_pages(audit_of(subscribers.client, period), folder)
        pages = Pages(folder)
        check_total(pages)
        assert sum(check_bill(pages, path) for path in pages.bills())
        check_links(pages)
        kinds |= kinds_of(pages)
    assert {"plan fee", "plan credit", "discount", "usage"} <= kinds


def test_any_market_adds_up(tmp_path: Path, seed: int) -> None:
    """Whatever happens in it: the seed is the run's own."""
    market = two_months(tmp_path / "market", seed, events=80)
    try:
        write_pages(audit_of(market.client, JULY), tmp_path / "report")
    finally:
        market.close()
    pages = Pages(tmp_path / "report")
    check_total(pages)
    check_links(pages)
    for path in pages.bills():
        check_bill(pages, path)


@pytest.mark.parametrize(
    ("where", "column"), [("part", 5), ("part", 6), ("part", 7), ("sum", 0), ("line", 5), ("line", 7), ("line", 8)]
)
def test_a_figure_that_is_another_is_seen(pages: Pages, where: str, column: int) -> None:
    """The canary of what is checked here."""
    path = max(pages.bills(), key=lambda path: len(pages.pages[path].all("tr", "part")))
    changed = Pages(pages.folder)
    page = changed.pages[path]
    row = (
        next(line for line in lines_of(page) if "usage" in kind_of(line))
        if where == "line"
        else page.all("tr", where)[-1]
    )
    row.cells[column].inside = [f"{number(row.texts[column]) + 1:,}"]
    assert check_bill(pages, path) > 0
    with pytest.raises(AssertionError):
        check_bill(changed, path)


def test_settlement_comes_to_the_operators_sums(pages: Pages, july: Audited) -> None:
    tables = pages.index.all("table")
    titles = [[th.text for th in table.all("th")] for table in tables]
    statements = tables[next(n for n, t in enumerate(titles) if t[:2] == ["home", "serving"])]
    operators = tables[next(n for n, t in enumerate(titles) if "owes, yuan" in t)]
    owed = [number(row.texts[3]) for row in statements.all("tr") if row.cells]
    assert sum(owed) == sum(each.issued.content["net_fen"] for each in july.computed.statements()) > 0
    for row in (row for row in statements.all("tr") if row.cells):
        path, _ = pages.target("index.html", row.cells[1].one("a").attributes["href"])
        summed = sum_row(pages.pages[path])
        lines = [line for line in pages.pages[path].all("div", "wide")[0].all("tr") if len(line.cells) == 9]
        for column in (7, 8):
            assert sum(number(line.texts[column]) for line in lines[:-1]) == number(summed[column])
            assert number(summed[column]) == number(row.texts[3])
    for column in (1, 2, 3, 4):
        assert sum(number(row.texts[column]) for row in operators.all("tr") if row.cells) == sum(owed)
    assert all(row.texts[5] == "agrees" for row in statements.all("tr") if row.cells)


# -- it proves --------------------------------------------------------------------------------------
def test_every_path_leads_from_the_event_to_the_root_on_the_index(pages: Pages, market: Market) -> None:
    roots = pages.roots()
    assert roots.keys() == {"quota", "billing", "catalog", "routing"}
    shown = proofs(pages)
    quota = {event.position: event for event in market.quota.shards[0].log.read(0, 10_000)}
    assert len(shown) > 40
    for each in shown:
        root, size = roots[each.log]
        assert each.size == size
        assert leaf_of(*each.event) == each.leaf
        assert root_of(each.leaf, each.index, each.size, each.path) == root
        if each.log == "quota":
            assert each.event[2:] == tuple(quota[each.position])[1:5]
    topics = [each.topic for each in shown if each.log == "billing"]
    assert sorted(topics) == ["billing.BillIssued:1"] * 8 + ["billing.StatementIssued:1"]


def test_the_program_on_the_index_checks_them(pages: Pages) -> None:
    (program,) = [pre.text for pre in pages.index.all("pre") if pre.attributes.get("id") == "program"]
    words: dict[str, Any] = {}
    exec(program, words)
    roots = pages.roots()
    for each in proofs(pages):
        assert words["leaf"](*each.event) == each.leaf
        assert words["root"](each.leaf, each.index, each.size, each.path) == roots[each.log][0]
        assert words["root"](each.leaf, each.index, each.size, each.path[:-1]) != roots[each.log][0]


def test_the_checkpoints_are_shown_as_they_were_signed(pages: Pages, july: Audited) -> None:
    notes = [pre.text.removeprefix("\n") for pre in pages.index.all("pre") if "id" not in pre.attributes]
    assert sorted(notes) == sorted(head["note"] for head in july.report.checkpoints.values())
    assert pages.index.text.count("verified") == 4 + pages.index.text.count("verified with")


# -- it leads on ------------------------------------------------------------------------------------
def test_every_link_leads_somewhere_and_every_page_is_reached(pages: Pages) -> None:
    check_links(pages)


def test_nothing_is_loaded_from_elsewhere(pages: Pages) -> None:
    check_offline(pages)


def test_long_lists_and_bills_are_split(july: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BILLS_A_PAGE", 3)
    monkeypatch.setattr(names, "DEBITS_A_PAGE", 4)
    write_pages(july, tmp_path / "report")
    pages = Pages(tmp_path / "report")
    assert len(pages.listings()) == 3
    check_total(pages)
    check_links(pages)
    assert all(len(pages.pages[path].all("tr", "part")) <= 4 for path in pages.paths)
    assert max(len(pages.debits_of(path)) for path in pages.bills()) > 2
    assert sum(check_bill(pages, path) for path in pages.bills()) == sum(
        july.computed.debits(bill) for bill in july.computed.numbered()
    )


def test_of_several_shards_each_debit_is_proved_in_its_own_log(tmp_path: Path) -> None:
    market = two_months(tmp_path / "market", seed=5, events=60, shards=2)
    try:
        write_pages(audit_of(market.client, JUNE), tmp_path / "report")
    finally:
        market.close()
    pages = Pages(tmp_path / "report")
    check_total(pages)
    check_links(pages)
    assert sum(check_bill(pages, path) for path in pages.bills())
    roots = pages.roots()
    shown = proofs(pages)
    assert {each.log for each in shown} == {"quota-0", "quota-1", "billing"}
    assert all(root_of(leaf_of(*e.event), e.index, e.size, e.path) == roots[e.log][0] for e in shown)


# -- it is bounded ----------------------------------------------------------------------------------
def test_what_the_bound_leaves_out_is_said(july: Audited, tmp_path: Path) -> None:
    first = next(bill for bill in july.computed.numbered() if july.computed.debits(bill))
    room = july.computed.debits(first)
    written = write_pages(july, tmp_path / "report", debits_max=room)
    pages = Pages(tmp_path / "report")
    (sentence,) = written.left_out
    assert sentence in pages.index.text
    assert written.debits == room == sum(len(page.all("tr", "part")) for page in pages.pages.values())
    check_total(pages)
    check_links(pages)
    cut = [path for path in pages.bills() if "left out here" in pages.pages[path].text]
    assert len(cut) == sum(1 for bill in july.computed.numbered() if july.computed.debits(bill)) - 1


def test_only_the_bills_that_were_asked_for_have_pages(july: Audited, tmp_path: Path) -> None:
    chosen = list(july.computed.numbered())[3]
    write_pages(july, tmp_path / "report", bills=[chosen.number], debits_max=0)
    pages = Pages(tmp_path / "report")
    (path,) = pages.bills()
    assert check_bill(pages, path) == july.computed.debits(chosen)
    check_total(pages)
    check_links(pages)
    assert "Only bills that were asked for" in pages.index.text


def test_a_bill_that_there_is_not_and_a_folder_in_use_are_refused(july: Audited, tmp_path: Path) -> None:
    with pytest.raises(MalformedCommand, match="There is no bill"):
        write_pages(july, tmp_path / "report", bills=["east-telecom-2026-07-000099"])
    assert not (tmp_path / "report").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for taken in ("used", "file"):
        with pytest.raises(SetupFailed):
            write_pages(july, tmp_path / taken)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["letter"]


# -- what comes between ----------------------------------------------------------------------------
class Meanwhile:
    """Services at work: something happens when the first checkpoint is asked for, behind what was compared."""

    def __init__(self, client: Any, happens: Callable[[], None]) -> None:
        self._client, self._happens = client, happens

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        if method == "seal":
            self._happens, happens = (lambda: None), self._happens
            happens()
        return self._client.call(service, method, **asked)


def test_bills_that_were_issued_meanwhile_are_listed_and_not_judged(tmp_path: Path) -> None:
    market = Market(tmp_path / "market", seed=3)
    try:
        market.publish(LONG_AGO, **CATALOGUE)
        market.follow()
        market.open(EAST, "e0", "monthly", 0)
        market.clock.now = datetime(2026, 7, 2, tzinfo=UTC)
        market.follow()
        found = audit_of(Meanwhile(market.client, lambda: market.close_period(JUNE)), JUNE)
        write_pages(found, tmp_path / "report")
    finally:
        market.close()
    assert (found.report.ok, found.report.bills) == (True, 0)
    pages = Pages(tmp_path / "report")
    check_links(pages)
    (row,) = bill_rows(pages.pages["bills/0001.html"])
    assert (row.texts[4], row.texts[5]) == ("", "not judged")
    assert [number(text) for text in sum_row(pages.index.all("div", "wide")[0])[1:]] == [0, 0, 1, 0, 0]


def test_a_month_without_bills(market: Market, tmp_path: Path) -> None:
    written = write_pages(audit_of(market.client, "2026-05"), tmp_path / "report")
    assert written == (1, 0, ())
    check_links(Pages(tmp_path / "report"))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Unavailable("the broker is gone"), OSError(28, "no space left")]
)
def test_a_report_that_is_not_finished_has_no_index(july: Audited, tmp_path: Path, error: BaseException) -> None:
    def interrupted(done: int, _count: int) -> None:
        if done == 3:
            raise error

    folder = tmp_path / "report"
    with pytest.raises(SetupFailed if isinstance(error, OSError) else type(error)):
        write_pages(july, folder, written=interrupted)
    assert (folder / "bills" / "0001" / "000002.html").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["bills"]


def test_what_cannot_be_written_is_told(july: Audited, tmp_path: Path) -> None:
    with pytest.raises(SetupFailed, match="was not finished"):
        write_pages(july, tmp_path / "report", progress=lambda *_: (tmp_path / "report" / "bills").touch())
    assert not (tmp_path / "report" / "index.html").exists()


# -- the command ------------------------------------------------------------------------------------
def test_the_command_writes_the_pages_and_its_code_is_the_verdict(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["audit", "replay", JULY, "--from", "snapshot", "--var", str(market.settings.var)]
    assert cli.run([*there, "--pages", str(tmp_path / "report")]) == 0
    shown = capsys.readouterr()
    assert "debits with their proofs" in shown.err
    check_total(Pages(tmp_path / "report"))
    assert cli.run([*there, "--pages", str(tmp_path / "report")]) == 1
    assert "not empty" in capsys.readouterr().err
    assert cli.run([*there, "--bill", "x"]) == 2
    assert cli.run([*there, "--pages", str(tmp_path / "other"), "--bill", "x"]) == 1
    assert "There is no bill" in capsys.readouterr().err
