"""A subscription's state, folded from its events. It knows nothing of commands, the catalogue, storage or time.

All of an account's subscriptions are one stream, so that what one of them rules out for another is judged on both.
"""

from __future__ import annotations

import copy
from datetime import date, datetime
from typing import Literal, NamedTuple

from services.billing.domain.cycle import day_in_shanghai
from shared.contracts import subscriptions as s
from shared.contracts.base import Event

Status = Literal["waiting", "active", "paused", "ended"]
PERIODS_KEPT = 6  # the latest: half a year in which quota may answer for them
UNSETTLED_KEPT = 24  # periods whose points may still roll over: quota says when they have expired


Turn = tuple[datetime, str]  # from when on which plan


class Before(NamedTuple):
    """What a period changes of its subscription, as it was: it may not take place."""

    plan: str
    months: int
    turns: tuple[Turn, ...]


class Period:
    """A period of a plan and what became of it. `ends_at`: where it was cut, then."""

    __slots__ = ("before", "cancelled", "credited", "cut_days", "ends_at", "rolled_over", "started")

    def __init__(self, started: s.PlanPeriodStarted, before: Before) -> None:
        self.started = started
        self.before = before
        self.ends_at = started.ends_at
        self.cut_days: int | None = None
        self.cancelled = self.credited = self.rolled_over = False

    @property
    def number(self) -> int:
        return self.started.number

    @property
    def starts_at(self) -> datetime:
        return self.started.starts_at

    @property
    def unsettled(self) -> bool:
        """Whether quota has still to say what was left of its points."""
        if self.cut_days is not None:
            return not self.credited
        return bool(self.started.rollover_max) and not self.rolled_over


class Subscription:
    """One plan that was taken, and how it goes on."""

    def __init__(self, event: s.SubscriptionStarted) -> None:
        self.name = event.subscription
        self.plan = event.plan  # of the periods that begin next, until a turn
        self.begins_at = event.starts_at  # before it no further period begins
        self.anchor: date = day_in_shanghai(event.starts_at)
        self.months = 0  # periods begun on this plan: they tell the phase
        self.number = 0
        self.turns: list[Turn] = []  # still to come, in order
        self.paused_from: datetime | None = None
        self.ended_from: datetime | None = None
        self.periods: list[Period] = []  # the latest, cancelled ones left out

    # -- questions ------------------------------------------------------------------------------
    @property
    def last(self) -> Period | None:
        return self.periods[-1] if self.periods else None

    def period(self, number: int) -> Period | None:
        """One of the latest periods."""
        return next((p for p in self.periods if p.number == number), None)

    def running(self, at: datetime) -> Period | None:
        """The period that runs at an instant."""
        return next((p for p in reversed(self.periods) if p.starts_at <= at < p.ends_at), None)

    def ahead(self, at: datetime) -> list[Period]:
        """Periods that have been worked out and have not begun at an instant. One that was cut is over: whoever cut
        it had a clock ahead of ours."""
        return [p for p in self.periods if p.starts_at > at and p.cut_days is None]

    def plan_from(self, at: datetime) -> str:
        """The plan of a period that begins at `at`."""
        return next((plan for since, plan in reversed(self.turns) if since <= at), self.plan)

    def next_start(self) -> datetime | None:
        """When the next period begins; None if none does."""
        start = self.begins_at if self.last is None else max(self.begins_at, self.last.ends_at)
        if self.ended_from is not None and start >= self.ended_from:
            return None
        if self.paused_from is not None and start >= self.paused_from:
            return None
        # A trial is one period, whatever comes after it is another plan.
        if self.last is not None and self.last.started.source == "trial" and self.plan_from(start) == self.plan:
            return None
        return start

    def status(self, at: datetime) -> Status:
        """How it stands at an instant."""
        if self.ended_from is not None and self.ended_from <= at:
            return "ended"
        if self.running(at) is not None:
            return "active"
        start = self.next_start()
        if start is not None:
            return "waiting" if start > at else "active"
        return "paused" if self.paused_from is not None else "ended"

    # -- folding --------------------------------------------------------------------------------
    def copy(self) -> Subscription:
        """The same, folded apart from here on."""
        made = copy.copy(self)
        made.turns = list(self.turns)
        made.periods = [copy.copy(period) for period in self.periods]
        return made

    def evolve(self, event: Event) -> None:
        """Fold one event of this subscription."""
        match event:
            case s.PlanPeriodStarted():
                self._begin(event)
            case s.PlanPeriodCancelled():
                cancelled = self.period(event.number)
                if cancelled is not None:
                    cancelled.cancelled = True
                    self._take_back(cancelled)
            case s.PlanPeriodCut():
                cut = self._period(event.number)
                cut.ends_at, cut.cut_days = event.at, event.left_days
            case s.PlanPeriodCredited():
                self._period(event.number).credited = True
            case s.PointsRolledOver():
                self._period(event.number).rolled_over = True
            case s.SubscriptionChanged():
                # It replaces what was to hold later, never what is to hold before it.
                before = [turn for turn in self.turns if turn[0] < event.effective_at]
                self.turns = [*before, (event.effective_at, event.plan)]
            case s.SubscriptionPaused():
                self.paused_from = event.effective_at
            case s.SubscriptionResumed():
                if self.paused_from is not None and self.paused_from <= event.effective_at:
                    self.begins_at, self.anchor = event.effective_at, day_in_shanghai(event.effective_at)
                self.paused_from = None
            case s.SubscriptionEnded():
                self.ended_from = event.effective_at
            case _:
                raise TypeError(f"not an event of a subscription: {type(event).__name__}")

    def _begin(self, event: s.PlanPeriodStarted) -> None:
        over = tuple(turn for turn in self.turns if turn[0] <= event.starts_at)
        before = Before(self.plan, self.months, over)
        self.turns = self.turns[len(over) :]
        self._count(event.plan)
        self.number = event.number
        old = [p for p in self.periods[-UNSETTLED_KEPT:] if p.unsettled]
        kept = [p for p in old if p not in self.periods[1 - PERIODS_KEPT :]] + self.periods[1 - PERIODS_KEPT :]
        # Should all that are kept be cancelled, those that are not must not begin again.
        self.begins_at = max([self.begins_at, *(p.ends_at for p in self.periods if p not in kept)])
        self.periods = [*kept, Period(event, before)]

    def _take_back(self, period: Period) -> None:
        """As if it had never been: for the periods that follow it, else for what is still to come."""
        later = self.periods[self.periods.index(period) + 1 :]
        self.periods.remove(period)
        self.plan, self.months, turns = period.before
        if not later:  # as it was before, but for what was asked since
            since = min((at for at, _ in self.turns), default=None)
            self.turns[:0] = [turn for turn in turns if since is None or turn[0] < since]
        for each in later:
            each.before = Before(self.plan, self.months, turns + each.before.turns)
            turns = ()
            self._count(each.started.plan)

    def _count(self, plan: str) -> None:
        """A period more, of this plan."""
        if plan != self.plan:
            self.plan, self.months = plan, 0
        self.months += 1

    def _period(self, number: int) -> Period:
        found = self.period(number)
        assert found is not None, "events about a period follow it closely"
        return found


class Subscriptions:
    """All that an account has subscribed to, by name, in the order taken."""

    def __init__(self) -> None:
        self.version = 0
        self.by_name: dict[str, Subscription] = {}

    def evolve(self, version: int, event: Event) -> None:
        """Fold one event of the account's stream."""
        self.version = version
        if isinstance(event, s.SubscriptionStarted):
            self.by_name[event.subscription] = Subscription(event)
        else:
            self.by_name[event.subscription].evolve(event)  # type: ignore[attr-defined]

    def copy(self) -> Subscriptions:
        """To think a decision through on."""
        made = copy.copy(self)
        made.by_name = {name: each.copy() for name, each in self.by_name.items()}
        return made
