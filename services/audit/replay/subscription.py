"""One subscription as the auditor folds it: its periods, and where and on which plan the next one begins. Pure.

Only what its own events say. It must not know plans' terms, quota or money.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import NamedTuple

from services.audit.replay.calendar import day_of, instant
from services.audit.replay.prices import Raw


class Noted(NamedTuple):
    """Something that became of a period. `position`: in billing's log; `at`: when it took effect; `number`: days left
    or points unused, as the case may be."""

    position: int
    at: datetime
    recorded_at: datetime
    number: int = 0


class Turn(NamedTuple):
    """Something that was asked for `at` and takes effect later or at once. `begins_at`: of the subscription, then."""

    position: int
    at: datetime
    effective_at: datetime
    at_once: bool
    begins_at: datetime


class Period:
    """A period as it was recorded, and what became of it. `ends_at` is what was paid for, `over_at` where it ended."""

    __slots__ = (
        "allowance",
        "cancelled",
        "credited",
        "cut",
        "discount_percent",
        "ends_at",
        "fee_fen",
        "grant",
        "number",
        "part_days",
        "phase",
        "plan",
        "plan_version",
        "position",
        "price_fen",
        "priority",
        "recorded_at",
        "rolled",
        "rollover_max",
        "scope",
        "source",
        "starts_at",
        "subscription",
        "whole_days",
    )

    def __init__(self, position: int, event: Raw) -> None:
        self.position = position
        self.recorded_at = instant(event["recorded_at"])
        self.subscription: str = event["subscription"]
        self.number: int = event["number"]
        self.plan: str = event["plan"]
        self.plan_version: int = event["plan_version"]
        self.source: str = event.get("source", "plan")
        self.phase: int = event.get("phase", 0)
        self.starts_at = instant(event["starts_at"])
        self.ends_at = instant(event["ends_at"])
        self.part_days: int = event["part_days"]
        self.whole_days: int = event["whole_days"]
        self.fee_fen: int = event.get("fee_fen", 0)
        self.discount_percent: int = event.get("discount_percent", 0)
        self.price_fen: int = event.get("price_fen", 0)
        self.allowance: int = event.get("allowance", 0)
        self.grant: str = event.get("grant", "")
        self.scope: Raw = event.get("scope", {})
        self.priority: int = event.get("priority", 50)
        self.rollover_max: int = event.get("rollover_max", 0)
        self.cancelled: Noted | None = None
        self.cut: Noted | None = None
        self.credited: Noted | None = None
        self.rolled: Noted | None = None

    @property
    def over_at(self) -> datetime:
        return self.ends_at if self.cut is None else self.cut.at

    def runs(self, at: datetime, position: int) -> bool:
        """Whether it runs at an instant, as known at a position of billing's log."""
        if self.position > position or (self.cancelled is not None and self.cancelled.position <= position):
            return False
        over_at = self.cut.at if self.cut is not None and self.cut.position <= position else self.ends_at
        return self.starts_at <= at < over_at


class Subscription:
    """A plan that was taken. `plans`: from when on which; the last that has begun holds."""

    __slots__ = ("anchor", "begins_at", "ended_from", "name", "paused_from", "periods", "plans", "position", "turns")

    def __init__(self, position: int, event: Raw) -> None:
        self.name: str = event["subscription"]
        self.position = position
        self.begins_at = instant(event["starts_at"])
        self.anchor: date = day_of(self.begins_at)
        self.plans: list[tuple[datetime, str]] = [(self.begins_at, event["plan"])]
        self.paused_from: datetime | None = None
        self.ended_from: datetime | None = None
        self.periods: list[Period] = []  # all of them, by number
        self.turns: list[Turn] = []

    # -- questions --------------------------------------------------------------------------------
    def last(self) -> Period | None:
        """The latest period that takes place."""
        return next((p for p in reversed(self.periods) if p.cancelled is None), None)

    def period(self, number: int) -> Period | None:
        """The period of a number."""
        return next((p for p in reversed(self.periods) if p.number == number), None)

    def following(self, period: Period) -> Period | None:
        """The period that begins where this one ends."""
        standing = (p for p in self.periods if p.cancelled is None and p is not period)
        return next((p for p in standing if p.starts_at == period.ends_at), None)

    def next_start(self) -> datetime | None:
        """Where the next period must begin; None: there is none."""
        last = self.last()
        start = self.begins_at if last is None else max(self.begins_at, last.over_at)
        if any(bound is not None and bound <= start for bound in (self.ended_from, self.paused_from)):
            return None
        if last is not None and last.source == "trial" and self.plan_from(start) == last.plan:
            return None  # a trial is one period
        return start

    def plan_from(self, start: datetime) -> str:
        """The plan of a period that begins there."""
        begun = [plan for at, plan in self.plans if at <= start]
        return begun[-1] if begun else self.plans[0][1]

    def before(self, plan: str) -> int:
        """How many periods of a plan the next one of it comes behind, without another's in between."""
        count = 0
        for period in reversed(self.periods):
            if period.cancelled is not None:
                continue
            if period.plan != plan:
                break
            count += 1
        return count

    def may_turn(self, turn: Turn) -> set[datetime]:
        """When it may take effect: at once, or where the period that was running ended; before there was one, at the
        beginning; for a period that quota refused, where that would have begun. What ends with its account may end
        where the next period was due, if that has not begun."""
        may = {turn.at, max(turn.at, turn.begins_at)}
        ends = [p.over_at for p in self.periods if p.cancelled is None and p.position < turn.position]
        due = max([turn.begins_at, *ends])
        if due < turn.at:
            may.add(due)
        for period in self.periods:
            cut = period.cut is not None and period.cut.position < turn.position
            ends_at = period.over_at if cut else period.ends_at
            if not turn.at_once and period.starts_at <= turn.at < ends_at:
                may.add(ends_at)
            if period.cancelled is not None:
                may.add(period.starts_at)
        return may

    # -- folding ----------------------------------------------------------------------------------
    def change(self, plan: str, effective_at: datetime) -> None:
        """What was asked for last holds, also in the place of what was to hold later."""
        self.plans = [(at, name) for at, name in self.plans if at < effective_at] + [(effective_at, plan)]

    def resume(self, effective_at: datetime) -> None:
        """A pause that had begun ends, and months count anew; one that had not is forgotten."""
        if self.paused_from is not None and self.paused_from <= effective_at:
            self.begins_at, self.anchor = effective_at, day_of(effective_at)
        self.paused_from = None
