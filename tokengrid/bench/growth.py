"""Growth: the usual batch for a minute on logs with a past, each in a process of its own; and its memory.

On a PostgreSQL of its own with the settings below, which are those of `deploy/`; each log has a database, filled
before and dropped after. Knows nothing of how events are decided or stored.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import msgspec
import psycopg
from psycopg import sql

import tokengrid
from shared.config import Settings
from tokengrid.bench import engine, filling
from tokengrid.bench.calls import ACCOUNTS
from tokengrid.bench.measure import Progress, Row
from tokengrid.bench.sustained import Found, Options
from tokengrid.servers import PostgreSQL, process

SETTINGS = {
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "lz4",
    "shared_buffers": "2GB",
}
MINUTE_S = 60.0
LOADED_S = 5.0  # what is measured of the many accounts is memory
PROCESS_BOUND_S = 900.0  # beside the time of the measure: loading the accounts before the clock starts
MILLION = 1_000_000
STORED = "PostgreSQL, a minute: {:,} events stored"


class Log(NamedTuple):
    """A log with a past: so many events of so many accounts."""

    events: int
    accounts: int
    random_keys: bool = False


class Run(NamedTuple):
    """What is done on a log: `active` accounts are debited for `seconds`; of some runs the memory alone is told."""

    name: str
    active: int
    against: str | None = None
    seconds: float = MINUTE_S
    memory_alone: bool = False


def plan(million: int = MILLION, seconds: float = MINUTE_S, active: int = ACCOUNTS) -> list[tuple[Log, list[Run]]]:
    """The logs and what is done on each, in order. The empty log comes first and last: what the machine does in
    between is in both. Smaller figures are for trying."""
    empty, one, ten = STORED.format(0), STORED.format(million), STORED.format(10 * million)

    def run(name: str, against: str | None = None, active: int = active) -> Run:
        return Run(name, active, against, seconds)

    nothing = Log(2 * active, active)  # accounts opened and funded
    filled = Log(10 * million, 10 * active)  # a hundred events an account, as with a million: loading them is not told
    few = active // 10
    many = f"PostgreSQL: memory of a process, {million:,} accounts, {5 * active:,} of them active, at its most"
    return [
        (nothing, [run(empty)]),
        (Log(million, active), [run(one, empty)]),
        (filled, [run(ten, empty)]),
        (nothing._replace(random_keys=True), [run(f"{empty}, random keys", empty)]),
        (filled._replace(random_keys=True), [run(f"{ten}, random keys", f"{empty}, random keys")]),
        (Log(million, few), [run(f"{one}, {few:,} accounts", one, few)]),
        (
            Log(10 * million, million),
            [
                run(f"{ten}, {million:,} accounts", ten),
                Run(many, 5 * active, seconds=min(seconds, LOADED_S), memory_alone=True),
            ],
        ),
        (nothing, [run(empty)]),
    ]


def rows(folder: Path, progress: Progress, planned: Sequence[tuple[Log, Sequence[Run]]] | None = None) -> list[Row]:
    """All rows. A server runs meanwhile, and has ended on return, its data gone."""
    found: dict[Run, list[Found]] = {}
    with deployed(folder / "growth") as server:
        for number, (log, runs) in enumerate(planned or plan()):
            progress(f"growth: {log.events:,} events of {log.accounts:,} accounts: filling")
            name = f"growth_{number}"
            url = server.create_database(name)
            app = engine.priced(Settings(database=url), Settings(var=folder / "growth-catalog"))
            filling.fill(app, url, log.events, log.accounts, random_keys=log.random_keys)
            app.close()
            for order, run in enumerate(runs):
                progress(f"growth: {run.name}")
                _checkpoint(server)
                found.setdefault(run, []).append(_sustained(url, log, run, order))
            server.drop_database(name)
    return [row for run, several in found.items() for row in _rows(run, several)]


@contextmanager
def deployed(folder: Path) -> Iterator[PostgreSQL]:
    """A server with the settings above. It has ended afterwards, and its data is gone."""
    server = PostgreSQL(folder)
    try:
        server.start()
        with psycopg.connect(_plain(server.admin_url()), autocommit=True) as connection:
            for name, value in SETTINGS.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        server.stop()
        server.start()
        yield server
    finally:
        server.remove()


def _checkpoint(server: PostgreSQL) -> None:
    """So that each measure begins alike, with every page's first change to be logged whole."""
    with psycopg.connect(_plain(server.admin_url()), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:")


def _sustained(url: str, log: Log, run: Run, order: int) -> Found:
    options = Options(
        url=url,
        seconds=run.seconds,
        accounts=log.accounts,
        active=run.active,
        first=1 + order * 10**9,
        random_keys=log.random_keys,
    )
    done = subprocess.run(
        [sys.executable, "-m", "tokengrid.bench.sustained"],
        input=msgspec.json.encode(options),
        stdout=subprocess.PIPE,
        env=process.plain_environment(),
        cwd=Path(tokengrid.__file__).parents[1],
        timeout=run.seconds + PROCESS_BOUND_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Found)


def _rows(run: Run, several: Sequence[Found]) -> list[Row]:
    def of(figure: Callable[[Found], float]) -> float:
        return mean(figure(found) for found in several)

    if run.memory_alone:
        return [Row(run.name, of(lambda found: found.rss_peak_mib), "MiB")]
    return [
        Row(run.name, of(lambda found: found.rate), "debits/s", None, run.against),
        Row(f"{run.name}: p50 of a batch", of(lambda found: found.p50_ms), "ms"),
        Row(f"{run.name}: p99 of a batch", of(lambda found: found.p99_ms), "ms"),
        Row(f"{run.name}: a debit in the write-ahead log", of(lambda found: found.wal_bytes), "bytes"),
        Row(f"{run.name}: memory of the process at its most", of(lambda found: found.rss_peak_mib), "MiB"),
    ]
