"""`tokengrid audit tiles`: a log's tree as files that clients of transparency logs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.audit.published import publish
from tokengrid.commands.audit_progress import Rate
from tokengrid.commands.options import VAR, Var, Where
from tokengrid.session import Against, session


def tiles(
    log: Annotated[str, typer.Argument(help="A log: catalog, quota, quota-0, routing, billing.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to; one folder a log.", show_default=False)],
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Write a log's tree in the layout of C2SP tlog-tiles: checkpoint, tile/…, tile/entries/….

    Put it behind any web server. Again, it writes what is new.
    """
    with session(against, var) as client, Rate() as rate:
        size = publish(client, log, folder, rate.update)
    typer.echo(f"{folder}: {log} up to {size:,}")
