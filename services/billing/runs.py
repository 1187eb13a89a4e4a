"""The month's close, a bounded piece at a time: which bills or statements come next, and the events they become.

A run is loaded in one snapshot and turned into events without further reading. It must not know how
events are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from services.billing import reading
from services.billing import tables as t
from services.billing.cutoff import check_followed, malformed
from services.billing.domain.canonical import sealed
from services.billing.domain.rating import rate
from services.billing.domain.settlement import Served, statement
from services.billing.earlier import void_count
from services.billing.questions import DraftBills
from shared import telemetry
from shared.catalogue.view import CatalogueView
from shared.contracts import billing as b
from shared.contracts.catalog import Operator
from shared.errors import UnknownOperator
from shared.eventstore.batch import Stored
from shared.eventstore.log import NewEvent

ISSUE_MAX = 500  # bills of one call: it must not hold up the process's other work for more than a quarter of a second
PAIRS_MAX = 50  # statements of one call, each with a line per model


class Progress(NamedTuple):
    """How far a close has come: every account up to `account` has its bill, and at most `unbilled` others have none.

    For one operator, period, shard and cut-off this only ever grows while no more than `void` of the operator's bills
    for the period are void: what quota knew up to a position is what it is, and a bill stays. So it may be remembered,
    and forgotten at will.
    """

    account: str
    unbilled: int
    void: int


class BillRun:
    """What one `issue_bills` works on. `log`: the one of its shard; `serial`: the operator's last number; `unbilled`:
    accounts without a bill; `void`: the operator's bills for the period that are void."""

    def __init__(
        self, command: b.IssueBills, log: str, inputs: list[reading.Inputs], unbilled: int, serial: int, void: int
    ) -> None:
        self.command = command
        self.log = log
        self.inputs = inputs
        self.unbilled = unbilled
        self.serial = serial
        self.void = void
        self.reopened = 0  # accounts whose bill became void in the same commit
        self.issued = 0

    def events(self, catalogue: CatalogueView, at: datetime, now: datetime) -> list[NewEvent]:
        """The bills. Raises LimitExceeded if one cannot be represented; then none is issued."""
        period = self.command.period
        events = []
        for serial, found in enumerate(self.inputs, start=self.serial + 1):
            number = f"{self.command.operator}-{period}-{serial:06d}"
            rated = bill_of(found, period, catalogue, self.command.quota_position, self.log, number)
            bill, sha256 = sealed(rated)
            event = b.BillIssued(at=at, recorded_at=now, bill=bill, bill_sha256=sha256)
            events.append(NewEvent(f"bill:{number}", 1, event, _key(found, period)))
        self.issued = len(events)
        return events

    @property
    def remaining(self) -> int:
        return self.unbilled + self.reopened - self.issued

    @property
    def progress(self) -> Progress:
        """How far it has come once its bills are stored."""
        return Progress(self.inputs[-1].account.account, self.remaining, self.void)


def bill_of(
    found: reading.Inputs, period: str, catalogue: CatalogueView, cut_off: int, log: str, number: str = ""
) -> b.Bill:
    """What an account is to pay for a period: the one way to an issued bill, a draft and a dry run."""
    return rate(
        found.account,
        period,
        catalogue,
        cut_off,
        log,
        number=number,
        grants=found.grants,
        usage=found.usage,
        late=found.late,
        billing_position=found.billing_position,
        charges=found.charges,
        running=found.running,
        credit_fen=found.credit_fen,
    )


def _key(found: reading.Inputs, period: str) -> str:
    """Of an account's first bill for a period, and of each that takes a void one's place: whoever else makes it, too,
    is refused by the log."""
    key = f"bill:{found.account.operator}/{found.account.account}/{period}"
    return f"{key}/{found.void + 1}" if found.void else key


class StatementRun:
    """What one `settle_period` works on."""

    def __init__(
        self,
        command: b.SettlePeriod,
        cut_offs: tuple[int, ...],
        served: dict[tuple[str, str], list[Served]],
        unsettled: int,
    ) -> None:
        self.command = command
        self.cut_offs = cut_offs  # one for each shard of quota
        self.served = served
        self.unsettled = unsettled
        self.issued = 0

    def events(self, catalogue: CatalogueView, at: datetime, now: datetime) -> list[NewEvent]:
        """The statements. Raises LimitExceeded if one cannot be represented; then none is issued."""
        period = self.command.period
        events = []
        for (home, serving), served in self.served.items():
            made, sha256 = sealed(statement(home, serving, period, self.cut_offs, served, catalogue))
            event = b.StatementIssued(at=at, recorded_at=now, statement=made, statement_sha256=sha256)
            stream = f"statement:{home}/{serving}/{period}"
            events.append(NewEvent(stream, 1, event, stream))
        self.issued = len(events)
        return events

    @property
    def remaining(self) -> int:
        return self.unsettled - self.issued


def load_bill_run(
    connection: sa.Connection,
    command: b.IssueBills,
    logs: Sequence[str],
    catalogue: CatalogueView,
    progress: Progress | None,
) -> BillRun:
    """The operator's next accounts and what their bills are made of. Raises what `issue_bills` refuses.

    `logs`: quota's, by shard.
    """
    operator, period, shard, cut_off = command.operator, command.period, command.quota_shard, command.quota_position
    check_shard(connection, command, logs, catalogue)
    check_followed(connection, period, logs[shard], cut_off, operator)
    void = void_count(connection, operator, period)
    if progress is None or progress.void != void:
        progress = Progress("", reading.unbilled_count(connection, operator, period, shard, cut_off), void)
    limit = min(command.limit, ISSUE_MAX)
    accounts = reading.unbilled(connection, operator, period, shard, cut_off, progress.account, limit)
    # Other replicas may have issued some since they were counted; the last piece shows it.
    unbilled = progress.unbilled if len(accounts) == limit else len(accounts)
    inputs = reading.inputs(connection, operator, period, cut_off, accounts)
    return BillRun(command, logs[shard], inputs, unbilled, reading.last_serial(connection, t.bills, operator), void)


def check_shard(
    connection: sa.Connection, asked: b.IssueBills | DraftBills, logs: Sequence[str], catalogue: CatalogueView
) -> None:
    """Raises MalformedCommand for a limit or shard that cannot be, UnknownOperator."""
    if not asked.limit:
        raise malformed("limit", "must be at least 1")
    if asked.quota_shard >= len(logs):
        raise malformed("quota_shard", f"must be from 0 to {len(logs) - 1}")
    check_operator(connection, asked.operator, catalogue)


def check_operator(connection: sa.Connection, operator: str, catalogue: CatalogueView) -> None:
    """Raises UnknownOperator for one that has no account and is not in the catalogue."""
    if not reading.has_accounts(connection, operator) and not catalogue.known(Operator, operator):
        raise UnknownOperator(f"no operator {operator!r}", {"operator": operator})


def load_statement_run(connection: sa.Connection, command: b.SettlePeriod, logs: Sequence[str]) -> StatementRun:
    """The next pairs of operators and what was served. Raises what `settle_period` refuses. `logs`: quota's, by
    shard."""
    period, cut_offs = command.period, _cut_offs(command, len(logs))
    for log, cut_off in zip(logs, cut_offs, strict=True):
        check_followed(connection, period, log, cut_off)
    pairs = reading.unsettled_pairs(connection, period, cut_offs)
    served = {pair: reading.served(connection, *pair, period, cut_offs) for pair in pairs[:PAIRS_MAX]}
    return StatementRun(command, cut_offs, served, len(pairs))


def _cut_offs(command: b.SettlePeriod, shards: int) -> tuple[int, ...]:
    if command.quota_position is None:
        if len(command.quota_positions) != shards:
            raise malformed("quota_positions", f"must have a position for each of quota's {shards} shards")
        return command.quota_positions
    if command.quota_positions:
        raise malformed("quota_position", "must not be given besides quota_positions")
    if shards > 1:
        raise malformed("quota_positions", f"must have a position for each of quota's {shards} shards")
    return (command.quota_position,)


def trace_lines(events: Sequence[Stored], run: BillRun) -> None:
    """Put each usage line into the trace of one of its debits: one trace from reserve to bill line."""
    for logged, found in zip(events, run.inputs, strict=True):
        event = logged.event
        assert isinstance(event, b.BillIssued)
        for line in event.bill.lines:
            parent = found.traces.get((line.kind, line.model, line.rate_card))
            if parent is not None:
                with telemetry.span("billing/line", parent_traceparent=parent) as span:
                    span.set_attribute("tokengrid.bill", event.bill.number)
                    span.set_attribute("tokengrid.line", line.kind)
                    span.set_attribute("tokengrid.model", line.model)
                    span.set_attribute("tokengrid.calls", line.calls)
                    span.set_attribute("tokengrid.fen", line.fen)
