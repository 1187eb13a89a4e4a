"""`tokengrid up`, `down`, `status`, `serve`: the production shape on this machine, and one service by itself."""

from __future__ import annotations

import dataclasses
import signal
from datetime import UTC, datetime
from typing import Annotated

import typer

from shared.config import SERVICES
from tokengrid import serve as serving
from tokengrid import up as shape
from tokengrid.commands.options import VAR, AsJson, Var, local, print_json, print_table


def up(
    replicas: Annotated[
        list[str] | None,
        typer.Option("--replicas", help="Processes of a service, such as quota=3; repeatable.", metavar="SERVICE=N"),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            min=1,
            max=shape.SHARDS_MAX,
            help="Shards of quota, each with a log and a database of its own; fixed for good at the first start.",
            show_default=False,
        ),
    ] = None,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Start RabbitMQ, PostgreSQL and every service as processes of their own, and wait until all answer."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that what this call started is stopped again
    rows = shape.up(var, _counts(replicas or []), (lambda _line: None) if json else typer.echo, shards=shards)
    _show(rows, json)


def down(var: Var = VAR) -> None:
    """Stop what `up` started; data and logs stay."""
    shape.down(var, typer.echo)


def status(
    var: Var = VAR,
    json: AsJson = False,
    broker: Annotated[bool, typer.Option("--broker", help="Print only the broker's address, for a client.")] = False,
) -> None:
    """What of the production shape runs."""
    if broker:
        typer.echo(shape.client_settings(var).broker)
        return
    _show(shape.status(var), json)


def serve(
    services: Annotated[list[str], typer.Argument(help=f"Some of {', '.join(SERVICES)}.", show_default=False)],
) -> None:
    """Run services in this process, as the environment configures them, until SIGTERM or SIGINT."""
    raise typer.Exit(serving.main(services))


def _counts(replicas: list[str]) -> dict[str, int]:
    counts = {}
    for given in replicas:
        service, _, count = given.partition("=")
        if not count.isdecimal() or len(count) > 4:
            raise typer.BadParameter(f"{given!r} is not of the form SERVICE=N, such as quota=3")
        counts[service] = int(count)
    return counts


def _show(rows: list[shape.Row], json: bool) -> None:
    if json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    print_table(
        "Processes",
        ("name", "state", "pid", "address", "since", "restarts"),
        (
            (
                row.name,
                row.state,
                row.pid or "",
                row.address,
                local(datetime.fromtimestamp(row.started_at, UTC).isoformat()) if row.started_at else "",
                row.restarts,
            )
            for row in rows
        ),
        right=("pid", "restarts"),
    )
