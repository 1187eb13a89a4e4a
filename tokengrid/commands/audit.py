"""`tokengrid audit`: what can be proved. `replay`: the auditor's own arithmetic over all logs, against the services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.audit.replay import render_html, run_audit
from tokengrid.commands import audit_archive, audit_evidence, audit_witness
from tokengrid.commands.options import VAR, AsJson, MonthArgument, Var, Where, print_json, print_table
from tokengrid.demo.run import PERIOD
from tokengrid.demo.summary import VERDICTS
from tokengrid.session import Against, session

app = typer.Typer(no_args_is_help=True, help="What can be proved, to someone who trusts nobody here.")
app.command("evidence")(audit_evidence.evidence)
app.command("verify")(audit_evidence.verify_file)
app.command("witness")(audit_witness.witness)
app.command("new-key")(audit_witness.new_key)
app.add_typer(audit_archive.app, name="archive")


@app.command()
def replay(
    month: MonthArgument = PERIOD,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report as a page, too.", metavar="FILE")
    ] = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Recompute every balance, bill and statement from the logs, check the logs' signatures, and compare.

    Exit code 0 only if everything agrees.
    """
    with session(against, var) as client, Console(stderr=True).status("auditing") as status:
        report = run_audit(
            client, month, lambda log, done, total: status.update(f"{log}: {done:,} of {total:,} events")
        )
    if html is not None:
        html.write_text(render_html(report))
    if json:
        print_json(report.as_dict())
    else:
        verdict = "everything agrees" if report.ok else f"{report.differences_count:,} differences"
        title = (
            f"{report.accounts:,} accounts, {report.bills:,} bills, {sum(report.events.values()):,} events: {verdict}"
        )
        print_table(title, ("", ""), ((t, "agrees" if getattr(report, key) else "differs") for key, t in VERDICTS))
        if report.differences:
            print_table(
                "The first differences",
                ("area", "log", "position", "account", "what", "expected", "found"),
                ((d.area, d.log, d.position, d.account, d.what, d.expected, d.found) for d in report.differences[:20]),
            )
    if not report.ok:
        raise typer.Exit(1)
