"""A quota process of its own under debits for a while.

`python -m tokengrid.bench.sustained` reads its options as JSON and prints what it found as JSON. A fresh process,
cooperative as its service is, so that its memory is that of the work and nothing else. It asks itself, without a
broker; two requests are in flight.
"""

from __future__ import annotations

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import itertools
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psutil
import sqlalchemy as sa

from services.quota.application import QuotaApplication
from shared.config import Settings
from tokengrid.bench import calls
from tokengrid.bench.measure import percentile
from tokengrid.bench.serving import Answer, receipts, serve

LOOK_EVERY = 50  # of so many answers one is decoded: decoding all would be our work on the service's clock
MIB = 1 << 20


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`active` of the store's `accounts` accounts are debited, spread evenly among them, each equally likely.

    Each gets a debit before the clock starts, so that it is in memory. `first`: the number of the first key.
    """

    url: str
    seconds: float
    accounts: int
    active: int
    first: int = 0
    random_keys: bool = False
    batch: int = 1000


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `rate` per second, bytes of write-ahead log a debit, memory in MiB."""

    debits: int
    warm_s: float
    rate: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    wal_bytes: float
    rss_mib: float
    rss_peak_mib: float


def run(options: Options) -> Found:
    """Raises AssertionError for a refusal."""
    app = QuotaApplication(Settings(database=options.url))
    try:
        return _run(app, options)
    finally:
        app.close()


def _run(app: QuotaApplication, options: Options) -> Found:
    key = calls.random_key if options.random_keys else calls.ordered_key
    step = options.accounts // options.active
    numbers = itertools.count(options.first)
    took: list[float] = []

    def body(whose: list[int]) -> bytes:
        return calls.quick_body(list(itertools.islice(numbers, len(whose))), [step * n for n in whose], key)

    def everyone() -> Iterator[bytes]:
        for start in range(0, options.active, options.batch):
            yield body(list(range(start, min(start + options.batch, options.active))))

    def anyone(until: float) -> Iterator[bytes]:
        chosen = calls.uniform(options.active)
        while time.perf_counter() < until:
            yield body(list(itertools.islice(chosen, options.batch)))

    def answered(seconds: float, answer: Answer) -> None:
        if len(took) % LOOK_EVERY == 0:
            receipts(answer)
        assert isinstance(answer, bytes), answer
        assert b'{"error":' not in answer, receipts(answer)
        took.append(seconds)

    began = time.perf_counter()
    serve(app, everyone(), answered)
    app.take_snapshots()
    warm_s = time.perf_counter() - began
    took.clear()

    before = _written(app)
    began = time.perf_counter()
    with _snapshots(app):
        serve(app, anyone(began + options.seconds), answered)
        spent = time.perf_counter() - began
    after = _written(app)

    debits = len(took) * options.batch
    took.sort()
    return Found(
        debits=debits,
        warm_s=warm_s,
        rate=debits / spent,
        p50_ms=percentile(took, 0.5) * 1000,
        p99_ms=percentile(took, 0.99) * 1000,
        longest_ms=took[-1] * 1000,
        wal_bytes=(after - before) / debits,
        rss_mib=psutil.Process().memory_info().rss / MIB,
        rss_peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


@contextmanager
def _snapshots(app: QuotaApplication) -> Iterator[None]:
    """Taken by a timer, as the service does."""
    end = threading.Event()

    def take() -> None:
        while not end.wait(app.settings.snapshot_interval_s):
            app.take_snapshots()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _written(app: QuotaApplication) -> int:
    """Bytes of write-ahead log so far; SQLite does not count them."""
    if app.engine.dialect.name != "postgresql":
        return 0
    with app.engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")).scalar_one())


if __name__ == "__main__":
    found = run(msgspec.json.decode(sys.stdin.buffer.read(), type=Options))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
