"""What must hold of any report's pages: they add up, lead on, and load nothing."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import chain
from typing import Any

from services.audit.replay import Audited, audited
from tests.unit.report_pages import Element, Pages, Proof, number


def audit_of(client: Any, period: str, **options: Any) -> Audited:
    return audited(client, period, **{"wait_s": 0.2, "calls_wait_s": 0.1} | options)


def sum_row(table: Element) -> list[str]:
    return table.one("tr", "sum").texts


def check_total(pages: Pages) -> None:
    """The bills on the lists come to the totals of the index."""
    month = next(table for table in pages.index.all("table") if table.all("tr", "sum"))
    _, bills, agree, _, billed, computed = sum_row(month)
    listed = [row for path in pages.listings() for row in bill_rows(pages.pages[path]) if row.texts[5] != "void"]
    assert len(listed) == number(bills) == number(agree)
    assert sum(number(row.texts[3]) for row in listed) == number(billed)
    assert sum(number(row.texts[4]) for row in listed) == number(computed)
    on_pages = [sum_row(pages.pages[path].one("table")) for path in pages.listings()]
    assert sum(number(texts[3]) for texts in on_pages) == number(billed)


def bill_rows(listing: Element) -> list[Element]:
    return [row for row in listing.one("table").all("tr") if row.cells and row.attributes.get("class") != "sum"]


def lines_of(bill: Element) -> list[Element]:
    return [row for row in bill.all("tr") if row.attributes.get("id", "").startswith("line-")]


def kind_of(line: Element) -> str:
    return line.all("div", "quiet")[0].text.partition(",")[0]


def kinds_of(pages: Pages) -> set[str]:
    return {kind_of(line) for path in pages.bills() for line in lines_of(pages.pages[path])}


def check_bill(pages: Pages, path: str) -> int:
    """A bill's lines come to its total, and the debits of each line to the line; how many debits."""
    page = pages.pages[path]
    if page.one("h1").text.endswith("void"):
        return 0
    facts = {row.texts[0]: row.texts[1] for row in page.all("table", "facts")[0].all("tr")}
    lines = lines_of(page)
    for column, title in ((7, "Total billed, yuan"), (8, "Total computed, yuan")):
        assert sum(number(line.texts[column]) for line in lines) == number(facts[title]), path
    rate = number(facts["Charged points become yuan"].partition(" ")[0])
    count = 0
    for line in lines:
        used = "usage" in kind_of(line)
        assert bool(line.cells[10].all("a")) == used
        if used:  # millipoints to fen, exactly: the residual is what rounding left
            exact = Fraction(number(line.texts[6]), 10 * rate)
            assert exact - number(line.texts[8]) == Fraction(line.texts[9]), path
            assert abs(Fraction(line.texts[9])) <= Fraction(1, 2), path
        count += check_line(pages, path, line) if used else 0
    return count


def check_line(pages: Pages, path: str, line: Element) -> int:
    n, _, calls, tokens, _, points, charged, *_ = line.texts
    tables = [table for there in pages.debits_of(path) for table in debit_tables(pages.pages[there], n)]
    rows = [row for table in tables for row in table.all("tr", "part")]
    signs = [-1 if row.texts[1] == "reversal" else 1 for row in rows]
    amounts = [number(row.texts[5]) for row in rows]
    assert all(amount * sign >= 0 for amount, sign in zip(amounts, signs, strict=True))
    assert amounts == [number(row.texts[6]) for row in rows]
    assert sum(amounts) == number(points), (path, n)
    assert sum(number(row.texts[7]) for row in rows) == number(charged), (path, n)
    used: dict[str, int] = {}
    for row, amount in zip(rows, amounts, strict=True):
        parts = re.findall(r"(\d[\d,]*) (\w+) × (\d[\d,]*)", row.texts[4])
        assert row.texts[1] == "reversal" or sum(number(count) * number(rate) for count, _, rate in parts) == amount
        for count, name, _ in parts:
            used[name] = used.get(name, 0) + number(count)
    assert used == {name: number(count) for count, name in re.findall(r"(\d[\d,]*) (\w+)", tokens)}
    summed = sum_row(tables[-1])
    assert summed[3] == "adds up to the line"
    assert (number(summed[0]), summed[4].split(" ")[0]) == (len(rows), calls)
    return len(rows)


def debit_tables(page: Element, line: str) -> list[Element]:
    """The tables of a line's debits on a page."""
    order = list(page.walk())
    found = [n for n, each in enumerate(order) if each.attributes.get("id") == f"debits-{line}"]
    return [next(each for each in order[n:] if each.tag == "table") for n in found]


def proofs(pages: Pages) -> list[Proof]:
    return [Proof(e) for path in pages.paths for e in pages.pages[path].all("details") if e.all("ol", "path")]


def check_links(pages: Pages) -> None:
    """Each leads to a page and a place that there is."""
    places = {
        path: {e.attributes["id"] for e in page.walk() if "id" in e.attributes} for path, page in pages.pages.items()
    }
    reached = {"index.html"}
    for here, path, place in pages.links():
        assert path in places, (here, path)
        assert not place or place in places[path], (here, path, place)
        reached.add(path)
    assert reached == set(pages.paths)
    for page in pages.pages.values():
        ids = [e.attributes["id"] for e in page.walk() if "id" in e.attributes]
        assert len(ids) == len(set(ids))


def check_offline(pages: Pages) -> None:
    """No script, and nothing from elsewhere."""
    for path, page in pages.pages.items():
        tags = {e.tag for e in page.walk()}
        assert not tags & {"script", "img", "link", "iframe", "object", "form", "base"}, path
        attributes = set(chain.from_iterable(e.attributes for e in page.walk()))
        assert not [name for name in attributes if name in ("src", "style") or name.startswith("on")], path
        assert not re.search(r"https?:|url\(|@import", (pages.folder / path).read_text())
        (policy,) = [e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes]
        assert policy.startswith("default-src 'none'")
