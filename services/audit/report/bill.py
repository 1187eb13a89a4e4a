"""One bill as a page: each line as it was billed and as it was computed again, with the way to its debits. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import Any

from services.audit import markup as m
from services.audit.replay.charges import LINE_DEFAULTS, Terms
from services.audit.replay.prices import CLASSES, Prices, Raw
from services.audit.replay.recomputed import Again, Numbered
from services.audit.report import names
from services.audit.report.debits import TITLES, tokens

USAGE = ("usage", "late_usage")
_LINES = ("", "line", "calls>", "tokens", "rate", "points>", "charged>", "billed>", "computed>", "residual>", "debits")
Line = tuple[Raw, Raw]  # as billed and as computed; empty where there is none


def lines_of(bill: Numbered, again: Again | None) -> list[Line]:
    """Line by line, as billed and as computed."""
    issued = [LINE_DEFAULTS | line for line in bill.issued.content["lines"]]
    computed = again.computed["lines"] if again is not None else []
    return [(one or {}, other or {}) for one, other in zip_longest(issued, computed)]


def bill_page(
    serial: int,
    bill: Numbered,
    again: Again | None,
    prices: Prices,
    settled: tuple[int, int],
    starts: Mapping[int, str],
    parts: Sequence[m.Html],
) -> str:
    """The page of the `serial`-th bill. `starts`: where the debits of a line begin, by its number; `parts`: what stands
    under the lines."""
    here = names.bill(serial)
    lines = lines_of(bill, again)
    title = f"Bill {bill.number}"
    return m.page(
        title,
        trail(here, names.INDEX, names.listing(names.listing_of(serial))),
        m.element("h1", title, ": ", standing(bill, again)),
        m.facts(_facts(bill, again, settled)),
        lines_table(lines, prices, {n: names.between(here, there) for n, there in starts.items()}, again is not None),
        _differences(again),
        *parts,
        m.element("h2", "Check it"),
        m.element(
            "p",
            "One file with everything this bill rests on, and its verdict by public keys alone: ",
            m.code(f"tokengrid audit evidence --bill {shlex.quote(bill.number)}"),
            ", then ",
            m.code(f"tokengrid audit verify {shlex.quote(f'{bill.number}.evidence')} --key …"),
            ", or ",
            m.code("deploy/verify_evidence.py"),
            ", which needs nothing of ours. A single debit: ",
            m.link(names.between(here, f"{names.INDEX}#check"), "by hand"),
            ".",
        ),
    )


def lines_table(lines: Sequence[Line], prices: Prices, starts: Mapping[int, str], judged: bool) -> m.Html:
    """Each line as it was billed and, if it was `judged`, as it was computed again. `starts`: as on this page."""
    rows = [_line(n, line, prices, starts.get(n, ""), judged) for n, line in enumerate(lines, 1)]
    about = (
        "Points are what the tokens cost; charged is the part that no grant had paid for, and it alone makes money. A "
        "line is rounded to whole fen once; what was rounded off is its residual, in fen. Rates are points per 1,000 "
        "tokens."
    )
    table = m.table(_LINES, [*rows, _sum(lines, judged)])
    return m.join(m.element("h2", "Lines"), m.element("p", about, cls="quiet"), table)


def trail(here: str, *there: str) -> m.Html:
    """The way back: the index, and pages under it."""
    titles = ("The audit", "Bills", "The bill")
    links = (m.link(names.between(here, path), title) for path, title in zip(there, titles, strict=False))
    return m.element("p", m.Html(" › ".join(links)))


def standing(bill: Numbered, again: Again | None) -> m.Html:
    """What is to be said of a bill in a word."""
    if again is None:
        return m.text(bill.status)
    return m.verdict(not again.differences, no=f"{len(again.differences):,} differences")


def _facts(bill: Numbered, again: Again | None, settled: tuple[int, int]) -> Iterator[tuple[object, object]]:
    content = bill.issued.content
    computed = again.computed if again is not None else {}
    yield "Operator and account", m.code(bill.stream)
    yield "Total billed, yuan", m.yuan_billed(content["total_fen"], computed.get("total_fen"))
    if again is not None:
        yield "Total computed, yuan", m.yuan(computed["total_fen"])
    yield "Of it VAT", beside(content.get("vat_fen"), computed.get("vat_fen"), m.yuan, again is not None)
    yield "Calls", beside(content.get("calls"), computed.get("calls"), m.whole, again is not None)
    yield "Points debited", beside(content.get("debited"), computed.get("debited"), m.points, again is not None)
    if again is not None:
        yield "Charged points become yuan", _terms(again.terms)
    yield "Paid, credited", m.join(m.yuan(settled[0]), ", ", m.yuan(settled[1]))
    cut_off = f"position {content['quota_position']} of {content.get('quota_log', 'quota')}'s log"
    yield "Everything up to", m.text(cut_off)
    yield "SHA-256", m.code(bill.issued.sha256)


def _terms(terms: Terms) -> m.Html:
    parts = [f"{m.whole(terms.points_per_yuan)} points a yuan"]
    if terms.usage_discount_percent:
        parts.append(f"{m.whole(terms.usage_discount_percent)} % off")
    if terms.cap_fen:
        parts.append(f"at most {m.yuan(terms.cap_fen)} yuan")
    if terms.commitment_fen:
        parts.append(f"at least {m.yuan(terms.commitment_fen)} yuan")
    return m.Html(", ".join(parts))


def beside(billed: Any, computed: Any, show: Any, judged: bool = True) -> m.Html:
    """A figure as computed, and as billed if it is another."""
    billed, computed = ("none" if each is None else each for each in (billed, computed))
    if not judged or billed == computed:
        return m.join(show(billed))
    return m.join(show(computed), m.element("div", "billed ", show(billed), cls="no"))


def _line(n: int, line: Line, prices: Prices, start: str, judged: bool) -> m.Html:
    billed, computed = line
    known = computed or billed
    cells = [beside(billed.get(f), computed.get(f), show, judged) for f, show in _QUANTITIES]
    rate = _rate(known, prices) if known["kind"] in USAGE else ""
    figures = [m.Figure(cell) for cell in cells]
    residual = beside(billed.get("residual", ""), computed.get("residual", ""), m.text, judged)
    return m.row(
        m.Figure(n),
        m.join(billed.get("text", "not billed"), m.element("div", _about(known), cls="quiet")),
        figures[0],
        beside(counted(billed), counted(computed), tokens, judged),
        rate,
        *figures[1:],
        m.yuan_billed(billed.get("fen", "none"), computed.get("fen", "none") if judged else None),
        m.yuan(computed.get("fen", "none" if judged else "")),
        m.Figure(residual),
        m.link(start, "debits") if start else "",
        head=_LINES,
        anchor=f"line-{n}",
    )


_QUANTITIES = (("calls", m.whole), ("amount", m.points), ("charged", m.points))


def counted(line: Raw) -> Any:
    """Tokens by class, without those that are none."""
    usage = line.get("usage", {})
    return {name: usage[name] for name in CLASSES if usage.get(name)} if isinstance(usage, dict) else usage


def _about(line: Raw) -> str:
    about = [str(line["kind"]).replace("_", " ")]
    if line.get("plan"):
        about.append(f"plan {line['plan']}@{line['plan_version']}")
    if line.get("subscription"):
        about.append(f"subscription {line['subscription']}")
    if line.get("from_day"):
        about.append(f"{line['from_day']} to {line['to_day']}")
    return ", ".join(about)


def _rate(line: Raw, prices: Prices) -> m.Html:
    card = prices.card(str(line["rate_card"]))
    if card is None:
        return m.verdict(False, no=f"{line['rate_card']}: not published")
    rates = ", ".join(f"{m.whole(rate)} {name}" for name, rate in zip(CLASSES, card.base, strict=True) if rate)
    more = "; others by length" if card.tiers else "; others by time of day" if card.off_peak else ""
    return m.join(m.code(line["rate_card"]), m.element("div", rates, more, cls="quiet"))


def _sum(lines: Sequence[Line], judged: bool) -> m.Html:
    billed = m.yuan(m.total(one.get("fen") for one, _ in lines))
    computed = m.yuan(m.total(one.get("fen") for _, one in lines)) if judged else ""
    return m.row("", "sum of the lines", "", "", "", "", "", billed, computed, "", "", head=_LINES, cls="sum")


def _differences(again: Again | None) -> m.Html:
    if again is None or not again.differences:
        return m.Html()
    head = ("what", "computed", "billed")
    rows = (m.row(*map(m.long_code, difference), head=head) for difference in again.differences)
    return m.join(m.element("h2", "Differences"), m.table(head, rows))


def debit_tables(rows: Iterable[tuple[int, m.Html]], lines: Sequence[Line], lines_at: str = "") -> m.Html:
    """Debits as tables, one for each line. `lines_at`: the page with the lines, seen from here; this one if empty."""
    made = []
    for n, of_line in groupby(rows, key=lambda each: each[0]):
        known = lines[n - 1][1]
        back = m.link(f"{lines_at}#line-{n}", f"line {n}")
        about = m.join(m.text(known["model"]), ", ", _about(known), ", ", m.text(known["rate_card"]))
        made += [m.element("h3", back, ": ", about, id=f"debits-{n}"), m.table(TITLES, (row for _, row in of_line))]
    return m.join(*made) if made else m.element("p", "none")


def debits_page(serial: int, bill: Numbered, tables: m.Html, number: int, has_next: bool) -> str:
    """The `number`-th page of a bill's debits."""
    here = names.debits(serial, number)
    ways = []
    if number > 1:
        ways.append(m.link(names.between(here, names.debits(serial, number - 1)), "earlier"))
    if has_next:
        ways.append(m.link(names.between(here, names.debits(serial, number + 1)), "later"))
    title = f"Debits of bill {bill.number}, page {number}"
    turn = m.element("p", m.Html(" · ".join(ways)))
    back = trail(here, names.INDEX, names.listing(names.listing_of(serial)), names.bill(serial))
    check = m.link(names.between(here, f"{names.INDEX}#check"), "How to check a debit by hand")
    return m.page(title, back, m.element("h1", title), turn, tables, turn, m.element("p", check))
