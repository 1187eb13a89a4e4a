"""`tokengrid audit`: what can be proved. `replay`: the auditor's own arithmetic over all logs, against the services."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from services.audit import resuming
from services.audit.replay import AuditReport, audited
from services.audit.report import DEBITS_MAX, empty_folder, render_html, write_pages
from tokengrid.commands import audit_archive, audit_evidence, audit_log, audit_streams, audit_tiles, audit_witness
from tokengrid.commands.audit_progress import Rate
from tokengrid.commands.audit_sources import Keys, Source, keys_by_log, opened
from tokengrid.commands.options import VAR, AsJson, MonthArgument, Var, Where, print_json, print_table
from tokengrid.demo.run import PERIOD
from tokengrid.demo.summary import VERDICTS
from tokengrid.session import Against

app = typer.Typer(no_args_is_help=True, help="What can be proved, to someone who trusts nobody here.")
app.command("evidence")(audit_evidence.evidence)
app.command("log")(audit_log.log)
app.command("streams")(audit_streams.streams)
app.command("tiles")(audit_tiles.tiles)
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
    source: Annotated[
        Source,
        typer.Option(
            "--from",
            help="`rpc`: ask the services; `stream`, `archive`, `snapshot`: the logs alone, from RabbitMQ's "
            "streams, Parquet files or the databases.",
        ),
    ] = Source.rpc,
    key: Keys = None,
    broker: Annotated[
        str, typer.Option("--broker", help="RabbitMQ to read streams from.", metavar="URI", show_default=False)
    ] = "",
    database: Annotated[
        str,
        typer.Option(
            "--database", help="Databases to read; {service} stands for each.", metavar="URL", show_default=False
        ),
    ] = "",
    archive: Annotated[
        Path | None, typer.Option("--archive", help="The archive's folder.", metavar="FOLDER", show_default=False)
    ] = None,
    pages: Annotated[
        Path | None,
        typer.Option(
            "--pages",
            help="Write the month as pages into this empty folder: from the total to each bill, line, debit and proof.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Save here how far it has come, and go on from there if it was killed.",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    bill: Annotated[
        list[str] | None,
        typer.Option("--bill", help="With --pages: only of these bills.", metavar="NUMBER", show_default=False),
    ] = None,
    debits_max: Annotated[
        int, typer.Option("--debits-max", min=0, help="With --pages: show so many debits at most; about 4 kB each.")
    ] = DEBITS_MAX,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Recompute every balance, bill and statement from the logs, check the logs' signatures, and compare.

    With --state a run that was killed goes on where it was, and comes to the same report. Exit code 0 only if nothing
    differs. What only services can answer is told as not asked where none are.
    """
    keys = keys_by_log(key)
    if bill and pages is None:
        raise typer.BadParameter("it says of which bills there are pages: name their folder with --pages")
    if pages is not None:
        if state is not None and state.resolve().is_relative_to(pages.resolve()):
            raise typer.BadParameter("the pages need a folder of their own: keep --state elsewhere")
        empty_folder(pages)
    with ExitStack() as stack:
        keep = stack.enter_context(resuming.opened(state)) if state is not None else None
        client = stack.enter_context(opened(source, against, var, broker, database, archive=archive))
        rate = stack.enter_context(Rate())
        found = audited(client, month, rate.update, verifier_keys=keys, asks=source is Source.rpc, keep=keep)
        written = None
        if pages is not None:
            written = write_pages(
                found, pages, bills=bill or (), debits_max=debits_max, progress=rate.update, written=rate.written
            )
        rate.close()
        if written is not None:
            shown = f"{pages}/index.html: {written.pages:,} pages, {written.debits:,} debits with their proofs"
            typer.echo(" ".join((f"{shown}.", *written.left_out)), err=True)
        _tell(found.report, html, json)
        if keep is not None:
            keep.remove()
    if not found.report.ok:
        raise typer.Exit(1)


def _tell(report: AuditReport, html: Path | None, json: bool) -> None:
    if html is not None:
        html.write_text(render_html(report), encoding="utf-8", errors="replace")
    if json:
        print_json(report.as_dict())
    else:
        verdict = (
            ("what was asked agrees" if report.not_asked else "everything agrees")
            if report.ok
            else f"{report.differences_count:,} differences"
        )
        title = (
            f"{report.accounts:,} accounts, {report.bills:,} bills, {sum(report.events.values()):,} events: {verdict}"
        )
        print_table(title, ("", ""), ((t, _word(getattr(report, name))) for name, t in VERDICTS))
        if report.not_asked:
            print_table("Not asked", ("",), ((each,) for each in report.not_asked))
        if report.differences:
            print_table(
                "The first differences",
                ("area", "log", "position", "account", "what", "expected", "found"),
                ((d.area, d.log, d.position, d.account, d.what, d.expected, d.found) for d in report.differences[:20]),
            )


def _word(agrees: bool | None) -> str:
    return "not asked" if agrees is None else "agrees" if agrees else "differs"
