"""The report's pages of what does not agree, and of what an adversary would write into a log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.audit.report import write_pages
from services.audit.sources import snapshot, urls_in
from tests.unit.audit_world import EAST, JULY, JUNE, Market, Tampering, two_months
from tests.unit.report_checks import (
    audit_of,
    bill_rows,
    check_bill,
    check_links,
    check_offline,
    check_total,
    lines_of,
    proofs,
    sum_row,
)
from tests.unit.report_pages import Pages, leaf_of, number, root_of


# -- what differs -----------------------------------------------------------------------------------
def test_a_changed_debit_is_led_to_and_its_proof_is_none(market: Market, tmp_path: Path) -> None:
    tampering = Tampering(market.client)
    debit = next(e for e in market.quota.shards[0].log.read(0, 10_000) if "TokensDebited" in e.topic)
    tampering.event("quota", debit.position, lambda e: e.update(amount=e["amount"] + 1))
    found = audit_of(tampering, JUNE)
    assert not found.report.ok
    write_pages(found, tmp_path / "report")
    pages = Pages(tmp_path / "report")
    check_links(pages)
    ways = [link for link in pages.index.all("a") if link.text == "amount is not usage times rates"]
    path, place = pages.target("index.html", ways[0].attributes["href"])
    assert place == f"quota-{debit.position}"
    (row,) = [row for row in pages.pages[path].all("tr") if row.attributes.get("id") == place]
    assert number(row.texts[5]) == number(row.texts[6]) + 1
    assert "a root that is not the signed one" in pages.pages[path].text
    assert "lead to a root that is not the signed one" in pages.index.text
    roots = pages.roots()
    assert all(root_of(e.leaf, e.index, e.size, e.path) != roots["quota"][0] for e in proofs(pages) if e.log == "quota")


def test_without_keys_no_root_is_called_signed(market: Market, tmp_path: Path) -> None:
    with snapshot(urls_in(market.settings.var)) as logs:
        write_pages(audit_of(logs, JULY, asks=False), tmp_path / "bare")
        keys = market.audit.status()["verifier_keys"]
        write_pages(audit_of(logs, JULY, asks=False, verifier_keys=keys), tmp_path / "keyed")
    for folder, is_signed in (("bare", False), ("keyed", True)):
        pages = Pages(tmp_path / folder)
        check_total(pages)
        assert all(("and its path to the signed root" in pages.pages[path].text) == is_signed for path in pages.bills())
        assert ("that no key was given for" in pages.index.text) != is_signed


def test_a_changed_bill_shows_both_figures(market: Market, tmp_path: Path) -> None:
    tampering = Tampering(market.client)
    issued = next(e for e in market.billing.shards[0].log.read(0, 10_000) if f"{EAST}-{JUNE}-000002" in e.state)

    def dearer(event: dict[str, Any]) -> None:
        event["bill"]["total_fen"] += 700
        event["bill"]["lines"][0]["fen"] += 700
        event["bill"]["lines"][0]["calls"] = True

    tampering.event("billing", issued.position, dearer)
    write_pages(audit_of(tampering, JUNE), tmp_path / "report")
    pages = Pages(tmp_path / "report")
    check_links(pages)
    (path,) = {
        pages.target("index.html", a.attributes["href"])[0] for a in pages.index.all("a") if "fen is not" in a.text
    }
    line = lines_of(pages.pages[path])[0]
    assert number(line.texts[7]) == number(line.texts[8]) + 700
    assert "billed True" in line.texts[2]
    rows = [row for at in pages.listings() for row in bill_rows(pages.pages[at]) if "differences" in row.texts[5]]
    assert [number(row.texts[3]) - number(row.texts[4]) for row in rows] == [700]


def test_a_void_bill_is_listed_and_in_no_sum(tmp_path: Path) -> None:
    market = two_months(tmp_path / "market", seed=5, events=40)
    try:
        last = market.client.call("billing", "bills", period=JULY)["bills"][-1]
        market.billing.submit("void", {"request_id": "v1", "number": last["number"], "reason": "another"})
        market.follow()
        write_pages(audit_of(market.client, JULY), tmp_path / "report")
    finally:
        market.close()
    pages = Pages(tmp_path / "report")
    check_links(pages)
    rows = [row for at in pages.listings() for row in bill_rows(pages.pages[at])]
    assert [row.texts[5] for row in rows].count("void") == 1
    month = next(table for table in pages.index.all("table") if table.all("tr", "sum"))
    assert [number(text) for text in sum_row(month)[1:4]] == [7, 7, 1]
    assert number(sum_row(month)[4]) == sum(number(row.texts[3]) for row in rows if row.texts[5] != "void")


# -- what is hostile --------------------------------------------------------------------------------
SUBSCRIBER = "../../../tmp/\"><script>alert('x')</script>&amp;\u202e\r\n\\"
MODEL = "</code></td><img src=x onerror=alert(1)>%2e%2e/"


class Renamed:
    """Logs in which a subscriber and a model have the names that an attacker would give them."""

    def __init__(self, logs: Any) -> None:
        self._logs = logs

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        answer = self._logs.call(service, method, **asked)
        if method != "events":
            return answer
        for event in answer["events"]:
            event["stream"] = event["stream"].replace(f"{EAST}/e3", f"{EAST}/{SUBSCRIBER}").replace("alpha", MODEL)
            state = event["state"].replace('"e3"', json.dumps(SUBSCRIBER)).replace(f"{EAST}/e3", _inner(SUBSCRIBER))
            event["state"] = state.replace("alpha", _inner(MODEL))
        return answer


def _inner(text: str) -> str:
    return json.dumps(text)[1:-1]


def test_hostile_names_are_text_and_in_no_path(market: Market, tmp_path: Path) -> None:
    with snapshot(urls_in(market.settings.var)) as logs:
        found = audit_of(Renamed(logs), JULY, asks=False)
        write_pages(found, tmp_path / "deep" / "er" / "report")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    pages = Pages(tmp_path / "deep" / "er" / "report")
    assert all(
        re.fullmatch(
            r"index\.html|settlement/[0-9]{4}\.html|bills/[0-9]{4}\.html|bills/[0-9]{4}/[0-9]{6}(-[0-9]{4})?\.html", p
        )
        for p in pages.paths
    )
    check_links(pages)
    check_offline(pages)
    (row,) = [row for at in pages.listings() for row in bill_rows(pages.pages[at]) if "script" in row.text]
    assert row.texts[1] == f"{EAST}/{SUBSCRIBER}"
    path, _ = pages.target("bills/0001.html", row.all("a")[0].attributes["href"])
    assert any(MODEL in heading.text for heading in pages.pages[path].all("h3"))
    assert check_bill(pages, path) > 0
    hostile = [each for each in proofs(pages) if SUBSCRIBER in each.stream]
    assert hostile
    assert all(leaf_of(*each.event) == each.leaf for each in hostile)


@pytest.mark.parametrize(
    "change",
    [
        {"total_fen": "7"},
        {"total_fen": None},
        {"total_fen": 10**40},
        {"vat_fen": [1]},
        {"calls": {"<b>": 1}},
        {"debited": True},
        {"number": "../../../etc/passwd"},
        {"number": 5},
    ],
    ids=str,
)
def test_figures_of_another_type_are_shown_and_not_added_up(
    market: Market, tmp_path: Path, change: dict[str, Any]
) -> None:
    tampering = Tampering(market.client)
    issued = next(e for e in market.billing.shards[0].log.read(0, 10_000) if f'"number":"{EAST}-{JULY}' in e.state)
    tampering.event("billing", issued.position, lambda event: event["bill"].update(change))
    found = audit_of(tampering, JULY)
    assert not found.report.bills_match
    write_pages(found, tmp_path / "report")
    pages = Pages(tmp_path / "report")
    check_links(pages)
    assert len(pages.bills()) == 8
