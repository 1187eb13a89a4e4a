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
from tokengrid.bench import engine, stock
from tokengrid.bench.measure import Measure, Progress, Row, Work, interleaved

STORE = "SQLite"
ROUNDS = 5


def rows(
    folder: Path,
    progress: Progress,
    *,
    rounds: int = ROUNDS,
    batches: Sequence[int] = engine.BATCHES,
    long_life: int = engine.LONG_LIFE,
) -> list[Row]:
    """All rows; `folder` is used for the files and must be empty."""
    with ExitStack() as closing:
        settings = Settings(var=folder / "engine")
        app = engine.quota(settings, settings)
        closing.callback(app.close)
        app.execute(engine.debits(itertools.count(10**9), 1000))
        sample = app.log.read(app.log.head() - 1000, 1000)
        library = stock.application(
            {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(folder / "stock.db")}
        )
        closing.callback(library.close)
        connection = _floor(folder / "floor.db")
        closing.callback(connection.close)
        measures = [floor(connection, sample), *stock.measures(library, STORE), *engine.measures(app, STORE, batches)]
        stored = sum(len(e.state) for e in sample) / len(sample)
        return [
            *interleaved(measures, rounds, progress),
            *engine.after(app, STORE, rounds, progress, long_life),
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
        batch = [
            (n, e.stream, n, e.topic, e.state.encode(), f"r{n:012d}\t{e.stream}", None)
            for n, e in zip(numbers, sample, strict=False)
        ]

        def work() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", batch)
            connection.execute("COMMIT")

        return work

    return Measure(f"{STORE}: floor, bare insert, 1,000 a commit", "events/s", len(sample), prepare)
