"""Evidence as one page for people: from the total to its lines, from a line to its debits, from a debit to its proof.

Pure. Without scripts and without anything loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import msgspec

from services.audit.evidence.package import Evidence
from services.audit.evidence.verify import Verdict
from services.audit.replay.calendar import period_and_day

DEBITS_SHOWN_MAX = 10_000  # of a bill: a page that a browser still opens
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #d0d7de; padding: .3rem .5rem; text-align: left; vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums } code { overflow-wrap: anywhere }
summary { cursor: pointer; padding: .4rem 0 } pre { overflow-x: auto; background: #f6f8fa; padding: .5rem }
.yes { color: #116329 } .no { color: #a40e26; font-weight: 600 }
"""


def render_html(evidence: Evidence, verdict: Verdict) -> str:
    """The page, complete."""
    bill = verdict.bill
    log = bill.get("quota_log", "quota")
    word = "proven" if verdict.ok else f"{len(verdict.differences):,} differences"
    title = f"Evidence of bill {escape(bill['number'])}"
    facts = [
        ("Operator and account", f"{bill['operator']}/{bill['account']}"),
        ("Period", bill["period"]),
        ("Total", f"{_yuan(bill['total_fen'])} yuan, of it {_yuan(bill['vat_fen'])} VAT"),
        ("Calls", f"{bill['calls']:,}"),
        ("Points debited", _points(bill["debited"])),
        ("Status", _status(verdict)),
        ("SHA-256 of the bill", verdict.bill_sha256),
    ]
    debits = _debits(evidence, log)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{title}: <span class="{"yes" if verdict.ok else "no"}">{word}</span></h1><table>',
        *(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts),
        "</table><h2>The lines</h2><p>A line of usage opens to the debits it is the sum of, each with its leaf.</p>",
        *(_line(line, bill, debits, verdict.leaves.get(log, {})) for line in bill["lines"]),
        "<h2>The proof</h2>",
        f"<p>Each event was hashed, and the hashes lead to the roots below, which the logs' keys have signed. Each "
        f"stream is whole: that of {escape(bill['account'])} has every event from its opening to the bill's cut-off, "
        f"position {bill['quota_position']:,} of {escape(log)}'s log.</p>",
        *(_signed(evidence, verdict)),
    ]
    if verdict.differences:
        rows = [(d.what, d.log, str(d.position or ""), d.expected, d.found) for d in verdict.differences]
        parts += ["<h2>Differences</h2>", _table(("what", "log", "position", "expected", "found"), rows)]
    return "".join(parts) + "</body></html>\n"


def _status(verdict: Verdict) -> str:
    if verdict.void:
        return "void"
    settled = verdict.paid_fen + verdict.credited_fen
    return f"{_yuan(settled)} yuan of it paid or credited" if settled else "issued"


def _debits(evidence: Evidence, log: str) -> dict[tuple[str, str], list[tuple[int, str, Mapping[str, Any]]]]:
    """By model and rate card: position, kind and content of debits and reversals."""
    found: dict[tuple[str, str], list[tuple[int, str, Mapping[str, Any]]]] = {}
    for event in evidence.of(log).events:
        if event.topic in ("quota.TokensDebited:1", "quota.DebitReversed:1"):
            content = msgspec.json.decode(event.state)
            kind = "reversal" if "Reversed" in event.topic else "debit"
            found.setdefault((content["model"], content["rate_card"]), []).append((event.position, kind, content))
    return found


def _line(
    line: Mapping[str, Any],
    bill: Mapping[str, Any],
    debits: Mapping[tuple[str, str], list[tuple[int, str, Mapping[str, Any]]]],
    leaves: Mapping[int, bytes],
) -> str:
    head = f"{escape(line['text'])}: <b>{_yuan(line['fen'])}</b> yuan"
    if line["kind"] not in ("usage", "late_usage"):
        return f"<p>{head}</p>"
    own = line["kind"] == "usage"
    rows = [
        (
            f"{position:,}",
            kind,
            content["at"],
            content["request_id"],
            ", ".join(f"{count:,} {name}" for name, count in content.get("usage", {}).items()),
            ("−" if kind == "reversal" else "") + _points(content["amount"]),
            leaves[position].hex(),
        )
        for position, kind, content in debits.get((line["model"], line["rate_card"]), ())
        if (period_and_day(content["at"])[0] == bill["period"]) == own
    ]
    cut = f"<p>The first {DEBITS_SHOWN_MAX:,} of {len(rows):,}.</p>" if len(rows) > DEBITS_SHOWN_MAX else ""
    titles = ("position", "what", "when", "request", "tokens", "points", "leaf hash")
    charged = f"{_points(line.get('charged', 0))} of {_points(line.get('amount', 0))} points charged"
    about = f"{line.get('calls', 0):,} calls, {charged}, rate card {escape(line['rate_card'])}"
    return f"<details><summary>{head}<br>{about}</summary>{_table(titles, rows[:DEBITS_SHOWN_MAX])}{cut}</details>"


def _signed(evidence: Evidence, verdict: Verdict) -> Iterable[str]:
    for signed in verdict.signed:
        proven = evidence.of(signed.log)
        witnesses = ", ".join(key.name for key in signed.witnessed_s) or "none asked for"
        yield (
            f"<h3>{escape(signed.log)}: {len(proven.events):,} of {signed.checkpoint.size:,} events</h3>"
            f"<p>Root <code>{signed.checkpoint.root.hex()}</code><br>"
            f"verified with <code>{escape(str(signed.key))}</code><br>"
            f"{len(proven.proof_bytes) // 32:,} hashes of other events lead there · witnesses: {escape(witnesses)}</p>"
            f"<pre>{escape(proven.checkpoint)}</pre>"
        )


def _yuan(fen: int) -> str:
    return f"{'−' if fen < 0 else ''}{abs(fen) // 100:,}.{abs(fen) % 100:02d}"


def _points(millipoints: int) -> str:
    sign, size = ("−" if millipoints < 0 else ""), abs(millipoints)
    return f"{sign}{size // 1000:,}.{size % 1000:03d}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td><code>{escape(cell)}</code></td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"
