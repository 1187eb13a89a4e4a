"""The rows on the embedded store: an SQLite file, durable at commit."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from shared.config import Settings
from shared.eventstore.database import engine as new_engine
from shared.eventstore.database import migrate
from shared.eventstore.log import LoggedEvent
from shared.eventstore.recorders import COLUMNS
from tokengrid.bench import calls, closing, engine, projecting, sealing, stock
from tokengrid.bench.measure import Measure, Progress, Row, Work, interleaved

STORE = "SQLite"
ROUNDS = 5
DEBITS_MAX = 5  # of an account in a page, as in the largest of the usual ones
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


def rows(
    folder: Path,
    progress: Progress,
    *,
    rounds: int = ROUNDS,
    batches: Sequence[int] = engine.BATCHES,
    long_life: int = engine.LONG_LIFE,
    accounts: int = calls.ACCOUNTS,
) -> list[Row]:
    """All rows; `folder` is used for the files and must be empty."""
    with ExitStack() as stack:
        settings = Settings(var=folder / "engine")
        app = engine.quota(settings, settings, accounts)
        stack.callback(app.close)
        sample = engine.sample(app, accounts)
        library = stock.application(
            {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "stock.db")}
        )
        stack.callback(library.close)
        connection = _floor(folder / "floor.db")
        stack.callback(connection.close)
        metered = engine.quota(Settings(var=folder / "metered"), Settings(var=folder / "metered"), accounts)
        stack.callback(metered.close)
        billing = projecting.behind(metered, metered.settings)
        stack.callback(billing.close)
        sealed, end = sealing.measure(Settings(var=folder / "sealed"), sample, STORE)
        stack.callback(end)
        pages = sorted({min(page, DEBITS_MAX * accounts) for page in projecting.PAGES})
        measures = [
            floor(connection, sample),
            *stock.measures(library, STORE),
            *engine.measures(app, STORE, batches, accounts),
            *projecting.measures(metered, billing, STORE, accounts, pages),
            sealed,
            sealing.verified(),
        ]
        stored = sum(len(e.state) for e in sample) / len(sample)
        return [
            *interleaved(measures, rounds, progress),
            *engine.after(app, STORE, rounds, progress, long_life),
            *closing.rows(
                Settings(var=folder / "month"), Settings(var=folder / "month"), STORE, 2 * accounts, progress
            ),
            Row("a debit as stored JSON", stored, "bytes"),
        ]


def _floor(path: Path) -> sqlite3.Connection:
    made = new_engine(f"sqlite:///{path}")
    migrate(made, "quota")
    made.dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def floor(connection: sqlite3.Connection, sample: Sequence[LoggedEvent]) -> Measure:
    """The same rows into the same table, with nothing decided."""
    numbers = itertools.count(1)

    def prepare() -> Work:
        rows = [
            (n, e.stream, n, e.topic, e.state.encode(), f"{calls.ordered_key(n)}\t{e.stream}", None)
            for n, e in zip(numbers, sample, strict=False)
        ]

        def work() -> None:
            for start in range(0, len(rows), engine.USUAL):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(INSERT, rows[start : start + engine.USUAL])
                connection.execute("COMMIT")

        return work

    return Measure(f"{STORE}: floor, bare insert, 1,000 a commit", "events/s", len(sample), prepare)
