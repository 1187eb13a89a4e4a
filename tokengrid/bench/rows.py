"""What is measured: ours beside its floor (the bare insert) and its peer (the stock library).

Each measure runs several rounds on a store of its own and gives units per second; the median counts.
"""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from services.catalog.sample import sample_publication
from services.quota.application import QuotaApplication
from shared.clock import system_clock
from shared.config import Settings
from shared.eventstore.database import engine, migrate

OPERATOR = "shanghai-telecom"
MODEL = "kimi-k2.5"
ACCOUNTS = 100
ROUNDS = 5


class Row(NamedTuple):
    """One line of the table. `ratio` is value / the value of `against`."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str | None = None


class Wallet(Aggregate):
    """What one would write first with the library: a balance that is debited."""

    def __init__(self) -> None:
        self.balance = 0

    @event("Debited")
    def debit(self, amount: int, model: str, input_tokens: int, output_tokens: int) -> None:  # noqa: ARG002
        self.balance -= amount


def per_second(units: int, work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median rate of several rounds of `work`, each doing `units`."""
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        rates.append(units / (time.perf_counter() - start))
    return statistics.median(rates)


def quota(folder: Path) -> QuotaApplication:
    """A quota application with the sample catalogue and funded accounts."""
    from services.catalog.application import CatalogApplication

    settings = Settings(var=folder, backdate_max_s=10**9)
    catalog = CatalogApplication(settings)
    catalog.publish(sample_publication(system_clock()))
    app = QuotaApplication(settings)
    app.follow_catalog([e._asdict() for e in catalog.log.read(0, settings.page_max)])
    catalog.close()
    for n in range(ACCOUNTS):
        account = {"operator": OPERATOR, "account": f"a{n}"}
        app.submit("open_account", {**account, "request_id": "open"})
        app.submit("grant", {**account, "request_id": "grant", "amount": 10**14, "source": "purchase"})
    return app


def debits(numbers: Iterator[int], count: int, accounts: int = ACCOUNTS) -> list[dict[str, Any]]:
    """`count` fresh debit commands over `accounts` accounts."""
    return [
        {
            "command": "debit",
            "operator": OPERATOR,
            "account": f"a{n % accounts}",
            "request_id": f"r{n}",
            "model": MODEL,
            "usage": {"input": 1000, "output": 200},
        }
        for n in itertools.islice(numbers, count)
    ]


def measure(folder: Path, progress: Callable[[str], None]) -> list[Row]:
    """All rows, in order; `folder` is used for stores and must be empty."""
    rows: list[Row] = []

    def add(name: str, value: float, unit: str, against: str | None = None) -> float:
        base = next((row.value for row in rows if row.name == against), None)
        rows.append(Row(name, value, unit, value / base if base else None, against))
        progress(name)
        return value

    app = quota(folder / "engine")
    numbers = itertools.count()
    app.execute(debits(numbers, 1000))
    sample = app.log.read(app.log.head() - 1000, 1000)

    add("bare insert, 1,000 a commit", bare_insert(folder / "bare.db", sample, 1000), "events/s")
    add("stock library, 1 a commit", stock_library(folder / "stock.db"), "events/s")
    for size in (1, 50, 1000, 8192):
        count = max(size, 200)

        def work(size: int = size, count: int = count) -> None:
            for _ in range(count // size):
                answers = app.execute(debits(numbers, size))
                assert "ok" in answers[-1], answers[-1]

        against = "stock library, 1 a commit" if size == 1 else "bare insert, 1,000 a commit"
        add(f"engine, {size:,} a batch", per_second(count // size * size, work), "debits/s", against)

    def hot() -> None:
        app.execute(debits(numbers, 1000, accounts=1))

    add("engine, 1,000 a batch, one hot account", per_second(1000, hot), "debits/s", "engine, 1,000 a batch")
    head = app.log.head()

    def replay() -> None:
        position = 0
        while page := app.log.read(position, 5000):
            for logged in page:
                assert logged.event
            position = page[-1].position

    add("replay of the log", per_second(head, replay, 3), "events/s", "engine, 1,000 a batch")
    stored = sum(len(e.state) for e in sample) / len(sample)
    add("bytes of a debit, as stored JSON", stored, "bytes")
    app.close()
    return rows


def bare_insert(path: Path, sample: list[Any], size: int) -> float:
    """The floor: the same rows into the same table, with nothing decided."""
    made = engine(f"sqlite:///{path}")
    migrate(made, "quota")
    made.dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    numbers = itertools.count(1)

    def work() -> None:
        batch = [(next(numbers), e) for e in sample[:size]]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(n, e.stream, n, e.topic, e.state.encode(), f"{n}\t{e.stream}", None) for n, e in batch],
        )
        connection.execute("COMMIT")

    rate = per_second(size, work)
    connection.close()
    return rate


def stock_library(path: Path) -> float:
    """The peer: an aggregate of the eventsourcing library, loaded, debited and saved."""
    app: Application[Any] = Application(
        {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path), "AGGREGATE_CACHE_MAXSIZE": "1000"}
    )
    wallet = Wallet()
    app.save(wallet)

    def work() -> None:
        for _ in range(200):
            held: Wallet = app.repository.get(wallet.id)
            held.debit(2_000_000, MODEL, 1000, 200)
            app.save(held)

    rate = per_second(200, work)
    app.close()
    return rate
