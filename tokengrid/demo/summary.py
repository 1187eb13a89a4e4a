"""The demo's end on the screen: what happened, what it cost, whether it agrees, and where everything lies."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shared.units import show_points, yuan
from tokengrid.demo.run import Outcome

VERDICTS = (
    ("balances_match", "every balance and grant"),
    ("bills_match", "every bill and its hash"),
    ("statements_match", "every statement between operators"),
    ("invariants_hold", "the ledger's invariants"),
    ("calls_match", "calls routed, served and charged alike"),
    ("log_verified", "logs complete, unchanged, as signed"),
)
WIDTH_PLAIN = 120


def show(console: Console, outcome: Outcome) -> None:
    """Print the summary."""
    console = console if console.is_terminal else Console(file=console.file, width=WIDTH_PLAIN)
    report = outcome.report
    between = [_settlement(outcome.settlement)] if outcome.settlement["matrix"] else []
    for table in (_calls(report), _money(report), *between, _rates(report), _audit(report)):
        console.print(f"\n[bold]{escape(str(table.title))}[/bold]", highlight=False)
        table.title = None
        console.print(table, highlight=False)
    _broken(console, report)
    console.print()
    for name, path in outcome.files.items():
        console.print(f"{name:<11} {path}", highlight=False, soft_wrap=True)
    operator, account = outcome.shown
    where = " --against up" if report["against"] == "up" else ""
    console.print("Ask on:")
    for words in ("bill list", f"account balance {operator} {account}", "events quota"):
        console.print(f"  tokengrid {words}{where}", highlight=False, soft_wrap=True)


def _table(title: str, *columns: tuple[str, bool]) -> Table:
    """Columns with their names, and whether they hold figures."""
    table = Table(title=title, show_header=any(name for name, _ in columns))
    for name, figures in columns:
        table.add_column(name, justify="right" if figures else "left")
    return table


def _calls(report: dict[str, Any]) -> Table:
    table = _table(
        f"The calls of {report['period']}, seed {report['seed']}, trace {report['trace']}", ("", False), ("", True)
    )
    table.add_row("calls", f"{report['calls']:,}")
    for name in ("settled", "released", "refused", "abandoned"):
        table.add_row(f"  {name}", f"{report[name]:,}")
        for reason, count in report["reasons"].items():
            outcome, _, code = reason.partition(": ")
            if outcome == name:
                table.add_row(f"    {code}", f"{count:,}")
    table.add_row("holds expired", f"{report['expired_reservations']:,}")
    table.add_row("tokens", f"{report['tokens']:,}")
    table.add_row("points debited", show_points(report["debited_mp"]))
    return table


def _money(report: dict[str, Any]) -> Table:
    table = _table("The bills", ("", False), ("", True))
    table.add_row("accounts", f"{report['accounts']:,}")
    table.add_row("bills", f"{report['bills']:,}")
    for kind, fen in report["billed_fen_by_kind"].items():
        table.add_row(f"  {kind}", f"{yuan(fen)} yuan")
    table.add_row("in all", f"{yuan(report['billed_fen'])} yuan")
    return table


def _settlement(found: dict[str, Any]) -> Table:
    matrix = found["matrix"]
    operators = sorted({*matrix, *(serving for row in matrix.values() for serving in row)})
    table = _table("Settlement, yuan: who (row) owes whom (column)", ("", False), *((o, True) for o in operators))
    for home in operators:
        owed = (yuan(matrix.get(home, {}).get(serving, 0)) if serving != home else "" for serving in operators)
        table.add_row(home, *owed)
    table.caption = "\n".join(
        f"net: {pair['debtor']} owes {pair['creditor']} {yuan(pair['fen'])}" for pair in found["netting"]
    )
    table.caption_justify = "left"
    return table


def _rates(report: dict[str, Any]) -> Table:
    table = _table("The work", ("", False), ("per second", True))
    for title, per_second in report["rates_per_s"].items():
        if per_second:
            table.add_row(title, f"{per_second:,}")
    for log, count in report["events_by_log"].items():
        table.add_row(f"events in {log}'s log", f"{count:,} in all")
    table.add_row("wall time", f"{report['wall_s']} s in all")
    table.add_row("memory", f"{report['rss_mb_max']} MB at most")
    return table


def _audit(report: dict[str, Any]) -> Table:
    verdict = "everything agrees" if report["audit_ok"] else f"{report['differences_count']:,} differences"
    table = _table(f"The audit, by its own arithmetic: {verdict}", ("", False), ("", False))
    for key, text in VERDICTS:
        table.add_row(text, "[green]agrees[/green]" if report[key] else "[red]differs[/red]")
    for one in report["differences"]:
        place = f"{one['log']} {one['position']} {one['account']}".strip()
        table.add_row(escape(f"{place}: {one['what']}"), escape(f"expected {one['expected']}, found {one['found']}"))
    return table


def _broken(console: Console, report: dict[str, Any]) -> None:
    if report["broken_lines"]:
        console.print(f"\n{report['broken_lines']:,} broken lines of the trace were left out:", highlight=False)
        for one in report["broken"]:
            console.print(f"  line {one['line']}: {one['reason']}", highlight=False, markup=False)
    if report["beyond_the_month"]:
        console.print(
            f"\n{report['beyond_the_month']:,} calls came after the month and were left out.", highlight=False
        )
