"""The part of the writer's room that decides about subscriptions: their accounts' streams in memory for one batch.

It must not know how orders reach quota.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.inward import Advance, CloseOff, DropPeriod, Inward, SettlePeriod
from services.billing.domain.metering import microseconds
from services.billing.domain.plan_periods import Context
from services.billing.domain.subscribing import Elsewhere, decide
from services.billing.domain.subscription import Subscriptions
from services.billing.subscribed import STREAM
from shared.catalogue.copy import CatalogueCopy
from shared.config import Settings
from shared.contracts import subscriptions as s
from shared.contracts.base import Command, Event
from shared.errors import AccountClosed, MalformedCommand, UnknownAccount
from shared.eventstore.intake import occurred
from shared.eventstore.log import EventLog, NewEvent
from shared.eventstore.rows import of_each

INWARD = (Advance, SettlePeriod, DropPeriod, CloseOff)
Wanted = s.Subscribe | s.SubscriptionCommand | s.ResumeSubscription | Inward
STREAM_PAGE = 1000  # events of an account's subscriptions: a hundred years of one plan


class _Account(NamedTuple):
    """What is known of an account. `opened_us`: microseconds since 1970."""

    subscriber: str
    closed: bool
    opened_us: int


def is_about_subscriptions(command: Command) -> bool:
    """Whether a command is decided here."""
    return isinstance(command, Wanted)


class Subscribers:
    """Subscriptions of the accounts that a batch is about."""

    def __init__(self, log: EventLog, catalogue: CatalogueCopy, settings: Settings) -> None:
        self._log = log
        self._catalogue = catalogue
        self._settings = settings
        self.drop()

    def drop(self) -> None:
        """All is read anew for the next batch."""
        self._states: dict[str, Subscriptions] = {}
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._trials: dict[str, bool] = {}

    def prepare(self, connection: sa.Connection, commands: Iterable[Command]) -> None:
        """Bring into memory what these commands are about."""
        wanted = {(c.operator, c.account) for c in commands if is_about_subscriptions(c)}  # type: ignore[attr-defined]
        if not wanted:
            return
        streams = {stream_of(*who): 0 for who in wanted}
        found = self._log.streams(streams, STREAM_PAGE)
        for stream in streams:
            state = self._states[stream] = Subscriptions()
            events = found.get(stream, [])
            whole = events if len(events) < STREAM_PAGE else self._log.whole_stream(stream)
            for logged in whole:
                state.evolve(logged.version, logged.event)
        c = t.accounts.c
        for operator in {operator for operator, _ in wanted}:
            names = [account for of, account in wanted if of == operator]
            asked = sa.select(c.account, c.subscriber, c.closed > 0, c.opened_us).where(c.operator == operator)
            for account, *about in connection.execute(of_each(connection, c.account, names, asked)):
                self._accounts[operator, account] = _Account(*about)

    def decide(self, command: Wanted, fingerprint: str, now: datetime) -> list[NewEvent]:
        who = (command.operator, command.account)
        stream = stream_of(*who)
        state = self._states[stream]
        account = self._accounts.get(who)
        at, ahead_to = now, now + timedelta(seconds=self._settings.subscribe_ahead_s)
        if isinstance(command, INWARD):
            if isinstance(command, Advance):
                ahead_to = command.until
        else:
            at = occurred(command.occurred_at, now, self._settings)
            if account is None:
                raise UnknownAccount(f"no account {'/'.join(who)}", {"operator": who[0], "account": who[1]})
            if isinstance(command, s.Subscribe):
                _refuse_unless_open(command, account, at)
        context = Context(
            at=at,
            now=now,
            ahead_to=ahead_to,
            operator=command.operator,
            account=command.account,
            subscriber=account.subscriber if account is not None else "",
            catalogue=self._catalogue.view,
            trial_taken=self._trial_taken,
            fingerprint=fingerprint,
        )
        made: list[NewEvent] = []
        version = state.version
        for event in decide(command, state, context):
            if isinstance(event, Elsewhere):
                made.append(NewEvent(event.stream, 1, event.event))
            else:
                version += 1
                made.append(NewEvent(stream, version, event))
        return made

    def next_us(self, command: Wanted) -> dict[str, int | None]:
        """Of each of the account's subscriptions, when its next period begins, in microseconds since 1970."""
        state = self._states[stream_of(command.operator, command.account)]
        starts = {name: each.next_start() for name, each in state.by_name.items()}
        return {name: None if start is None else microseconds(start) for name, start in starts.items()}

    def evolve(self, stream: str, version: int, event: Event) -> None:
        """Fold one event of what is in memory."""
        if isinstance(event, s.TrialTaken):
            self._trials[stream] = True
        state = self._states.get(stream)
        if state is not None and version == state.version + 1:
            state.evolve(version, event)

    def _trial_taken(self, stream: str) -> bool:
        if stream not in self._trials:
            self._trials[stream] = bool(self._log.stream(stream, limit=1))
        return self._trials[stream]


def _refuse_unless_open(command: s.Subscribe, account: _Account, at: datetime) -> None:
    if account.closed:
        raise AccountClosed(f"account {command.operator}/{command.account} is closed")
    if microseconds(command.starts_at or at) < account.opened_us:  # its months before that have no bill
        field, complaint = "occurred_at" if command.starts_at is None else "starts_at", "the account was opened later"
        raise MalformedCommand(f"{field}: {complaint}", {"fields": {field: [complaint]}})


def stream_of(operator: str, account: str) -> str:
    """Where the events of an account's subscriptions are."""
    return f"{STREAM}{operator}/{account}"
