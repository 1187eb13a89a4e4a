"""`tokengrid bill close`: a month's bills and statements, for as many accounts as there are."""

from __future__ import annotations

from typing import Annotated

import typer

from shared.units import yuan
from tokengrid.closing import Closed, close_month
from tokengrid.commands.options import VAR, AsJson, MonthArgument, Var, Where, print_json, print_table
from tokengrid.screen import Screen, console_for
from tokengrid.session import Against, session


def close(
    month: MonthArgument,
    operator: Annotated[
        list[str] | None, typer.Option(help="Of this operator only; may be repeated.", show_default=False)
    ] = None,
    no_settle: Annotated[bool, typer.Option("--no-settle", help="Issue bills only, no statements.")] = False,
    new_cut_off: Annotated[
        bool,
        typer.Option("--new-cut-off", help="Cut off now, although the month has bills: for what became known since."),
    ] = False,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Close a month: wait for billing, issue the bills that are missing, settle between operators.

    Run it again after it was interrupted or killed: it goes on where it was, with the cut-offs that the month's bills
    have, and comes to the same bills. Exit code 0 only if every account has its bill.
    """
    screen = Screen(console_for(json), quiet=json)
    with session(against, var) as client:
        closed = close_month(client, month, screen, operator or (), new_cut_offs=new_cut_off, settle=not no_settle)
    if json:
        print_json(_report(month, closed))
    else:
        _show(month, closed)
    if closed.refusals or any(shard["remaining"] or shard["late"] for o in closed.operators for shard in o["shards"]):
        raise typer.Exit(1)


def _show(month: str, closed: Closed) -> None:
    print_table(
        f"The close of {month}",
        ("operator", "bills", "yuan", "VAT in it", "void", "refused"),
        (
            (
                o["operator"],
                f"{o['bills']:,}",
                yuan(o["total_fen"]),
                yuan(o["vat_fen"]),
                f"{o['void']:,}",
                f"{_refused(closed, o['operator']):,}",
            )
            for o in closed.operators
        ),
        right=("bills", "yuan", "VAT in it", "void", "refused"),
    )
    for part, refusal in closed.refusals.items():
        typer.echo(f"Refused for {part.operator}: {refusal}")
    late = sum(shard["late"] for o in closed.operators for shard in o["shards"])
    if late:
        typer.echo(f"{late:,} accounts became known behind the cut-off; --new-cut-off bills them.")


def _refused(closed: Closed, operator: str) -> int:
    """Accounts that have no bill because it was refused."""
    shards = {part.shard for part in closed.refusals if part.operator == operator}
    found = next(o["shards"] for o in closed.operators if o["operator"] == operator)
    return sum(found[shard]["remaining"] for shard in shards)


def _report(month: str, closed: Closed) -> dict[str, object]:
    return {
        "period": month,
        "cut_offs": closed.cut_offs,
        "statements": closed.statements,
        "operators": [{**o, "refused": _refused(closed, o["operator"])} for o in closed.operators],
        "refusals": [
            {"operator": part.operator, "quota_shard": part.shard, **refusal.as_dict()}
            for part, refusal in closed.refusals.items()
        ],
    }
