"""The peer without a broker: what one would write first with the eventsourcing library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from tokengrid.bench.calls import MODEL
from tokengrid.bench.measure import Measure, Work

SINGLES = 100


class Wallet(Aggregate):
    """A balance that is debited."""

    def __init__(self) -> None:
        self.balance = 0

    @event("Debited")
    def debit(self, amount: int, model: str, input_tokens: int, output_tokens: int) -> None:  # noqa: ARG002
        self.balance -= amount


def application(environment: Mapping[str, str]) -> Application[Any]:
    """The library as it comes, with its cache of aggregates on."""
    return Application({**environment, "AGGREGATE_CACHE_MAXSIZE": "1000"})


def measures(app: Application[Any], store: str) -> list[Measure]:
    """One event a commit, and as many as our usual batch: loaded, debited, saved."""
    wallet = Wallet()
    app.save(wallet)

    def one_by_one() -> None:
        for _ in range(SINGLES):
            _debited(app, wallet, 1)

    def at_once() -> None:
        _debited(app, wallet, 1000)

    return [
        Measure(f"{store}: stock library, 1 a commit", "events/s", SINGLES, _ready(one_by_one)),
        Measure(
            f"{store}: stock library, 1,000 a commit",
            "events/s",
            1000,
            _ready(at_once),
            (f"{store}: floor, bare insert, 1,000 a commit",),
        ),
    ]


def _debited(app: Application[Any], wallet: Wallet, times: int) -> None:
    held: Wallet = app.repository.get(wallet.id)
    for _ in range(times):
        held.debit(2_000_000, MODEL, 1000, 200)
    app.save(held)


def _ready(work: Work) -> Any:
    return lambda: work
