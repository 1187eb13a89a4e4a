"""Issued bills computed again from the logs, each as of its own cut-offs, and compared by their hashes.

The logs are told again in the order in which billing met them: usage up to a bill's cut-off, billing's own log up to
what the bill knew, the catalogue up to what was published then. All is folded into a database of its own, which is gone
afterwards; nothing that runs is read but its logs, and nothing is written. A difference is a report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from services.billing import reading
from services.billing.domain.canonical import plain, sealed, sha256_as_read, sha256_of
from services.billing.readmodel import BooksProjection
from services.billing.runs import bill_of
from services.billing.usage import UsageProjection
from shared.catalogue.view import CatalogueView
from shared.contracts import billing as b
from shared.errors import LimitExceeded
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import LoggedEvent
from shared.eventstore.projection import Projector

PAGE = 50_000  # events of a log at once: the more of them, the fewer rows are written twice
ANSWER = 1_000  # events of one answer of a service: whatever bound is set there, it is hardly less
DIFFERENCES_MAX = 1000  # kept; all are counted
Reader = Callable[[str, int, int], Sequence[LoggedEvent]]  # log, after, limit; a page of that log
Progress = Callable[[int], None]  # bills compared so far


class Caller(Protocol):
    """What can be asked of services."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


class Difference(NamedTuple):
    """A field of a bill that is not what was computed, or cannot be. `path`: `lines.2.fen`."""

    number: str
    path: str
    stored: str
    computed: str


class Rebuilt(NamedTuple):
    """What came of it. `events`: read in all."""

    bills: int
    equal: int
    differences: tuple[Difference, ...]
    events: int
    seconds: float

    @property
    def ok(self) -> bool:
        return self.bills == self.equal


def over_rpc(client: Caller) -> Reader:
    """Reads the logs of services that run."""

    def read(log: str, after: int, limit: int) -> Sequence[LoggedEvent]:
        service, _, shard = log.partition("-")
        which = {"shard": int(shard)} if shard else {}
        page: list[LoggedEvent] = []
        while wanted := min(ANSWER, limit - len(page)):
            answer = client.call(service, "events", after=after + len(page), limit=wanted, **which)
            page += [LoggedEvent(**fields) for fields in answer["events"]]
            if len(answer["events"]) < wanted:
                break
        return page

    return read


def rebuild(
    read: Reader, period: str | None = None, operator: str | None = None, progress: Progress = lambda _done: None
) -> Rebuilt:
    """Compute issued bills again, void ones too: all, or those of a period, of an operator."""
    began = monotonic()
    with tempfile.TemporaryDirectory(prefix="tokengrid-rebuild-") as folder:
        database = _passing(f"sqlite:///{Path(folder) / 'billing.db'}")
        try:
            migrate(database, "billing")
            retold = _Retold(database, read, progress)
            for run in _runs(retold.own_log()):
                bill = run[0].bill
                wanted = (period is None or bill.period == period) and (operator is None or bill.operator == operator)
                retold.up_to(bill)
                if wanted:
                    retold.compare(run)
            return Rebuilt(
                retold.bills,
                retold.bills - retold.unequal,
                tuple(retold.differences),
                retold.events,
                monotonic() - began,
            )
        finally:
            database.dispose()


def _passing(url: str) -> sa.Engine:
    """A database that nobody misses: it need outlive nothing, and nothing in it is taken back."""
    made = engine(url)

    @sa.event.listens_for(made, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")

    return made


def _runs(events: Iterator[LoggedEvent]) -> Iterator[list[b.BillIssued]]:
    """Neighbouring bills that were made in one go: of one operator, with the same cut-offs."""
    issued = (logged.event for logged in events if logged.topic == b.BillIssued.TOPIC)
    for _, run in groupby(issued, lambda event: _known(event.bill)):  # type: ignore[attr-defined]
        yield list(run)  # type: ignore[arg-type]


def _known(bill: b.Bill) -> tuple[Any, ...]:
    """What a bill shares with those that were made together with it."""
    cut_offs = (bill.quota_log, bill.quota_position, bill.billing_position, bill.catalog_position)
    return (bill.operator, bill.period, *cut_offs)


class _Retold:
    """The logs as far as they have been told again."""

    def __init__(self, database: sa.Engine, read: Reader, progress: Progress) -> None:
        self.bills = self.unequal = self.events = 0
        self.differences: list[Difference] = []
        self._database = database
        self._read = read
        self._progress = progress
        self._books = Projector(database, BooksProjection())
        self._waiting: list[LoggedEvent] = []  # of our own log, read and not folded yet
        self._usage: dict[str, Projector] = {}
        self._reached: dict[str, int] = {}  # how far each log of quota is folded
        self._view = CatalogueView()

    def own_log(self) -> Iterator[LoggedEvent]:
        """Billing's log, each event held back until a bill behind it knows it."""
        for logged in map(LoggedEvent.at_hand, self._pages("billing", 0)):
            self._waiting.append(logged)
            yield logged

    def _pages(self, log: str, after: int) -> Iterator[LoggedEvent]:
        while page := self._read(log, after, PAGE):
            self.events += len(page)
            yield from page
            after = page[-1].position

    # -- telling again ----------------------------------------------------------------------------
    def up_to(self, bill: b.Bill) -> None:
        """All that a bill knows, and no more of what decides what it carries."""
        self._fold_books(bill.billing_position)
        self._fold_usage(bill.quota_log, bill.quota_position)
        self._fold_catalogue(bill.catalog_position)

    def _fold_books(self, to: int) -> None:
        count = sum(1 for logged in self._waiting if logged.position <= to)
        for start in range(0, count, PAGE):
            self._books.apply(self._waiting[start : min(start + PAGE, count)])
        del self._waiting[:count]

    def _fold_usage(self, log: str, to: int) -> None:
        projector = self._usage.setdefault(log, Projector(self._database, UsageProjection(log)))
        reached = self._reached.get(log, 0)
        while reached < to:
            page = self._read(log, reached, min(PAGE, to - reached))
            if not page:
                return  # the log is shorter than a bill says: what is missing shows in its figures
            self.events += len(page)
            reached = self._reached[log] = projector.apply(page)

    def _fold_catalogue(self, to: int) -> None:
        if self._view.position > to:  # a replica that knew less made this bill
            self._view = CatalogueView()
        while (reached := self._view.position) < to and (
            page := self._read("catalog", reached, min(PAGE, to - reached))
        ):
            self.events += len(page)
            for logged in page:
                self._view.apply(logged.position, logged.event)

    # -- comparing --------------------------------------------------------------------------------
    def compare(self, run: Sequence[b.BillIssued]) -> None:
        """Bills that were made in one go."""
        first = run[0].bill
        names = [event.bill.account for event in run]
        with reading.snapshot(self._database) as connection:
            accounts = reading.accounts(connection, first.operator, names)
            inputs = reading.inputs(connection, first.operator, first.period, first.quota_position, accounts)
        found = {each.account.account: each for each in inputs}
        for event in run:
            self._compare(event, found.get(event.bill.account))
        self._progress(self.bills)

    def _compare(self, event: b.BillIssued, found: reading.Inputs | None) -> None:
        bill = event.bill
        self.bills += 1
        wrong: list[Difference] = []
        again: b.Bill | None = None
        try:
            if found is not None:
                cut_off = (bill.quota_position, bill.quota_log)
                again = bill_of(found, bill.period, self._view, *cut_off, bill.number)
                if again == bill and _is_hash_of(event.bill_sha256, bill):
                    return
                again, _ = sealed(again)  # what is equal to a bill that was read from a log is in bounds
        except LimitExceeded as error:
            again = None
            wrong.append(Difference(bill.number, "lines", "", str(error)))
        if not _is_hash_of(event.bill_sha256, bill):
            wrong.append(Difference(bill.number, "bill_sha256", event.bill_sha256, sha256_of(bill)))
        if found is None:
            wrong.append(Difference(bill.number, "account", bill.account, "not opened by the cut-off"))
        elif again is not None:
            wrong += [Difference(bill.number, *each) for each in _unequal(plain(bill), plain(again), "")]
        self.unequal += 1
        self.differences += wrong[: DIFFERENCES_MAX - len(self.differences)]


def _is_hash_of(sha256: str, bill: b.Bill) -> bool:
    return sha256_as_read(bill) == sha256 or sha256_of(bill) == sha256


def _unequal(stored: Any, computed: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Path, stored and computed value of each part that differs."""
    if isinstance(stored, dict) and isinstance(computed, dict):
        for name in sorted(stored.keys() | computed.keys()):
            yield from _unequal(stored.get(name), computed.get(name), f"{path}.{name}" if path else name)
    elif isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        for number, (one, other) in enumerate(zip(stored, computed, strict=True)):
            yield from _unequal(one, other, f"{path}.{number}")
    elif stored != computed:
        yield path, str(stored), str(computed)
