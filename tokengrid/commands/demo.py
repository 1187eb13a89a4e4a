"""`tokengrid demo`: the main job, told on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokengrid.commands.options import VAR, AsJson, MonthOption, Var, print_json
from tokengrid.demo.run import ACCOUNTS, CALLS, PERIOD, Options, run
from tokengrid.demo.summary import show
from tokengrid.screen import Screen, console_for
from tokengrid.session import Against


def demo(
    seed: Annotated[int, typer.Option(help="The same seed gives the same month, to the last millipoint.")] = 1,
    calls: Annotated[
        int | None,
        typer.Option(min=1, help=f"Calls at most; default: all of a file, {CALLS} without one.", show_default=False),
    ] = None,
    accounts: Annotated[int, typer.Option(min=1, max=1_000_000, help="Subscribers.")] = ACCOUNTS,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Trace file: Azure 2023 CSV or Mooncake JSON lines. Default: a generated one.", metavar="FILE"
        ),
    ] = None,
    month: MonthOption = PERIOD,
    against: Annotated[
        Against, typer.Option(help="`demo`: services in this process; `up`: those that `tokengrid up` has started.")
    ] = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Replay a month of calls: price list, accounts, 20,000 calls, bills, settlement, audit.

    Starts all five services in this process on fresh databases, publishes the sample catalogue, opens accounts at three
    operators, replays a trace through reserve, route and settle, closes the month and audits it. Exit code 0 only
    if every balance, bill, statement and log agrees with the auditor's own arithmetic.
    """
    console = console_for(json)
    options = Options(var=var, seed=seed, calls=calls, accounts=accounts, trace=trace, against=against, period=month)
    outcome = run(options, Screen(console, quiet=json))
    if json:
        print_json(outcome.report)
    else:
        show(console, outcome)
    if not outcome.agrees:
        raise typer.Exit(1)
