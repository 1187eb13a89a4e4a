"""One statement between operators as a page: its lines as they were settled and as they were computed again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from services.audit import markup as m
from services.audit.replay.prices import Raw
from services.audit.replay.recomputed import Settled
from services.audit.report import names
from services.audit.report.bill import beside, counted, trail
from services.audit.report.debits import tokens

_LINES = ("model", "tariff", "calls>", "tokens", "points>", "gross>", "discount>", "net, settled>", "net, computed>")


def statement_key(number: int) -> str:
    """What the event of a statement is called in the spool."""
    return f"statement {number}"


def verdict_of(statement: Settled) -> m.Html:
    """Whether it is what was computed."""
    return m.verdict(None if statement.again is None else not statement.again.differences, none="not judged")


def statement_page(number: int, statement: Settled, proof: m.Html) -> str:
    """The page of the `number`-th statement."""
    here = names.statement(number)
    title = f"What {statement.home} owes {statement.serving}"
    settled = statement.issued.content
    computed = statement.again.computed if statement.again is not None else {}
    pairs = list(zip_longest(settled["lines"], computed.get("lines", [])))
    about = (
        "Gross is what the tariff makes of the tokens, or of the points that the home operator's subscribers used; net "
        "is gross without the discount. Each is rounded to whole fen once. The debits are on these subscribers' bills."
    )
    facts = (
        ("Net settled, yuan", m.yuan_billed(settled.get("net_fen"), computed.get("net_fen"))),
        ("Net computed, yuan", m.yuan(computed.get("net_fen", "not computed"))),
        ("SHA-256", m.code(statement.issued.sha256)),
    )
    return m.page(
        title,
        trail(here, f"{names.INDEX}#settlement"),
        m.element("h1", title, ": ", verdict_of(statement)),
        m.facts(facts),
        m.element("h2", "Lines"),
        m.element("p", about, cls="quiet"),
        m.table(_LINES, [*(_line(one or {}, other or {}) for one, other in pairs), _sum(pairs)]),
        proof,
    )


def _line(settled: Raw, computed: Raw) -> m.Html:
    known = computed or settled
    points = beside(settled.get("amount"), computed.get("amount"), m.points)
    calls = beside(settled.get("calls"), computed.get("calls"), m.whole)
    gross, discount = (beside(settled.get(name), computed.get(name), m.yuan) for name in ("gross_fen", "discount_fen"))
    return m.row(
        m.code(known.get("model")),
        beside(settled.get("tariff"), computed.get("tariff"), m.code),
        m.Figure(calls),
        beside(counted(settled), counted(computed), tokens),
        m.Figure(points),
        m.Figure(gross),
        m.Figure(discount),
        m.yuan_billed(settled.get("net_fen", "none"), computed.get("net_fen")),
        m.yuan(computed.get("net_fen", "none")),
        head=_LINES,
    )


def _sum(pairs: Sequence[tuple[Raw | None, Raw | None]]) -> m.Html:
    nets = (m.total(line.get("net_fen") for line in lines if line) for lines in zip(*pairs, strict=True))
    sums = [m.yuan(net) for net in nets] or [m.yuan(0), m.yuan(0)]
    return m.row("sum of the lines", "", "", "", "", "", "", *sums, head=_LINES, cls="sum")
