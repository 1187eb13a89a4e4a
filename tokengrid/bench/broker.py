"""The rows through RabbitMQ: services as processes of their own, every answer durable in PostgreSQL first."""

from __future__ import annotations

import itertools
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tokengrid
from shared.config import Settings
from shared.errors import SetupFailed, TokengridError
from shared.messaging.client import Client
from shared.messaging.streams import EVENTS_MAX, Publisher, connected
from tokengrid.bench import calls, engine, peer
from tokengrid.bench.load import Load
from tokengrid.bench.measure import Measure, Progress, Row, Work, first_error, interleaved, percentile
from tokengrid.servers import PostgreSQL, RabbitMQ, process

VIA = "RabbitMQ"
ROUNDS = 3
IN_FLIGHT = 200  # of single calls
LISTS = {1: 400, 50: 600, 1000: 40}  # calls in a round, by size: about a second
FIFTY = 50  # commands a call, of a caller who gathers some
LISTS_IN_FLIGHT = 4  # two in hand, two on their way
PACED_S = 2.0
START_DEADLINE_S = 60.0
STOP_BOUND_S = 25.0
SETTLE_DEADLINE_S = 60.0  # some seconds for the longest measure
NOTHING = f"{VIA}: stock @rpc that does nothing"
ROW = f"{VIA}: stock @rpc, SQLAlchemy updates a balance"
SINGLE = f"{VIA}: quota.debit, one command a call"
COPIED = 20_000  # events of a round of the streams' publisher
PUBLISHED = f"{VIA}: streams' publisher, read from the service and confirmed"


def rows(server: PostgreSQL, folder: Path, progress: Progress) -> list[Row]:
    """All rows; `server` runs. A broker and two services run meanwhile, and have ended on return."""
    with ExitStack() as closing:
        progress("RabbitMQ: starting")
        rabbitmq = RabbitMQ(folder / "rabbitmq")
        closing.callback(rabbitmq.remove)
        rabbitmq.start()
        ours, theirs = server.create_database("tokengrid_quota"), server.create_database("peer")
        engine.quota(Settings(database=ours), Settings(var=folder / "broker-catalog")).close()
        peer.prepare(theirs, [calls.account(n) for n in range(calls.ACCOUNTS)])
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
        progress(f"{VIA}: a debit of every account")
        _warm(quota)
        found = [*_rates(quota, stock, progress), *_latencies(quota, stock, progress)]
        return [*found, *_published(quota, rabbitmq.uri, progress)]


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


def _debits(count: int) -> list[dict[str, Any]]:
    return [calls.debit(n, of) for n, of in zip(itertools.islice(_NUMBERS, count), _WHOSE, strict=False)]


def _single_debits(count: int) -> list[bytes]:
    return Load.bodies(_debits(count))


def _row_updates(count: int) -> list[bytes]:
    return Load.bodies([{**fields, "amount": 2_000_000} for fields in _debits(count)])


def _lists(size: int, count: int) -> list[bytes]:
    return engine.bodies(_NUMBERS, _WHOSE, size, count)


_NUMBERS = itertools.count()
_WHOSE = calls.uniform(calls.ACCOUNTS)


def settle(quota: Load) -> None:
    """Wait until quota's projection has caught up: what one measure left to do must not slow the next.

    While a measure runs the projection works as well, as it does in production. SetupFailed: it never catches up.
    """

    def caught_up() -> bool:
        quota.run("status", Load.bodies([{}]), 1)
        (status,) = quota.results()
        return bool(status["followed"]["quota"] >= status["head"])

    if not process.wait_until(caught_up, SETTLE_DEADLINE_S):
        raise SetupFailed(f"quota's projection did not catch up within {SETTLE_DEADLINE_S:g} s")


def _warm(quota: Load) -> None:
    """A debit of every account: what is measured is a service at work, not one that has just started."""
    accounts = iter(range(calls.ACCOUNTS))
    lists = engine.bodies(_NUMBERS, accounts, engine.USUAL, calls.ACCOUNTS // engine.USUAL)
    quota.run("execute", lists, LISTS_IN_FLIGHT)
    _receipts(quota, calls.ACCOUNTS)


def _receipts(load: Load, commands: int) -> None:
    results = load.results()
    for answers in results:
        first_error(answers)
    assert sum(len(answers) for answers in results) == commands


def _rates(quota: Load, stock: Load, progress: Progress) -> list[Row]:
    def single(name: str, load: Load, method: str, make: Callable[[int], list[bytes]], count: int) -> Measure:
        def prepare() -> Work:
            bodies = make(count)
            settle(quota)
            return lambda: load.run(method, bodies, IN_FLIGHT)

        def check(_given: object) -> None:
            assert len(load.results()) == count

        unit, against = ("debits/s", (NOTHING, ROW)) if name == SINGLE else ("calls/s", ())
        return Measure(name, unit, count, prepare, against, check)

    def lists(size: int) -> Measure:
        count = LISTS.get(size, 8)

        def prepare() -> Work:
            bodies = _lists(size, count)
            settle(quota)
            return lambda: quota.run("execute", bodies, LISTS_IN_FLIGHT)

        inner = f"PostgreSQL: engine, {size:,} a batch"
        return Measure(
            f"{VIA}: quota.execute, {size:,} a call",
            "debits/s",
            size * count,
            prepare,
            (inner,),
            lambda _given: _receipts(quota, size * count),
        )

    measures = [single(*each, count) for each, count in zip(_singles(quota, stock), (1500, 1500, 5000), strict=True)]
    return interleaved([*measures, *map(lists, engine.BATCHES)], ROUNDS, progress)


def _singles(quota: Load, stock: Load) -> Sequence[tuple[str, Load, str, Callable[[int], list[bytes]]]]:
    return (
        (NOTHING, stock, "nothing", _row_updates),
        (ROW, stock, "debit", _row_updates),
        (SINGLE, quota, "debit", _single_debits),
    )


def _latencies(quota: Load, stock: Load, progress: Progress) -> list[Row]:
    """At half of what was just reached with all in flight."""
    found = []
    fifty = (f"{VIA}: quota.execute, {FIFTY} a call", quota, "execute", lambda count: _lists(FIFTY, count))
    for name, load, method, make in (*_singles(quota, stock), fifty):
        progress(f"{name}: latency")
        lists = method == "execute"
        bodies = make(200 if lists else 1500)
        settle(quota)
        began = time.perf_counter()
        load.run(method, bodies, LISTS_IN_FLIGHT if lists else IN_FLIGHT)
        rate = len(bodies) / (time.perf_counter() - began) / 2
        medians, tails = [], []
        for _ in range(ROUNDS):
            bodies = make(int(rate * PACED_S))
            settle(quota)
            latencies = load.paced(method, bodies, rate)
            if lists:
                _receipts(load, FIFTY * len(bodies))
            assert len(load.results()) == len(bodies)
            medians.append(percentile(latencies, 0.5) * 1000)
            tails.append(percentile(latencies, 0.99) * 1000)
        found.append(Row(f"{name}: p50 at half load", statistics.median(medians), "ms"))
        found.append(Row(f"{name}: p99 at half load", statistics.median(tails), "ms"))
    return found


def _published(quota: Load, uri: str, progress: Progress) -> list[Row]:
    """A log of quota copied into a stream, as `services.audit.copying` does with each: a page of the service's answer
    after the other, each section confirmed before the next is asked for. Every round has a stream of its own."""
    streams = itertools.count()
    with connected(uri) as connection, Client(Settings(broker=uri), "bench") as client:

        def prepare() -> Work:
            publisher = Publisher(connection, f"bench-{next(streams)}")
            settle(quota)

            def work() -> int:
                while publisher.position < COPIED:
                    after, limit = publisher.position, min(EVENTS_MAX, COPIED - publisher.position)
                    publisher.publish(client.call("quota", "events", after=after, limit=limit)["events"])
                return publisher.position

            return work

        def check(copied: int) -> None:
            assert copied == COPIED

        measure = Measure(PUBLISHED, "events/s", COPIED, prepare, ("PostgreSQL: engine, 1,000 a batch",), check)
        return interleaved([measure], ROUNDS, progress)
