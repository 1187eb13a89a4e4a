"""Runs the measures, prints the table and keeps it as `var/bench/latest.json`."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tokengrid.bench.rows import Row, measure


def run(var: Path, console: Console) -> Path:
    """Measure on stores in a temporary folder inside `var`; returns where the figures are."""
    folder = var / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    stores = Path(tempfile.mkdtemp(dir=folder))
    try:
        with console.status("measuring") as status:
            rows = measure(stores, lambda name: status.update(f"measured: {name}"))
    finally:
        shutil.rmtree(stores)
    console.print(table(rows))
    latest = folder / "latest.json"
    latest.write_text(json.dumps({"rows": [row._asdict() for row in rows]}, indent=2))
    return latest


def table(rows: list[Row]) -> Table:
    made = Table(title="One run, one machine, one store: trust the ratios")
    for heading, justify in (
        ("measure", "left"),
        ("value", "right"),
        ("unit", "left"),
        ("ratio", "right"),
        ("against", "left"),
    ):
        made.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        made.add_row(row.name, f"{row.value:,.0f}", row.unit, ratio, row.against or "")
    return made
