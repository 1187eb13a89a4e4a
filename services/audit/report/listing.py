"""The month's bills as a list, page by page, and what they come to for each operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from services.audit import markup as m
from services.audit.replay.recomputed import Again, Numbered
from services.audit.report import names
from services.audit.report.bill import standing, trail

_TITLES = ("bill", "operator and account", "calls>", "billed>", "computed>", "")


@dataclass
class Sums:
    """What bills come to, in fen. Void bills and others that do not stand are counted, and are in no sum."""

    bills: int = 0
    agree: int = 0
    others: int = 0
    billed_fen: int = 0
    computed_fen: int = 0

    def plus(self, other: Sums) -> None:
        for each in fields(Sums):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def add(self, bill: Numbered, again: Again | None) -> None:
        if again is None:
            self.others += 1
            return
        self.bills += 1
        self.agree += not again.differences
        self.billed_fen += m.total([bill.issued.content["total_fen"]])
        self.computed_fen += again.computed["total_fen"]


def bill_row(here: str, bill: Numbered, again: Again | None, path: str) -> m.Html:
    """A bill in the list; `path`: of its page, empty if it has none."""
    content = bill.issued.content
    number = m.link(names.between(here, path), bill.number) if path else bill.number
    computed = m.yuan(again.computed["total_fen"]) if again is not None else ""
    billed = m.yuan_billed(content["total_fen"], again.computed["total_fen"] if again is not None else None)
    about = (m.code(bill.stream), m.whole(content.get("calls", "")), billed, computed)
    return m.row(number, *about, standing(bill, again), head=_TITLES, cls="" if again is not None else "quiet")


def listing_page(period: str, number: int, pages: int, rows: Iterable[m.Html], sums: Sums) -> str:
    """The `number`-th of `pages`. `sums`: of this page."""
    here = names.listing(number)
    title = f"Bills of {period}, page {number} of {pages}"
    ways = [m.link(names.between(here, names.listing(n)), title) for n, title in _ways(number, pages)]
    figures = (m.yuan_billed(sums.billed_fen, sums.computed_fen), m.yuan(sums.computed_fen))
    summed = m.row(
        f"{sums.bills:,} bills that stand", "", "", *figures, f"{sums.agree:,} agree", head=_TITLES, cls="sum"
    )
    turn = m.element("p", m.Html(" · ".join(ways)))
    head = (trail(here, names.INDEX), m.element("h1", title), turn)
    return m.page(title, *head, m.table(_TITLES, [*rows, summed]), turn)


def _ways(number: int, pages: int) -> list[tuple[int, str]]:
    ways = ((1, "first"), (number - 1, "earlier"), (number + 1, "later"), (pages, "last"))
    return [(n, title) for n, title in ways if 1 <= n <= pages and n != number]
