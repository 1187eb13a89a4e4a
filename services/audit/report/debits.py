"""The debits of a bill's lines, each with its proof, and what they add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from services.audit import markup as m
from services.audit.replay.prices import CLASSES, Raw
from services.audit.replay.usage import Sums
from services.audit.report.gather import DEBIT, Head
from services.audit.report.names import anchor
from services.audit.report.spool import Shown

TITLES = ("position>", "what", "when", "request", "tokens × points per 1,000", "points>", "computed>", "charged>")


class LineSum:
    """The debits of one line, as they are shown one after another. `computed`: the line as it was computed again."""

    def __init__(self, computed: Raw) -> None:
        self._computed = computed
        self._sums = Sums()
        self._calculated = 0
        self.unreadable = 0

    def rows(self, log: str, position: int, topic: str, state: str, under: m.Html) -> m.Html:
        """An event's row, and what stands under it."""
        where = {"cls": "part", "anchor": anchor(log, position)}
        try:
            cells = self._taken(topic, msgspec.json.decode(state))
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
            self.unreadable += 1
            cells = (m.verdict(False, no="not a debit of the contract"),)
        row = m.row(m.whole(position), *cells, head=TITLES, **where)
        return m.join(row, m.element("tr", m.element("td", under, colspan=str(len(TITLES)))))

    def _taken(self, topic: str, content: Raw) -> tuple[object, ...]:
        """The cells of a debit or reversal, which is added to the sum."""
        part, is_debit = Sums(), topic == DEBIT
        (part.debit if is_debit else part.reverse)(content)
        calculated = _calculated(content) if is_debit else part.amount
        what = "debit" if is_debit else "reversal"
        when, request = m.element("span", content["at"], cls="at"), m.code(content["request_id"])
        priced = _priced(content) if is_debit else f"of {content['debit']}"
        figures = (m.points(part.amount), m.points(calculated), m.points(part.charged))
        self._sums.add(part)
        self._calculated += calculated
        return what, when, request, priced, *figures

    def sum_row(self) -> m.Html:
        """The last row of a line: the sum, and whether it is the line's."""
        sums = self._sums
        about = m.join(f"{sums.calls:,} calls, ", tokens(_by_class(sums)))
        figures = (m.points(sums.amount), m.points(self._calculated), m.points(sums.charged))
        return m.row(m.Figure(f"{sums.events:,}"), "sum", "", self.agreement(), about, *figures, head=TITLES, cls="sum")

    def agreement(self) -> m.Html:
        found: Raw = {"calls": self._sums.calls, "usage": _by_class(self._sums)}
        found |= {"amount": self._sums.amount, "charged": self._sums.charged}
        same = all(self._computed.get(name) == value for name, value in found.items()) and not self.unreadable
        return m.verdict(same, "adds up to the line", "does not add up to the line")


def proof(shown: Shown, head: Head) -> m.Html:
    """What it takes to compute the leaf and the root again."""
    path, leaf = head.path(shown.place), shown.leaf.hex()
    fields = m.coded(
        {
            "log": shown.log,
            "position": shown.position,
            "stream": shown.stream,
            "version": shown.version,
            "topic": shown.topic,
            "state": shown.state,
            "leaf": leaf,
            "index, of": f"{shown.place} of {head.size}",
        }
    )
    if path is None:
        nothing = m.verdict(False, no="no checkpoint covers it yet")
        return m.details(m.join("leaf ", m.code(leaf[:16]), "… ", nothing), fields)
    nodes = m.Html("".join(f"<li><code>{node}</code></li>" for node in path))
    leads = leads_to(head)
    return m.details(
        m.join("leaf ", m.code(leaf[:16]), "… and its path to ", leads),
        fields,
        m.element("p", f"{len(path)} hashes, from the leaf upwards, lead to ", m.code(head.root), ", ", leads, "."),
        m.element("ol", nodes, cls="path", start="0"),
    )


def leads_to(head: Head) -> m.Html:
    """What a path in the tree leads to."""
    if head.matches and not head.verified:
        return m.element("span", "the root of a checkpoint that no key was given for", cls="no")
    return m.verdict(head.matches, "the signed root", "a root that is not the signed one")


def tokens(usage: Any) -> m.Html:
    """By class, as text."""
    if not isinstance(usage, dict):
        return m.text(usage)
    return m.join(", ".join(f"{m.whole(count)} {m.text(name)}" for name, count in usage.items() if count))


def _priced(content: Raw) -> m.Html:
    rates = content["rates"]
    parts = (f"{m.whole(n)} {m.text(c)} × {m.whole(rates.get(c, 0))}" for c, n in content["usage"].items() if n)
    return m.Html(" + ".join(parts))


def _calculated(content: Raw) -> int:
    """Millipoints: tokens times points per 1,000 tokens."""
    used, rates = content["usage"], content["rates"]
    return sum(used.get(name, 0) * rates.get(name, 0) for name in CLASSES)


def _by_class(sums: Sums) -> dict[str, int]:
    return {name: count for name, count in zip(CLASSES, sums.tokens, strict=True) if count}


def chunked(rows: Iterator[tuple[int, m.Html]], size: int) -> Iterator[list[tuple[int, m.Html]]]:
    """Parts of at most `size`, in order."""
    part: list[tuple[int, m.Html]] = []
    for each in rows:
        part.append(each)
        if len(part) >= size:
            yield part
            part = []
    if part:
        yield part
