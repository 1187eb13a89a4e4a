"""Runs the measures, prints the table, keeps it as `var/bench/latest.json` with `latest.svg` beside it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shared.errors import SetupFailed
from tokengrid.bench import broker, chart, closing, counted, evidence, growth, postgresql, sqlite
from tokengrid.bench.goals import with_goals
from tokengrid.bench.measure import Progress, Row, with_ratios
from tokengrid.bench.store import Store
from tokengrid.servers import PostgreSQL
from tokengrid.servers.cluster import find_programs
from tokengrid.servers.install import ensure
from tokengrid.servers.rabbitmq import find_scripts

FULL_DISK_BYTES = 20 * 10**9  # 11 GB of log, as much of write-ahead log as may wait for a checkpoint


def run(var: Path, console: Console, store: Store | None = None, *, full: bool = False) -> Path:
    """Measure on stores and servers in a temporary folder inside `var`; returns where the figures are.

    Without `store`: all where the servers' programs are there, else SQLite alone. `full`: growth as well, which
    needs PostgreSQL, half an hour and 20 GB of disk.
    SetupFailed: a server is asked for and cannot be had, or did not start; there is not enough disk.
    """
    if store is None and not full:
        store = _possible(console)
    elif store is not Store.SQLITE:
        ensure(progress=console.print)
    folder = var / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    if full and shutil.disk_usage(folder).free < FULL_DISK_BYTES:
        raise SetupFailed(
            f"growth needs {FULL_DISK_BYTES // 10**9} GB free in {folder}: free some, or name another --var"
        )
    stores = Path(tempfile.mkdtemp(dir=folder)).absolute()
    stores.chmod(0o711)  # PostgreSQL may run as another user than we
    try:
        with console.status("measuring") as status:
            found = measured(stores, store or Store.ALL, lambda name: status.update(f"measuring: {name}"), full=full)
            rows = with_goals(with_ratios(found))
    finally:
        shutil.rmtree(stores)
    shown = console if console.is_terminal else Console(width=220)
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


def measured(folder: Path, store: Store, progress: Progress, *, full: bool = False) -> list[Row]:
    """The rows, without ratios. Servers have ended, and their data is gone, on return."""
    rows: list[Row] = []
    if store is not Store.POSTGRESQL:
        rows += sqlite.rows(folder, progress)
        rows += evidence.rows(folder / "evidence", progress)
    others = {Store.SQLITE: postgresql.STORE, Store.POSTGRESQL: sqlite.STORE}
    stores = [name for name in (sqlite.STORE, postgresql.STORE) if name != others.get(store)]
    rows += _replayed(folder / "replayed", stores, progress)
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
    if full:
        rows += growth.rows(folder, progress)
        with growth.deployed(folder / "deployed") as server:
            rows += counted.rows(server, folder, progress)
            rows += postgresql.month(server, folder, progress, closing.FULL_ACCOUNTS)
    return rows


def _replayed(folder: Path, stores: Sequence[str], progress: Progress) -> list[Row]:
    """The replay from an archive; nothing where the extra `archive` is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        progress("no replay from an archive: the extra `archive` is not installed")
        return []
    from tokengrid.bench import replaying

    return replaying.rows(folder, progress, stores)


def keep(folder: Path, rows: Sequence[Row]) -> Path:
    """The figures for programs and as a picture; returns the former's path."""
    latest = folder / "latest.json"
    latest.write_text(json.dumps({"rows": [_kept(row) for row in rows]}, indent=2) + "\n", encoding="utf-8")
    (folder / "latest.svg").write_text(chart.rates(rows), encoding="utf-8")
    return latest


def _kept(row: Row) -> dict[str, Any]:
    fields = row._asdict()
    return fields if row.goal else {name: fields[name] for name in fields if name not in ("goal", "met")}


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    made = Table(title="One run, one machine: trust the ratios", title_justify="left")
    made.add_column("measure")
    made.add_column("value", justify="right")
    made.add_column("unit")
    made.add_column("ratio", justify="right")
    made.add_column("against")
    made.add_column("goal")
    for row in rows:
        value = f"{row.value:,.1f}" if row.unit == "ms" else f"{row.value:,.0f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        goal = f"{row.goal}: {'met' if row.met else 'NOT MET'}" if row.goal else ""
        made.add_row(
            row.name, value, row.unit, ratio, row.against or "", goal, style="red" if row.met is False else None
        )
    return made
