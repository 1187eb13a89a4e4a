"""What-if: a month's issued bills beside what they would have come to under another catalogue.

Reads the logs of billing, catalog and quota as any client can, folds them in memory, and writes nothing anywhere. What
the bills were made of is read as the close reads it, from the same tables, made anew in memory. It must not know who
shows the result.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from services.billing import reading
from services.billing import tables as t
from services.billing.domain.overlay import Overlay
from services.billing.domain.subscription import Subscriptions
from services.billing.domain.whatif import Begun, Replay
from services.billing.readmodel import BooksProjection
from services.billing.runs import bill_of
from services.billing.subscribed import STREAM, account_of
from services.billing.usage import UsageProjection
from shared.clock import period_bounds
from shared.contracts import billing as b
from shared.contracts import subscriptions as s
from shared.contracts.catalog import Catalogue
from shared.errors import MalformedCommand
from shared.eventstore.log import LoggedEvent
from shared.eventstore.projection import Page
from shared.eventstore.schema import POSITIONS
from shared.sharding import shard_named

PAGE = 1_000  # events of one question
BILLS_PAGE = 200  # bills whose inputs are read at once
RETRIES = 3
Owner = tuple[str, str]  # operator, account
Tick = Callable[[int], None]


class Caller(Protocol):
    """What a what-if needs of a client."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


class Stage(Protocol):
    """Is told of each chapter of the work: `stage(title, unit, total)` gives what is told how much is done."""

    def __call__(self, title: str, unit: str, total: int | None = None) -> AbstractContextManager[Tick]: ...


class Rerated(NamedTuple):
    """An issued bill, and what it would be. `again`: what the catalogue of then gives today; as issued, unless
    something is wrong with the logs."""

    issued: b.Bill
    again: b.Bill
    other: b.Bill

    @property
    def difference_fen(self) -> int:
        return self.other.total_fen - self.issued.total_fen


@contextlib.contextmanager
def _unseen(title: str, unit: str, total: int | None = None) -> Iterator[Tick]:  # noqa: ARG001 - nobody looks
    yield lambda _done: None


def what_if(
    client: Caller, period: str, other: Catalogue, operators: Sequence[str] = (), stage: Stage = _unseen
) -> list[Rerated]:
    """Each bill of `period` that stands, of all operators or of some, in the order of operators and accounts.

    Raises MalformedCommand where there is none, and whatever the client raises when a service cannot be asked.
    """
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        _make_tables(connection)
        with stage("reading billing's log", "events") as tick:
            books = _Books(period, operators)
            for page in _pages(client, "billing", None, tick):
                BooksProjection().apply(connection, page)
                books.apply(page)
        if not books.bills:
            of = f" of {', '.join(operators)}" if operators else ""
            raise MalformedCommand(f"No bill{of} stands for {period}: close the month first.", {"period": period})
        # Of an on-time row a cut-off is known to lie behind it: sums by key will do, as while the month ran.
        connection.execute(sa.update(t.periods).values(closed=False))
        with stage("reading catalog's log", "events") as tick:
            published = [(e.position, e.event) for page in _pages(client, "catalog", None, tick) for e in page]
        overlay = Overlay(published, other, period)
        replays = {
            owner: Replay(owner[0], period, bill.quota_position, overlay, books.begun.get(owner, ()))
            for owner, bill in books.bills.items()
        }
        with stage("replaying quota's logs", "events") as tick:
            _follow_quota(client, connection, books.bills, replays, tick)
        with stage("rating", "bills", len(books.bills)) as tick:
            return list(_rated(connection, period, overlay, books.bills, replays, tick))


def _make_tables(connection: sa.Connection) -> None:
    positions = sa.MetaData()
    sa.Table(
        POSITIONS, positions, sa.Column("projection", sa.Text, primary_key=True), sa.Column("position", sa.Integer)
    )
    for meta in (t.meta, positions):
        meta.create_all(connection)
    connection.execute(sa.text("CREATE INDEX bills_account ON bills (operator, account)"))
    connection.execute(sa.text("CREATE INDEX usage_late ON usage (segment) WHERE segment > 0"))


# --- reading -----------------------------------------------------------------------------------
def _pages(
    client: Caller, service: str, to: int | None, tick: Tick, shard: int = 0, done: int = 0
) -> Iterator[list[LoggedEvent]]:
    """A log's events up to a position, or to its head."""
    target = client.call(service, "head", shard=shard, retries=RETRIES) if to is None else to
    position = 0
    while position < target:
        limit = min(PAGE, target - position)
        answer = client.call(service, "events", after=position, limit=limit, shard=shard, retries=RETRIES)
        page = [LoggedEvent(**event) for event in answer["events"]]
        if not page:
            raise MalformedCommand(f"{service}'s log ends at {position}, before {target}.", {"position": position})
        yield page
        position = page[-1].position
        tick(done + position)


class _Books:
    """Of billing's log: the period's bills that stand, by account, and the plans' periods that begin in it."""

    def __init__(self, period: str, operators: Sequence[str]) -> None:
        self._period, self._bounds, self._operators = period, period_bounds(period), frozenset(operators)
        self._subscriptions: dict[str, Subscriptions] = {}
        self._owners: dict[str, Owner] = {}  # by the bill's number
        self.bills: dict[Owner, b.Bill] = {}
        self.begun: dict[Owner, list[Begun]] = {}

    def apply(self, page: Sequence[LoggedEvent]) -> None:
        for logged in page:
            if logged.stream.startswith(STREAM):
                self._subscribed(logged)
            elif logged.topic == b.BillIssued.TOPIC:
                event = logged.event
                assert isinstance(event, b.BillIssued)
                bill = event.bill
                if bill.period == self._period and (not self._operators or bill.operator in self._operators):
                    owner = self._owners[bill.number] = (bill.operator, bill.account)
                    self.bills[owner] = bill
            elif logged.topic == b.BillVoided.TOPIC:
                event = logged.event
                assert isinstance(event, b.BillVoided)
                if event.number in self._owners:
                    del self.bills[self._owners[event.number]]

    def _subscribed(self, logged: LoggedEvent) -> None:
        event, state = logged.event, self._subscriptions.setdefault(logged.stream, Subscriptions())
        if isinstance(event, s.PlanPeriodStarted) and self._bounds[0] <= event.starts_at < self._bounds[1]:
            subscription = state.by_name[event.subscription]
            months = subscription.months if event.plan == subscription.plan else 0
            self.begun.setdefault(account_of(logged.stream), []).append(Begun(event, months))
        state.evolve(logged.version, event)


def _follow_quota(
    client: Caller, connection: sa.Connection, bills: dict[Owner, b.Bill], replays: dict[Owner, Replay], tick: Tick
) -> None:
    """Quota's logs, each up to the last cut-off in it: no bill knows more."""
    ends: dict[str, int] = {}
    for bill in bills.values():
        ends[bill.quota_log] = max(bill.quota_position, ends.get(bill.quota_log, 0))
    done = 0
    for log, end in sorted(ends.items()):
        usage = UsageProjection(log)
        for page in _pages(client, "quota", end, tick, shard_named(log), done):
            usage.apply(connection, Page(page))
            for logged in page:
                operator, _, account = logged.stream.partition("/")
                replay = replays.get((operator, account))
                if replay is not None:
                    replay.apply(logged.position, logged.event)
        done += end


# --- rating --------------------------------------------------------------------------------------
def _rated(
    connection: sa.Connection,
    period: str,
    overlay: Overlay,
    bills: dict[Owner, b.Bill],
    replays: dict[Owner, Replay],
    tick: Tick,
) -> Iterator[Rerated]:
    # By cut-off: so many bills are read with one question.
    alike: dict[tuple[str, str, int], list[b.Bill]] = {}
    for bill in bills.values():
        alike.setdefault((bill.operator, bill.quota_log, bill.quota_position), []).append(bill)
    rated: list[Rerated] = []
    for (operator, _, cut_off), group in alike.items():
        for n in range(0, len(group), BILLS_PAGE):
            part = group[n : n + BILLS_PAGE]
            accounts = [a for bill in part if (a := reading.account(connection, operator, bill.account)) is not None]
            inputs = reading.inputs(connection, operator, period, cut_off, accounts)
            rated += [
                _rerated(bill, found, overlay, replays[operator, bill.account])
                for bill, found in zip(part, inputs, strict=True)
            ]
            tick(len(rated))
    yield from sorted(rated, key=lambda r: (r.issued.operator, r.issued.account))


def _rerated(bill: b.Bill, found: reading.Inputs, overlay: Overlay, replay: Replay) -> Rerated:
    bare, laid = overlay.views(bill.catalog_position)
    about = (bill.quota_position, bill.quota_log, bill.number)
    again = bill_of(found, bill.period, bare, *about)
    operator, other = bill.operator, copy.copy(found)
    other.usage = replay.usage(found.usage)
    other.grants = [overlay.granted(operator, grant) for grant in found.grants]
    other.charges = overlay.charges(operator, found.charges, replay.months, replay.left_over())
    other.running = overlay.running(operator, found.running)
    return Rerated(bill, again, bill_of(other, bill.period, laid, *about))
