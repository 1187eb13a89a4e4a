"""Ours without a broker: the quota application in this process, on whatever store its settings name."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import sqlalchemy as sa

from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from services.quota.application import QuotaApplication
from shared.clock import system_clock
from shared.config import Settings
from shared.eventstore.log import LoggedEvent
from tokengrid.bench import calls
from tokengrid.bench.calls import OPERATOR
from tokengrid.bench.load import Load
from tokengrid.bench.measure import Measure, Progress, Row, Work, first_error, interleaved
from tokengrid.bench.serving import Answer, receipts, serve

BATCHES = (1, 50, 1000, 8192)
USUAL = 1000  # commands a batch where nothing else is said
FEW = 100  # accounts
TURNS = {1: 200, 50: 40, 1000: 10}  # requests in a round; of others, four
FIRST = 10**6  # key of a measure; smaller ones are the sample's
LONG = 9_999_998  # the account that is loaded
LONG_LIFE = 10_000  # its events
BEHIND = 500  # of them after its snapshot, half of what there can be
REPLAYED_MAX = 50_000


def quota(settings: Settings, catalog_settings: Settings, accounts: int = calls.ACCOUNTS) -> QuotaApplication:
    """A quota application with the sample catalogue and this many funded accounts."""
    app = priced(settings, catalog_settings)
    for start in range(0, accounts, USUAL):
        first_error(app.execute(funded(range(start, min(start + USUAL, accounts)))))
    return app


def priced(settings: Settings, catalog_settings: Settings) -> QuotaApplication:
    """A quota application with the sample catalogue, its log empty."""
    catalog = CatalogApplication(catalog_settings)
    catalog.publish(sample_publication(system_clock()))
    app = QuotaApplication(settings)
    app.follow_catalog([e._asdict() for e in catalog.log.read(0, settings.page_max)])
    catalog.close()
    return app


def funded(accounts: Sequence[int]) -> list[dict[str, Any]]:
    """Commands that open these accounts and give them more points than any measure spends."""
    whose = [{"operator": OPERATOR, "account": calls.account(n)} for n in accounts]
    grant = {"command": "grant", "request_id": "grant", "amount": 10**14, "source": "purchase"}
    return [{"command": "open_account", "request_id": "open", **who} for who in whose] + [
        {**grant, **who} for who in whose
    ]


def bodies(numbers: Iterator[int], whose: Iterator[int], size: int, count: int) -> list[bytes]:
    """`count` requests of `size` debits, as they come from the broker."""
    return Load.bodies([{"commands": calls.debits(numbers, whose, size)} for _ in range(count)])


def measures(
    app: QuotaApplication, store: str, batches: Sequence[int] = BATCHES, accounts: int = calls.ACCOUNTS
) -> list[Measure]:
    """What takes turns with the floor and the peers of the same store."""
    numbers = itertools.count(FIRST)
    floor, stock = f"{store}: floor, bare insert, 1,000 a commit", f"{store}: stock library, 1 a commit"
    against = {1: (stock,), USUAL: (floor, stock, f"{store}: stock library, 1,000 a commit")}

    def measure(name: str, size: int, of: int, against: tuple[str, ...]) -> Measure:
        count, whose = TURNS.get(size, 4), calls.uniform(of)

        def prepare() -> Work:
            return serving(app, bodies(numbers, whose, size, count))

        return Measure(name, "debits/s", size * count, prepare, against, looked_at(size * count))

    made = [
        measure(f"{store}: engine, {size:,} a batch", size, accounts, against.get(size, (floor,))) for size in batches
    ]
    usual = batches[-2]
    reference = f"{store}: engine, {usual:,} a batch"
    few = min(FEW, accounts)
    made.append(measure(f"{reference}, {few} accounts", usual, few, (reference,)))
    made.append(measure(f"{reference}, one hot account", usual, 1, (reference,)))
    whose = calls.uniform(accounts)

    def paired() -> Work:
        return serving(app, Load.bodies([{"commands": calls.pairs(numbers, whose, usual // 2)} for _ in range(4)]))

    both = f"{store}: engine, reserve and settle, {usual:,} a batch"
    count = 4 * (usual // 2)
    made.append(Measure(both, "calls/s", count, paired, (reference,), looked_at(2 * count)))
    return made


def serving(app: QuotaApplication, requests: list[bytes]) -> Work:
    """All of them served; gives the answers, undecoded."""

    def work() -> list[Answer]:
        answers: list[Answer] = []
        serve(app, requests, lambda _seconds, answer: answers.append(answer))
        return answers

    return work


def looked_at(commands: int) -> Callable[[list[Answer]], None]:
    """When the clock has stopped: every command has its receipt. Raises AssertionError with what is none."""

    def check(answers: list[Answer]) -> None:
        found = sum(receipts(answer) for answer in answers)
        assert found == commands, f"{found} receipts for {commands} commands"

    return check


def after(app: QuotaApplication, store: str, rounds: int, progress: Progress, long_life: int = LONG_LIFE) -> list[Row]:
    """What reads the log, once it has something in it: replay, and loading an account with a long life."""
    count = min(app.log.head(), REPLAYED_MAX)

    def replay() -> None:
        position = 0
        while position < count:
            page = app.log.read(position, min(5000, count - position))
            for logged in page:
                assert logged.event
            position = page[-1].position

    reference = f"{store}: engine, 1,000 a batch"
    rows = interleaved(
        [Measure(f"{store}: replay of the log", "events/s", count, lambda: replay, (reference,))], rounds, progress
    )
    progress(f"{store}: an account with {long_life:,} events")
    first_error(app.execute(funded([LONG])))
    debits = calls.debits(itertools.count(10**9), itertools.repeat(LONG), long_life - 2)
    behind = min(BEHIND, len(debits) // 2)
    for start in range(0, len(debits) - behind, USUAL):
        first_error(app.execute(debits[start : min(start + USUAL, len(debits) - behind)]))
    app.take_snapshots()
    first_error(app.execute(debits[-behind:]))
    name = f"{store}: load an account with {long_life:,} events"
    from_snapshot = _loaded(app, rounds)
    with app.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM snapshots"))
    rows.append(Row(name, _loaded(app, rounds), "ms"))
    if long_life >= app.settings.snapshot_every:  # else there is none
        rows.append(Row(f"{name}, {behind} of them after its snapshot", from_snapshot, "ms", None, name))
    return rows


def _loaded(app: QuotaApplication, rounds: int) -> float:
    """Milliseconds until the account with the long life is in memory, the median."""
    taken = []
    for _ in range(rounds):
        app.accounts.forget({calls.stream(LONG)})
        began = time.perf_counter()
        app.accounts.account(calls.stream(LONG))
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


def sample(app: QuotaApplication, accounts: int = calls.ACCOUNTS) -> list[LoggedEvent]:
    """Rows as our engine writes them, for the floor: as many as a round of the usual batch."""
    count = USUAL * TURNS[USUAL]
    numbers, whose = itertools.count(), calls.uniform(accounts)
    for _ in range(TURNS[USUAL]):
        first_error(app.execute(calls.debits(numbers, whose, USUAL)))
    return app.log.read(app.log.head() - count, count)
