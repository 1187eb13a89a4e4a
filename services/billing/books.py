"""The writer's room: decides what bills and statements come to be, and has decided what happens to them.

State is read from the read model in one snapshot, after billing's own log was folded into it; so a
process that starts, or that lost a race, knows what the log knows. It must not know nameko.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.billing import reading
from services.billing.cutoff import check_ended
from services.billing.readmodel import BooksProjection, operator_of
from services.billing.receivables import OfBill, Receivables
from services.billing.runs import BillRun, Progress, StatementRun, load_bill_run, load_statement_run, trace_lines
from services.billing.subscribers import Subscribers, is_about_subscriptions
from shared import telemetry
from shared.catalogue.copy import CatalogueCopy
from shared.clock import Clock
from shared.config import Settings
from shared.contracts import billing as b
from shared.contracts.base import Command, Event
from shared.errors import Conflict, TokengridError
from shared.eventstore.batch import Stored
from shared.eventstore.intake import occurred
from shared.eventstore.log import EventLog, LoggedEvent, NewEvent
from shared.eventstore.projection import Projector
from shared.eventstore.writer import receipt

CLOSES_REMEMBERED = 100  # some ninety operator-provinces close at the same time
OWN_PAGE = 500  # events of billing's own log folded in one transaction
UNANSWERED_MAX = 10_000  # more than commit at a time without a request key; what failed is never answered


class Books:
    """`Room` of billing's writer; for each batch, `prepare` reads all that `decide` needs."""

    def __init__(
        self, engine: sa.Engine, log: EventLog, catalogue: CatalogueCopy, settings: Settings, clock: Clock
    ) -> None:
        self.engine = engine
        self.log = log
        self.catalogue = catalogue
        self.settings = settings
        self.clock = clock
        self.projector = Projector(engine, BooksProjection())
        self.receivables = Receivables(settings)
        self._progress: dict[Close, Progress] = {}
        self._issued: list[LoggedEvent] = []  # stored by ourselves, and perhaps not folded yet
        self._logs = settings.logs("quota")
        self.subscribers = Subscribers(log, catalogue, settings)
        # By a command's id, what its answer is made of: the next batch is prepared before this one is answered.
        self._unanswered: dict[int, BillRun | StatementRun | dict[str, int | None]] = {}
        self._drop()

    def catch_up(self) -> int:
        """Fold billing's own log into the read model; the position reached."""
        while True:
            position = self.projector.position()
            page = self._behind(position)
            if not page:
                return position
            try:
                self.projector.apply(page)
            except Conflict:
                continue  # another replica folded it; read on from where it got to

    def _behind(self, position: int) -> Sequence[LoggedEvent]:
        """A page of our own log. The bills that we issued last need not be read back."""
        issued, self._issued = self._issued, []
        if issued and issued[0].position == position + 1:
            return issued
        return self.log.read(position, OWN_PAGE)

    # --- the writer's protocol -------------------------------------------------------------------
    def prepare(self, commands: Sequence[Command]) -> None:
        self.catch_up()
        self._drop()
        with reading.snapshot(self.engine) as connection:
            self.subscribers.prepare(connection, commands)
            for command in commands:
                if isinstance(command, OfBill | b.GrantCredit):
                    self.receivables.load(connection, command)
                elif isinstance(command, b.IssueBills | b.SettlePeriod) and command not in self._runs:
                    self._runs[command] = self._load_run(connection, command)

    def key(self, command: Command) -> str | None:
        if isinstance(command, OfBill):
            return f"{command.number}/{command.request_id}"
        if isinstance(command, b.AccountCommand):
            return f"account:{command.operator}/{command.account}/{command.request_id}"
        return None  # bills and statements bring keys of their own

    def decide(self, command: Command, fingerprint: str) -> list[NewEvent]:
        now = self.clock()
        if is_about_subscriptions(command):
            made = self.subscribers.decide(command, fingerprint, now)  # type: ignore[arg-type] # the test says so
            if self.key(command) is None:
                self._keep(command, self.subscribers.next_us(command))  # type: ignore[arg-type] # likewise
            return made
        match command:
            case b.IssueBills() | b.SettlePeriod():
                made = self._run(command, now)
                self._keep(command, self._runs[command])
                return made
            case b.Pay() | b.Credit() | b.Void() | b.GrantCredit():
                return self.receivables.decide(command, fingerprint, now)
            case _:
                raise TypeError(f"not a command of billing: {command!r}")

    def evolve(self, stream: str, version: int, event: Event) -> None:
        self.subscribers.evolve(stream, version, event)
        self.receivables.evolve(stream, version, event)

    def forget(self, streams: set[str]) -> None:  # noqa: ARG002 - all is read anew for the next attempt
        self._drop()

    def answer(self, command: Command, events: Sequence[Stored], replayed: bool) -> dict[str, Any]:
        run = self._unanswered.pop(id(command)) if self.key(command) is None else None
        if isinstance(run, dict) and not events:
            return {"next_us": run}
        if run is None or isinstance(run, dict):
            return receipt(events, replayed)
        answer = {
            "period": run.command.period,
            "quota_position": run.command.quota_position if isinstance(run, BillRun) else sum(run.cut_offs),
            "issued": len(events),
            "remaining": run.remaining,
            "position": events[-1].position if events else self.projector.position(),
        }
        names = [event.stream.partition(":")[2] for event in events]
        if isinstance(run, StatementRun):
            pairs = [name.rpartition("/")[0] for name in names]
            return answer | {"statements": pairs, "quota_positions": list(run.cut_offs)}
        if events:
            self._remember(run)
            self._issued = [event.logged() for event in events if isinstance(event, NewEvent)]
            if telemetry.active():
                trace_lines(events, run)
        numbers = [names[0], names[-1]] if names else []
        return answer | {"operator": run.command.operator, "numbers": numbers, "quota_log": run.log}

    def _keep(self, command: Command, run: BillRun | StatementRun | dict[str, int | None] | TokengridError) -> None:
        """For its answer."""
        assert not isinstance(run, TokengridError), "a refusal is raised"
        self._unanswered[id(command)] = run
        if len(self._unanswered) > UNANSWERED_MAX:
            del self._unanswered[next(iter(self._unanswered))]

    def _drop(self) -> None:
        self._runs: dict[Command, BillRun | StatementRun | TokengridError] = {}
        self.subscribers.drop()
        self.receivables.drop()

    # --- the month's close -------------------------------------------------------------------------
    def _load_run(self, connection: sa.Connection, command: Command) -> BillRun | StatementRun | TokengridError:
        """A refusal is kept for `decide`: it must not fail the commands that share the commit."""
        assert isinstance(command, b.IssueBills | b.SettlePeriod)
        try:
            check_ended(command.period, occurred(command.occurred_at, self.clock(), self.settings))
            if isinstance(command, b.SettlePeriod):
                return load_statement_run(connection, command, self._logs)
            progress = self._progress.get(_close(command))
            return load_bill_run(connection, command, self._logs, self.catalogue.view, progress)
        except TokengridError as refusal:
            return refusal

    def _run(self, command: b.IssueBills | b.SettlePeriod, now: datetime) -> list[NewEvent]:
        run = self._runs[command]
        if isinstance(run, TokengridError):
            raise run
        # Of two runs over the same accounts or pairs in one commit, the first goes ahead: the other was loaded
        # from the same state and would issue the same again. Its caller repeats it, as `remaining` says.
        rivals = [other for other in self._runs.values() if not isinstance(other, TokengridError) and other.issued]
        if any(_scope(rival.command) == _scope(command) for rival in rivals):
            return []
        if isinstance(run, BillRun) and self._reopened(run):
            return []
        return run.events(self.catalogue.view, occurred(command.occurred_at, now, self.settings), now)

    def _reopened(self, run: BillRun) -> bool:
        """Whether a bill of the operator became void in this commit, of which the run was loaded too early to know.
        It waits for the next: between what a bill knows of our own log and the bill no other stands or falls."""
        voided = [number for number in self.receivables.voided if operator_of(number) == run.command.operator]
        close = f"{run.command.operator}-{run.command.period}-"
        run.reopened = sum(number.startswith(close) for number in voided)
        return bool(voided)

    def _remember(self, run: BillRun) -> None:
        close = _close(run.command)
        self._progress.pop(close, None)
        self._progress[close] = run.progress
        if len(self._progress) > CLOSES_REMEMBERED:
            del self._progress[next(iter(self._progress))]


Close = tuple[str, str, int, int]


def _close(command: b.IssueBills) -> Close:
    return command.operator, command.period, command.quota_shard, command.quota_position


def _scope(command: b.IssueBills | b.SettlePeriod) -> str:
    """What two runs would collide over: an operator's numbers, or the statements."""
    return command.operator if isinstance(command, b.IssueBills) else ""
