"""Ours without a broker: the quota application in this process, on whatever store its settings name."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from services.quota.application import QuotaApplication
from shared.clock import system_clock
from shared.config import Settings
from tokengrid.bench.measure import Measure, Progress, Row, Work, first_error, interleaved

OPERATOR = "shanghai-telecom"
MODEL = "kimi-k2.5"
ACCOUNTS = 100
BATCHES = (1, 50, 1000, 8192)
SINGLES = 100  # commits in a round of batches of one
LONG_LIFE = 10_000  # events of the account that is loaded
REPLAYED_MAX = 50_000


def quota(settings: Settings, catalog_settings: Settings) -> QuotaApplication:
    """A quota application with the sample catalogue and funded accounts."""
    catalog = CatalogApplication(catalog_settings)
    catalog.publish(sample_publication(system_clock()))
    app = QuotaApplication(settings)
    app.follow_catalog([e._asdict() for e in catalog.log.read(0, settings.page_max)])
    catalog.close()
    names = [*(f"a{n:02d}" for n in range(ACCOUNTS)), "long"]
    whose = [{"operator": OPERATOR, "account": name} for name in names]
    first_error(app.execute([{"command": "open_account", **who, "request_id": "open"} for who in whose]))
    grant = {"command": "grant", "request_id": "grant", "amount": 10**14, "source": "purchase"}
    first_error(app.execute([{**grant, **who} for who in whose]))
    return app


def debit(number: int, account: str) -> dict[str, Any]:
    """The fields of a debit; request ids are ordered by time, as we advise callers to make them."""
    return {
        "operator": OPERATOR,
        "account": account,
        "request_id": f"r{number:012d}",
        "model": MODEL,
        "usage": {"input": 1000, "output": 200},
    }


def debits(numbers: Iterator[int], count: int, accounts: int = ACCOUNTS) -> list[dict[str, Any]]:
    """`count` fresh debit commands, taking turns over `accounts` accounts."""
    return [{"command": "debit", **debit(n, f"a{n % accounts:02d}")} for n in itertools.islice(numbers, count)]


def pairs(numbers: Iterator[int], count: int) -> list[dict[str, Any]]:
    """`count` calls with a hold: a reserve each, then a settle each."""
    calls = debits(numbers, count)
    reserves = []
    settles = []
    for call in calls:
        name, usage = call["request_id"], call.pop("usage")
        reserves.append({**call, "command": "reserve", "max_usage": {"input": 1000, "output": 4000}})
        settle = {"command": "settle", "request_id": f"{name}s", "reservation": name, "usage": usage}
        settles.append({"operator": call["operator"], "account": call["account"], **settle})
    return reserves + settles


def measures(app: QuotaApplication, store: str, batches: Sequence[int] = BATCHES) -> list[Measure]:
    """What takes turns with the floor and the peers of the same store."""
    numbers = itertools.count()
    floor, stock = f"{store}: floor, bare insert, 1,000 a commit", f"{store}: stock library, 1 a commit"

    def executing(lists: list[list[dict[str, Any]]]) -> Work:
        def work() -> None:
            for commands in lists:
                first_error(app.execute(commands))

        return work

    made = []
    for size in batches:
        times = SINGLES if size == 1 else max(1, 500 // size)

        def prepare(size: int = size, times: int = times) -> Work:
            return executing([debits(numbers, size) for _ in range(times)])

        against = {1: (stock,), 1000: (floor, stock)}.get(size, (floor,))
        made.append(Measure(f"{store}: engine, {size:,} a batch", "debits/s", size * times, prepare, against))
    size = batches[-2]
    reference = f"{store}: engine, {size:,} a batch"
    hot = f"{store}: engine, {size:,} a batch, one hot account"
    made.append(Measure(hot, "debits/s", size, lambda: executing([debits(numbers, size, 1)]), (reference,)))
    both = f"{store}: engine, reserve and settle, {size:,} a batch"
    made.append(Measure(both, "calls/s", size // 2, lambda: executing([pairs(numbers, size // 2)]), (reference,)))
    return made


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
    for start in range(0, long_life, 5000):
        life = range(start, min(start + 5000, long_life))
        first_error(app.execute([{"command": "debit", **debit(n, "long")} for n in life]))
    taken = []
    for _ in range(rounds):
        app.accounts.forget({f"{OPERATOR}/long"})
        began = time.perf_counter()
        app.accounts.account(f"{OPERATOR}/long")
        taken.append((time.perf_counter() - began) * 1000)
    return [*rows, Row(f"{store}: load an account with {long_life:,} events", median(taken), "ms")]
