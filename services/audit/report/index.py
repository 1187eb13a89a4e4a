"""The report of an audit as one page: verdicts, heads, and what does not agree. Pure.

Alone it is the whole report; with the month's pages beside it, everything it says leads to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.audit import markup as m
from services.audit.replay.findings import AuditReport, Difference
from services.audit.replay.recomputed import Settled
from services.audit.report import names
from services.audit.report.byhand import BY_HAND
from services.audit.report.debits import leads_to
from services.audit.report.gather import Head
from services.audit.report.listing import Sums
from services.audit.report.statement import verdict_of
from shared.errors import AuditFailed, MalformedCommand
from shared.transparency.keys import VerifierKey
from shared.transparency.note import Note


@dataclass
class Month:
    """The pages beside the index. `sums`, `first`: by operator, what its bills come to, and the page of the list that
    they begin on; `heads`: the trees that the proofs lead to; `left_out`: what has no page, and why, in sentences;
    `place`: where a difference is shown, if it is."""

    sums: dict[str, Sums] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    statements: Sequence[Settled] = ()
    heads: Mapping[str, Head] = field(default_factory=dict)
    listings: int = 0
    debits: int = 0
    left_out: list[str] = field(default_factory=list)
    place: Callable[[Difference], str] = lambda _: ""


def render_html(report: AuditReport, month: Month | None = None) -> str:
    """The page, complete."""
    checks = (
        ("Balances: each account and grant, as the ledger service answers", report.balances_match),
        ("Bills: each line, number and hash", report.bills_match),
        ("Statements between operators", report.statements_match),
        ("Invariants of the ledger", report.invariants_hold),
        ("Calls: routed, served and charged alike", report.calls_match),
        ("Logs: complete, unchanged, as signed", report.log_verified),
    )
    totals = (
        ("Accounts", m.whole(report.accounts)),
        ("Bills", m.whole(report.bills)),
        ("Statements", m.whole(report.statements)),
        ("Points debited", m.points(report.debited)),
        ("Seconds", m.text(f"{report.seconds:,.1f}")),
    )
    title = f"Audit of {report.period}"
    outcome = m.verdict(report.ok, "Everything agrees", f"{report.differences_count:,} differences")
    if report.differences:
        outcome = m.link("#differences", outcome)
    return m.page(
        title,
        m.element("h1", title, ": ", outcome),
        m.element("h2", "Checks"),
        m.facts((name, m.verdict(agrees, "yes", "no")) for name, agrees in checks),
        m.element("h2", "Audited"),
        m.facts(totals),
        *(_month(report.period, month) if month is not None else ()),
        m.element("h2", "Logs", id="logs"),
        _logs(report, month.heads if month is not None else {}),
        *_not_asked(report),
        *_differences(report, month.place if month is not None else lambda _: ""),
        *(BY_HAND if month is not None else ()),
    )


# -- the logs -------------------------------------------------------------------------------------
def _logs(report: AuditReport, heads: Mapping[str, Head]) -> m.Html:
    parts = []
    for log, count in sorted(report.events.items()):
        signed = report.checkpoints.get(log, {})
        rows: list[tuple[object, object]] = [("Events read", m.whole(count))]
        if signed:
            rows += _signed(signed)
        else:
            rows.append(("Checkpoint", "none" if log != "audit" else "its events are signed notes themselves"))
        if log in heads:
            rows.append(("Proofs on the pages", _proofs(heads[log])))
        parts += [m.element("h3", log), m.facts(rows)]
        if signed.get("note"):
            parts.append(m.details("the checkpoint as it was signed", m.element("pre", "\n", signed["note"])))
    return m.join(*parts)


_UNPROVEN = m.verdict(False, no="none was given: nobody has verified the signature")


def _signed(signed: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    yield "Signed size", m.whole(signed["size"])
    yield "Signed root", m.element("code", signed["root_sha256"], cls="root")
    yield "Verifier key", m.code(signed["verifier_key"]) if signed["verifier_key"] else _UNPROVEN
    signers = _signers(signed)
    others = [name for name, is_of_key in signers if not is_of_key]
    if signed["verifier_key"]:
        own = next((name for name, is_of_key in signers if is_of_key), "a key that was announced together with it")
        yield "Signed by", m.join(own, ", ", m.verdict(True, "verified"))
    if others:
        yield "Other signatures", f"{', '.join(others)}: not verified here; see tokengrid audit verify --witness"


def _signers(signed: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Who has signed a checkpoint, and whether it is the key that it was verified with."""
    try:
        key = VerifierKey.parse(signed["verifier_key"]) if signed["verifier_key"] else None
        signatures = Note.parse(signed["note"]).signatures
    except (AuditFailed, MalformedCommand):
        return []
    return [(s.name, key is not None and (s.name, s.key_id) == (key.name, key.id)) for s in signatures]


def _proofs(head: Head) -> m.Html:
    if not head.size:
        return m.verdict(False, no="there is no checkpoint that they could lead to")
    return m.join("lead to ", leads_to(head), ": ", m.code(head.root))


# -- the month --------------------------------------------------------------------------------------
def _month(period: str, month: Month) -> Iterator[m.Html]:
    yield m.element("h2", f"The month {period}", id="month")
    yield from (m.element("p", sentence, cls="no") for sentence in month.left_out)
    total = Sums()
    rows = []
    for operator, sums in sorted(month.sums.items()):
        rows.append(_sums_row(m.link(names.listing(month.first[operator]), operator), sums))
        total.plus(sums)
    rows.append(_sums_row(m.link(names.listing(1), "all") if month.listings else "all", total, "sum"))
    yield m.table(_MONTH, rows)
    lists = (m.link(names.listing(n), n) for n in range(1, month.listings + 1))
    yield m.element("p", "The bills, page by page: ", m.Html(" · ".join(lists)))
    yield m.element("p", f"{month.debits:,} debits are shown, each with its proof.")
    yield m.element("h2", "Settlement between operators", id="settlement")
    yield _settlement(month.statements)


_MONTH = ("operator", "bills>", "of them agree>", "void, not judged>", "billed, yuan>", "computed, yuan>")
_STATEMENTS = ("home", "serving", "calls>", "owed, yuan>", "computed, yuan>", "")
_SETTLED = ("operator", "owes, yuan>", "computed>", "is owed, yuan>", "computed>")
_DIFFERENCES = ("area", "what", "log", "position>", "account", "expected", "found")


def _sums_row(name: object, sums: Sums, cls: str = "") -> m.Html:
    counts = (m.whole(sums.bills), m.whole(sums.agree), m.whole(sums.others))
    return m.row(
        name,
        *counts,
        m.yuan_billed(sums.billed_fen, sums.computed_fen),
        m.yuan(sums.computed_fen),
        head=_MONTH,
        cls=cls,
    )


def _settlement(statements: Sequence[Settled]) -> m.Html:
    rows: list[m.Html] = []
    by_operator: dict[str, list[int]] = {}
    for n, statement in enumerate(statements, 1):
        home, serving, settled = statement.home, statement.serving, statement.issued.content
        fen = settled.get("net_fen")
        again = statement.again.computed["net_fen"] if statement.again is not None else "not computed"
        figures = (m.whole(settled.get("calls")), m.yuan_billed(fen, again), m.yuan(again))
        rows.append(m.row(home, m.link(names.statement(n), serving), *figures, verdict_of(statement), head=_STATEMENTS))
        for operator, column in ((home, 0), (serving, 2)):
            sums = by_operator.setdefault(operator, [0, 0, 0, 0])
            sums[column] += m.total([fen])
            sums[column + 1] += m.total([again])
    summed = [m.row(name, *map(m.yuan, sums), head=_SETTLED) for name, sums in sorted(by_operator.items())]
    return m.join(m.table(_STATEMENTS, rows), m.element("h3", "By operator"), m.table(_SETTLED, summed))


# -- what is to be said besides ---------------------------------------------------------------------
def _not_asked(report: AuditReport) -> Iterator[m.Html]:
    if report.not_asked:
        yield m.element("h2", "Not asked")
        yield m.element("ul", *(m.element("li", each) for each in report.not_asked))


def _differences(report: AuditReport, place: Callable[[Difference], str]) -> Iterator[m.Html]:
    if not report.differences:
        return
    kept = len(report.differences)
    cut = "" if report.differences_count == kept else f" (the first {kept:,})"
    rows = []
    for d in report.differences:
        at, href = m.whole(d.position) if d.position else "", place(d)
        what = m.link(href, d.what) if href else d.what
        shown = (m.code(d.account), m.long_code(d.expected), m.long_code(d.found))
        rows.append(m.row(d.area, what, d.log, at, *shown, head=_DIFFERENCES))
    yield m.element("h2", f"Differences{cut}", id="differences")
    yield m.table(_DIFFERENCES, rows)
