"""`tokengrid bench`: measures, as ratios within one run."""

from __future__ import annotations

import typer

from tokengrid.bench.run import run
from tokengrid.commands.options import VAR, Var, console


def bench(var: Var = VAR) -> None:
    """Measure the store and the ledger side by side, as ratios within one run."""
    typer.echo(f"figures in {run(var, console)}")
