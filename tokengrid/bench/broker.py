"""The rows through RabbitMQ: services as processes of their own, every answer durable in PostgreSQL first."""

from __future__ import annotations

import itertools
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tokengrid
from shared.config import Settings
from shared.errors import SetupFailed, TokengridError
from shared.messaging.client import Client
from tokengrid.bench import engine, peer
from tokengrid.bench.load import Load
from tokengrid.bench.measure import Measure, Progress, Row, Work, first_error, interleaved, percentile
from tokengrid.servers import PostgreSQL, RabbitMQ, process

VIA = "RabbitMQ"
ROUNDS = 3
IN_FLIGHT = 200  # of single calls
LISTS_IN_FLIGHT = 2  # so that a list is on its way while another is worked on
PACED_S = 2.0
START_DEADLINE_S = 60.0
STOP_BOUND_S = 25.0
SETTLE_DEADLINE_S = 60.0  # some seconds for the longest measure
NOTHING = f"{VIA}: stock @rpc that does nothing"
ROW = f"{VIA}: stock @rpc, SQLAlchemy updates a balance"
SINGLE = f"{VIA}: quota.debit, one command a call"


def rows(server: PostgreSQL, folder: Path, progress: Progress) -> list[Row]:
    """All rows; `server` runs. A broker and two services run meanwhile, and have ended on return."""
    with ExitStack() as closing:
        progress("RabbitMQ: starting")
        rabbitmq = RabbitMQ(folder / "rabbitmq")
        closing.callback(rabbitmq.remove)
        rabbitmq.start()
        ours, theirs = server.create_database("tokengrid_quota"), server.create_database("peer")
        engine.quota(Settings(database=ours), Settings(var=folder / "broker-catalog")).close()
        peer.prepare(theirs)
        for name, argv in (
            ("quota", ["tokengrid.serve", "quota"]),
            (peer.NAME, ["tokengrid.bench.peer", rabbitmq.uri, theirs]),
        ):
            mark = process.start(
                [sys.executable, "-m", *argv],
                env={
                    **process.plain_environment(),
                    "TOKENGRID_BROKER": rabbitmq.uri,
                    "TOKENGRID_DATABASE": ours,
                    "TOKENGRID_VAR": str(folder),
                },
                log=folder / f"{name}.log",
                cwd=Path(tokengrid.__file__).parents[1],
            )
            closing.callback(mark.stop, signal.SIGTERM, STOP_BOUND_S)
            _await(mark, name, folder, Settings(broker=rabbitmq.uri))
        quota = closing.enter_context(Load(rabbitmq.uri, "quota"))
        stock = closing.enter_context(Load(rabbitmq.uri, peer.NAME))
        return [*_rates(quota, stock, progress), *_latencies(quota, stock, progress)]


def _await(mark: process.Mark, name: str, folder: Path, settings: Settings) -> None:
    method = "status" if name == "quota" else "nothing"

    def answers() -> bool:
        try:
            client.call(name, method, deadline_s=2.0)
        except TokengridError:
            return False
        return True

    with Client(settings, "bench") as client:
        if not process.wait_until(lambda: not mark.alive or answers(), START_DEADLINE_S) or not mark.alive:
            raise SetupFailed(f"{name} did not start: {process.tail(folder / f'{name}.log')}")


def _single_debits(numbers: Iterator[int], count: int) -> list[bytes]:
    return Load.bodies([engine.debit(n, f"a{n % engine.ACCOUNTS:02d}") for n in itertools.islice(numbers, count)])


def _row_updates(numbers: Iterator[int], count: int) -> list[bytes]:
    fields = [engine.debit(n, f"a{n % engine.ACCOUNTS:02d}") for n in itertools.islice(numbers, count)]
    return Load.bodies([{**each, "amount": 2_000_000} for each in fields])


_NUMBERS = itertools.count()


def settle(quota: Load) -> None:
    """Wait until quota's projection has caught up: what one measure left to do must not slow the next.

    While a measure runs the projection works as well, as it does in production. SetupFailed: it never catches up.
    """

    def caught_up() -> bool:
        quota.run("status", Load.bodies([{}]), 1)
        return bool(quota.last["followed"]["quota"] >= quota.last["head"])

    if not process.wait_until(caught_up, SETTLE_DEADLINE_S):
        raise SetupFailed(f"quota's projection did not catch up within {SETTLE_DEADLINE_S:g} s")


def _rates(quota: Load, stock: Load, progress: Progress) -> list[Row]:
    def calling(load: Load, method: str, bodies: Sequence[bytes], in_flight: int) -> Work:
        settle(quota)
        return lambda: load.run(method, bodies, in_flight)

    measures = [
        Measure(NOTHING, "calls/s", 1500, lambda: calling(stock, "nothing", _row_updates(_NUMBERS, 1500), IN_FLIGHT)),
        Measure(ROW, "calls/s", 1000, lambda: calling(stock, "debit", _row_updates(_NUMBERS, 1000), IN_FLIGHT)),
        Measure(
            SINGLE,
            "debits/s",
            2000,
            lambda: calling(quota, "debit", _single_debits(_NUMBERS, 2000), IN_FLIGHT),
            (NOTHING, ROW),
        ),
    ]
    for size in engine.BATCHES:
        calls = 200 if size == 1 else max(3, 4000 // size)

        def prepare(size: int = size, calls: int = calls) -> Work:
            lists: list[dict[str, Any]] = [{"commands": engine.debits(_NUMBERS, size)} for _ in range(calls)]
            bodies = Load.bodies(lists)
            settle(quota)

            def work() -> None:
                quota.run("execute", bodies, LISTS_IN_FLIGHT)
                first_error(quota.last)

            return work

        name, inner = f"{VIA}: quota.execute, {size:,} a call", f"PostgreSQL: engine, {size:,} a batch"
        measures.append(Measure(name, "debits/s", size * calls, prepare, (inner,)))
    return interleaved(measures, ROUNDS, progress)


def _latencies(quota: Load, stock: Load, progress: Progress) -> list[Row]:
    """At half of what was just reached with all in flight, of the same number of calls."""
    found = []
    for name, load, method, make in (
        (NOTHING, stock, "nothing", _row_updates),
        (ROW, stock, "debit", _row_updates),
        (SINGLE, quota, "debit", _single_debits),
    ):
        progress(f"{name}: latency")
        medians, tails = [], []
        (reached,) = interleaved(
            [Measure(name, "", 1000, lambda m=method, load=load, make=make: _run(load, m, make))],  # type: ignore[misc]
            1,
            progress,
        )
        rate = reached.value / 2
        for _ in range(ROUNDS):
            settle(quota)
            latencies = load.paced(method, make(_NUMBERS, int(rate * PACED_S)), rate)
            medians.append(percentile(latencies, 0.5) * 1000)
            tails.append(percentile(latencies, 0.99) * 1000)
        found.append(Row(f"{name}: p50 at half load", statistics.median(medians), "ms"))
        found.append(Row(f"{name}: p99 at half load", statistics.median(tails), "ms"))
    return found


def _run(load: Load, method: str, make: Any) -> Work:
    bodies = make(_NUMBERS, 1000)
    return lambda: load.run(method, bodies, IN_FLIGHT)
