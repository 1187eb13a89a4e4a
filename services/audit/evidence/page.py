"""Evidence as one page for people: from the total to its lines, from a line to its debits, from a debit to its leaf.

Pure. It shows what a report's pages show, of one bill; the proof of all its events is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.audit import markup as m
from services.audit.evidence.package import Event, Evidence
from services.audit.evidence.verify import Verdict
from services.audit.report.bill import USAGE, Line, debit_tables, lines_of, lines_table
from services.audit.report.debits import LineSum
from services.audit.report.gather import line_key, line_of

DEBITS_SHOWN_MAX = 10_000  # of a bill: a page that a browser still opens
_DIFFERENCES = ("what", "log", "position>", "expected", "found")


def render_html(evidence: Evidence, verdict: Verdict) -> str:
    """The page, complete."""
    bill = verdict.bill
    log = bill.get("quota_log", "quota")
    title = f"Evidence of bill {bill['number']}"
    lines = lines_of(verdict.numbered, verdict.computed)
    debits = _debits(evidence, verdict, log)
    starts = {n: f"#debits-{n}" for n, (_, line) in enumerate(lines, 1) if _key(line) in debits}
    whole = (
        "Each event was hashed, and the hashes lead to the roots below, which the logs' keys have signed. Each stream "
        f"is whole: that of {bill['account']} has every event from its opening to the bill's cut-off, position "
        f"{bill['quota_position']:,} of {log}'s log."
    )
    return m.page(
        title,
        m.element("h1", title, ": ", m.verdict(verdict.ok, "proven", f"{len(verdict.differences):,} differences")),
        m.facts(_facts(verdict)),
        lines_table(lines, verdict.prices, starts, verdict.computed is not None),
        m.element("h2", "Debits"),
        debit_tables(_rows(lines, debits, log, verdict.leaves[log]), lines),
        _cut(debits),
        m.element("h2", "The proof"),
        m.element("p", whole),
        *_signed(evidence, verdict),
        *_differences(verdict),
    )


def _facts(verdict: Verdict) -> Iterator[tuple[object, object]]:
    bill = verdict.bill
    yield "Operator and account", m.code(verdict.numbered.stream)
    yield "Period", m.text(bill["period"])
    yield "Total", m.join(m.yuan(bill["total_fen"]), " yuan, of it ", m.yuan(bill["vat_fen"]), " VAT")
    yield "Calls", m.whole(bill["calls"])
    yield "Points debited", m.points(bill["debited"])
    yield "Status", _status(verdict)
    yield "SHA-256 of the bill", m.code(verdict.bill_sha256)


def _status(verdict: Verdict) -> m.Html:
    if verdict.void:
        return m.text("void")
    settled = verdict.paid_fen + verdict.credited_fen
    return m.join(m.yuan(settled), " yuan of it paid or credited") if settled else m.text("issued")


# -- the debits -----------------------------------------------------------------------------------
def _debits(evidence: Evidence, verdict: Verdict, log: str) -> dict[str, list[Event]]:
    """The debits and reversals that the bill has, by line."""
    found: dict[str, list[Event]] = {}
    for event in evidence.of(log).events:
        key = line_of(event.topic, event.state, event.position, verdict.bill["period"], verdict.carries)
        if key:
            found.setdefault(key, []).append(event)
    return found


def _rows(
    lines: Sequence[Line], debits: Mapping[str, list[Event]], log: str, leaves: Mapping[int, bytes]
) -> Iterator[tuple[int, m.Html]]:
    """By the number of their line."""
    room = DEBITS_SHOWN_MAX
    for n, (_, line) in enumerate(lines, 1):
        of_line = debits.get(_key(line), [])
        if not of_line:
            continue
        summed = LineSum(line)
        for event in of_line[:room]:
            leaf = m.join("leaf ", m.code(leaves[event.position].hex()))
            yield n, summed.rows(log, event.position, event.topic, event.state, leaf)
        if len(of_line) <= room:
            yield n, summed.sum_row()
        room = max(room - len(of_line), 0)


def _key(line: Mapping[str, object]) -> str:
    return line_key(line["kind"], line["model"], line["rate_card"]) if line.get("kind") in USAGE else ""


def _cut(debits: Mapping[str, list[Event]]) -> m.Html:
    count = sum(map(len, debits.values()))
    return m.element("p", f"The first {DEBITS_SHOWN_MAX:,} of {count:,}.") if count > DEBITS_SHOWN_MAX else m.Html()


# -- the proof ------------------------------------------------------------------------------------
def _signed(evidence: Evidence, verdict: Verdict) -> Iterable[m.Html]:
    for signed in verdict.signed:
        proven = evidence.of(signed.log)
        witnesses = ", ".join(key.name for key in signed.witnessed_s) or "none asked for"
        yield m.element("h3", f"{signed.log}: {len(proven.events):,} of {signed.checkpoint.size:,} events")
        yield m.facts(
            (
                ("Root", m.code(signed.checkpoint.root.hex())),
                ("Verified with", m.code(signed.key)),
                ("Hashes of other events that lead there", m.whole(len(proven.proof_bytes) // 32)),
                ("Witnesses", witnesses),
            )
        )
        yield m.element("pre", "\n", proven.checkpoint)


def _differences(verdict: Verdict) -> Iterator[m.Html]:
    if verdict.differences:
        yield m.element("h2", "Differences")
        rows = (
            m.row(
                d.what,
                d.log,
                m.whole(d.position or ""),
                m.long_code(d.expected),
                m.long_code(d.found),
                head=_DIFFERENCES,
            )
            for d in verdict.differences
        )
        yield m.table(_DIFFERENCES, rows)
