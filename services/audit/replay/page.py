"""The report as one printable page, without scripts and without anything loaded from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from services.audit.replay.findings import AuditReport

MILLIPOINTS_PER_POINT = 1_000
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #d0d7de; padding: .3rem .5rem; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } code { overflow-wrap: anywhere }
td:first-child code { white-space: nowrap }
.yes { color: #116329 } .no { color: #a40e26; font-weight: 600 }
"""


def render_html(report: AuditReport) -> str:
    """The page, complete."""
    checks = (
        ("Balances: each account and grant, as the ledger service answers", report.balances_match),
        ("Bills: each line, number and hash", report.bills_match),
        ("Statements between operators", report.statements_match),
        ("Invariants of the ledger", report.invariants_hold),
        ("Calls: routed, served and charged alike", report.calls_match),
        ("Logs: complete, unchanged, as signed", report.log_verified),
    )
    verdict = "Everything agrees" if report.ok else f"{report.differences_count:,} differences"
    points = report.debited // MILLIPOINTS_PER_POINT
    totals = (
        ("Accounts", f"{report.accounts:,}"),
        ("Bills", f"{report.bills:,}"),
        ("Statements", f"{report.statements:,}"),
        ("Points debited", f"{points:,}.{report.debited % MILLIPOINTS_PER_POINT:03d}"),
        ("Seconds", f"{report.seconds:,.1f}"),
    )
    logs = [
        (log, f"{count:,}", f"{head.get('size', 0):,}", head.get("root_sha256", ""), head.get("verifier_key", ""))
        for log, count in sorted(report.events.items())
        for head in (report.checkpoints.get(log, {}),)
    ]
    differences = [
        (d.area, d.what, d.log, str(d.position or ""), d.account, d.expected, d.found) for d in report.differences
    ]
    kept = "" if report.differences_count == len(differences) else f" (the first {len(differences):,})"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>Audit {escape(report.period)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Audit of {escape(report.period)}: {_verdict(verdict, report.ok)}</h1>",
        "<h2>Checks</h2><table>",
        *(f"<tr><td>{escape(name)}</td><td>{_answer(ok)}</td></tr>" for name, ok in checks),
        "</table><h2>Audited</h2><table>",
        *(f'<tr><td>{escape(name)}</td><td class="n">{escape(value)}</td></tr>' for name, value in totals),
        "</table><h2>Logs</h2>",
        _table(("log", "events", "sealed", "root", "verifier key"), logs),
    ]
    if report.not_asked:
        parts += ["<h2>Not asked</h2><ul>", *(f"<li>{escape(each)}</li>" for each in report.not_asked), "</ul>"]
    if differences:
        head = ("area", "what", "log", "position", "account", "expected", "found")
        parts += [f"<h2>Differences{kept}</h2>", _table(head, differences)]
    return "".join(parts) + "</body></html>\n"


def _answer(ok: bool | None) -> str:
    return "not asked" if ok is None else _verdict("yes" if ok else "no", ok)


def _verdict(text: str, ok: bool) -> str:
    return f'<span class="{"yes" if ok else "no"}">{escape(text)}</span>'


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td><code>{escape(str(c))}</code></td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"
