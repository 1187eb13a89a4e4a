"""The rows on a PostgreSQL of our own, fsync on; no broker is involved."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import sqlalchemy as sa

from shared.config import Settings
from shared.eventstore.database import engine as new_engine
from shared.eventstore.database import migrate
from shared.eventstore.log import LoggedEvent
from shared.eventstore.partitions import make_room
from shared.eventstore.recorders import COLUMNS
from tokengrid.bench import calls, closing, engine, projecting, sealing, stock
from tokengrid.bench.measure import Measure, Progress, Row, Work, first_error, interleaved
from tokengrid.servers import PostgreSQL

STORE = "PostgreSQL"
ROUNDS = 7
WEIGHED = 20  # batches of 1,000 over which bytes are counted
COPY = f"COPY events ({COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
COPY_HEADER, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def rows(server: PostgreSQL, folder: Path, progress: Progress) -> list[Row]:
    """All rows; `server` runs, and gets databases of its own for them."""
    with ExitStack() as stack:
        settings = Settings(database=server.create_database("engine"))
        app = engine.quota(settings, Settings(var=folder / "catalog"))
        stack.callback(app.close)
        sample = engine.sample(app)
        library = stock.application(_stock_environment(server.create_database("stock")))
        stack.callback(library.close)
        connection = _floor(server.create_database("floor"))
        stack.callback(connection.close)
        metered = engine.quota(Settings(database=server.create_database("metered")), Settings(var=folder / "metered"))
        stack.callback(metered.close)
        billing = projecting.behind(metered, Settings(database=server.create_database("usage")))
        stack.callback(billing.close)
        sealed, end = sealing.measure(
            Settings(database=server.create_database("sealed"), var=folder / "sealed"), sample, STORE
        )
        stack.callback(end)
        measures = [
            floor(connection, sample),
            *stock.measures(library, STORE),
            *engine.measures(app, STORE),
            *projecting.measures(metered, billing, STORE),
            sealed,
        ]
        return [
            *interleaved(measures, ROUNDS, progress),
            *engine.after(app, STORE, ROUNDS, progress),
            *weights(server, folder, progress),
            *month(server, folder, progress),
        ]


def month(server: PostgreSQL, folder: Path, progress: Progress, accounts: int = closing.ACCOUNTS) -> list[Row]:
    """A month's close, on a database of its own."""
    name = f"month_{accounts}"
    settings = Settings(database=server.create_database(name))
    found = closing.rows(settings, Settings(var=folder / name), STORE, accounts, progress)
    server.drop_database(name)
    return found


def _stock_environment(url: str) -> dict[str, str]:
    parsed = sa.make_url(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parsed.database or "",
        "POSTGRES_HOST": parsed.host or "",
        "POSTGRES_PORT": str(parsed.port),
        "POSTGRES_USER": parsed.username or "",
        "POSTGRES_PASSWORD": str(parsed.password),
    }


def _floor(url: str) -> psycopg.Connection[tuple[object, ...]]:
    made = new_engine(url)
    migrate(made, "quota")
    made.dispose()
    connection = psycopg.connect(url.replace("postgresql+psycopg:", "postgresql:"), autocommit=True)
    make_room(connection, 1)
    return connection


def floor(connection: psycopg.Connection[tuple[object, ...]], sample: Sequence[LoggedEvent]) -> Measure:
    """The same rows into the same table by binary COPY, packed beforehand: what is timed is the database."""
    numbers = itertools.count(1)

    def prepare() -> Work:
        rows = list(zip(numbers, sample, strict=False))
        parts = [
            COPY_HEADER + b"".join(_packed(n, e) for n, e in rows[start : start + engine.USUAL]) + COPY_END
            for start in range(0, len(rows), engine.USUAL)
        ]

        def work() -> None:
            for part in parts:
                with connection.transaction(), connection.cursor() as cursor, cursor.copy(COPY) as copy:
                    copy.write(part)

        return work

    return Measure(f"{STORE}: floor, bare insert, 1,000 a commit", "events/s", len(sample), prepare)


def _packed(number: int, event: LoggedEvent) -> bytes:
    """One row in PostgreSQL's binary COPY format: the number of columns, then each with its length."""
    whole = struct.pack("!iq", 8, number)
    texts = (event.stream, event.topic, event.state, f"{calls.ordered_key(number)}\t{event.stream}")
    stream, topic, state, key = (struct.pack("!i", len(raw)) + raw for raw in (text.encode() for text in texts))
    return b"".join((struct.pack("!h", 7), whole, stream, whole, topic, state, key, struct.pack("!i", -1)))


def weights(server: PostgreSQL, folder: Path, progress: Progress) -> list[Row]:
    """Bytes a debit takes on disk and in the write-ahead log, at 1,000 a batch, on a table that is empty before."""
    progress(f"{STORE}: bytes of a debit")
    app = engine.quota(Settings(database=server.create_database("weighed")), Settings(var=folder / "weighed-catalog"))
    numbers, whose = itertools.count(), calls.uniform(calls.ACCOUNTS)
    with app.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        def ask(question: str) -> int:
            return int(connection.execute(sa.text(question)).scalar_one())

        # Its partitions, and the table of its keys.
        table = (
            "SELECT sum(pg_total_relation_size(relid)) FROM (SELECT relid FROM pg_partition_tree('events')"
            " UNION ALL SELECT 'event_keys'::regclass) AS parts"
        )
        wal = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
        before = ask(table), ask(wal)
        for _ in range(WEIGHED):
            first_error(app.execute(calls.debits(numbers, whose, 1000)))
        after = ask(table), ask(wal)
    app.close()
    debits = WEIGHED * 1000
    return [
        Row(f"{STORE}: a debit in the table with its indexes", (after[0] - before[0]) / debits, "bytes"),
        Row(f"{STORE}: a debit in the write-ahead log", (after[1] - before[1]) / debits, "bytes"),
    ]
