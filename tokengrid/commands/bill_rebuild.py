"""`tokengrid bill rebuild`: issued bills computed again from the logs, and compared."""

from __future__ import annotations

from typing import Annotated

import typer

from services.billing.rebuild import over_rpc, rebuild
from shared.errors import TokengridError
from tokengrid.commands.options import VAR, AsJson, Var, Where, month_or_none, print_json, print_table
from tokengrid.screen import Screen, console_for
from tokengrid.session import Against, session


def rebuild_bills(
    month: Annotated[
        str | None, typer.Argument(help="Of this month; default: all.", metavar="[YYYY-MM]", callback=month_or_none)
    ] = None,
    operator: Annotated[str | None, typer.Option(help="Of this operator only.", show_default=False)] = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Compute issued bills again from the logs, each as of its own cut-offs, and compare their hashes.

    Nothing of what billing keeps is used, and nothing is changed. Exit code 0 only if all are equal.
    """
    screen = Screen(console_for(json), quiet=json)
    with session(against, var) as client, screen.stage("computing bills again", "bills") as tick:
        found = rebuild(over_rpc(client), month, operator, tick)
    if not found.bills and (month or operator):  # nothing compared proves nothing
        of, for_ = f" of {operator}" if operator else "", f" for {month}" if month else ""
        raise TokengridError(f"No bill{of} was issued{for_}.")
    if json:
        print_json(found._asdict() | {"differences": [each._asdict() for each in found.differences]})
    else:
        rate = f"{found.bills / found.seconds:,.0f} bills/s" if found.seconds else ""
        typer.echo(
            f"{found.equal:,} of {found.bills:,} bills are equal, from {found.events:,} events in "
            f"{found.seconds:.1f} s ({rate})."
        )
        if found.differences:
            print_table("Not equal", ("bill", "where", "stored", "computed"), found.differences)
    if not found.ok:
        raise typer.Exit(1)
