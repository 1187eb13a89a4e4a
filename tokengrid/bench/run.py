"""Runs the measures, prints the table, keeps it as `var/bench/latest.json` with `latest.svg` beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.errors import SetupFailed
from tokengrid.bench import broker, chart, postgresql, sqlite
from tokengrid.bench.measure import Progress, Row, with_ratios
from tokengrid.servers import PostgreSQL
from tokengrid.servers.cluster import find_programs
from tokengrid.servers.install import ensure
from tokengrid.servers.rabbitmq import find_scripts


class Store(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    ALL = "all"


def run(var: Path, console: Console, store: Store | None = None) -> Path:
    """Measure on stores and servers in a temporary folder inside `var`; returns where the figures are.

    Without `store`: all where the servers' programs are there, else SQLite alone.
    SetupFailed: a server is asked for and cannot be had, or did not start.
    """
    if store is None:
        store = _possible(console)
    elif store is not Store.SQLITE:
        ensure(progress=console.print)
    folder = var / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    stores = Path(tempfile.mkdtemp(dir=folder)).absolute()
    stores.chmod(0o711)  # PostgreSQL may run as another user than we
    try:
        with console.status("measuring") as status:
            rows = with_ratios(measured(stores, store, lambda name: status.update(f"measuring: {name}")))
    finally:
        shutil.rmtree(stores)
    shown = console if console.is_terminal else Console(width=180)
    shown.print(table(rows))
    return keep(folder, rows)


def _possible(console: Console) -> Store:
    try:
        find_programs()
        find_scripts()
    except SetupFailed as missing:
        console.print(f"SQLite only: {missing}")
        return Store.SQLITE
    return Store.ALL


def measured(folder: Path, store: Store, progress: Progress) -> list[Row]:
    """The rows, without ratios. Servers have ended, and their data is gone, on return."""
    rows: list[Row] = []
    if store is not Store.POSTGRESQL:
        rows += sqlite.rows(folder, progress)
    if store is not Store.SQLITE:
        progress("PostgreSQL: starting")
        server = PostgreSQL(folder / "postgresql")
        try:
            server.start()
            parts: Sequence[Callable[[PostgreSQL, Path, Progress], list[Row]]] = (postgresql.rows, broker.rows)
            for part in parts:
                rows += part(server, folder, progress)
        finally:
            server.remove()
    return rows


def keep(folder: Path, rows: Sequence[Row]) -> Path:
    """The figures for programs and as a picture; returns the former's path."""
    latest = folder / "latest.json"
    latest.write_text(json.dumps({"rows": [row._asdict() for row in rows]}, indent=2) + "\n")
    (folder / "latest.svg").write_text(chart.rates(rows))
    return latest


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    made = Table(title="One run, one machine: trust the ratios", title_justify="left")
    made.add_column("measure")
    made.add_column("value", justify="right")
    made.add_column("unit")
    made.add_column("ratio", justify="right")
    made.add_column("against")
    for row in rows:
        value = f"{row.value:,.1f}" if row.unit == "ms" else f"{row.value:,.0f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        made.add_row(row.name, value, row.unit, ratio, row.against or "")
    return made
