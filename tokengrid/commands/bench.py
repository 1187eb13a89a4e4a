"""`tokengrid bench`: measures, as ratios within one run."""

from __future__ import annotations

from typing import Annotated

import typer

from tokengrid.bench.store import Store
from tokengrid.commands.options import VAR, Var, console


def bench(
    var: Var = VAR,
    store: Annotated[
        Store | None,
        typer.Option(
            "--store",
            help="`postgresql` includes RabbitMQ. Default: all, or SQLite where the servers are not installed.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Growth as well: logs of 10 million events; half an hour.")
    ] = False,
) -> None:
    """Measure the stores, the ledger and the way through the broker beside their floors and peers."""
    if full and store is Store.SQLITE:
        raise typer.BadParameter("growth is measured on PostgreSQL", param_hint="--full")
    from tokengrid.bench.run import run  # here, since it brings all that is measured, and every command would wait

    typer.echo(f"figures in {run(var, console, store, full=full)}")
