"""Subscriptions checked from the auditor's side: each period is what the rules give, and was granted as ordered.

It keeps its own state of every subscription from what was asked of it, and says of each period that was recorded
whether it is due, where it lies and what it costs. Pure.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from services.audit.replay.calendar import day_start, instant, period_and_day
from services.audit.replay.charges import Charged, Period, exact_credit, exact_fee
from services.audit.replay.prices import FOLLOWING_S, Prices, Raw, Version
from services.audit.replay.rating import rounded

Say = Callable[[str, int, str, Any, Any], None]  # what, position, account, expected, found


class Subscription:
    """What was asked of one subscription so far."""

    def __init__(self, event: Raw) -> None:
        self.plan = event["plan"]
        self.begins_at = instant(event["starts_at"])
        self.anchor = _day(self.begins_at)
        self.months = 0
        self.number = 0
        self.next: tuple[datetime, str] | None = None
        self.paused_from: datetime | None = None
        self.ended_from: datetime | None = None
        self.ends: list[tuple[int, datetime]] = []  # of periods that stand, by number

    @property
    def due(self) -> datetime:
        """When the next period begins, if one does."""
        return max(self.begins_at, self.ends[-1][1]) if self.ends else self.begins_at

    def asked(self, kind: str, event: Raw) -> None:
        """A change, pause, resumption or end."""
        at = instant(event["effective_at"])
        if kind == "SubscriptionChanged":
            self.next = (at, event["plan"])
        elif kind == "SubscriptionPaused":
            self.paused_from = at
        elif kind == "SubscriptionEnded":
            self.ended_from = at
        elif kind == "SubscriptionResumed":
            if self.paused_from is not None and self.paused_from <= at:
                self.begins_at, self.anchor = at, _day(at)
            self.paused_from = None

    def begin(self, event: Raw) -> None:
        """A period was begun."""
        starts_at = instant(event["starts_at"])
        if event["plan"] != self.plan:
            self.plan, self.months = event["plan"], 0
        if self.next is not None and self.next[0] <= starts_at:
            self.next = None
        self.months += 1
        self.number = event["number"]
        self.ends.append((event["number"], instant(event["ends_at"])))

    def take_back(self, number: int) -> None:
        """A period does not take place."""
        if any(of == number for of, _ in self.ends):
            self.ends = [each for each in self.ends if each[0] != number]
            self.months = max(0, self.months - 1)

    def cut(self, number: int, at: datetime) -> None:
        """A period ended early."""
        self.ends = [(of, at if of == number else end) for of, end in self.ends]


class AccountSubscriptions:
    """One account's, judged event by event."""

    def __init__(self, stream: str, say: Say) -> None:
        self.stream = stream
        self.charged = Charged()
        self._by_name: dict[str, Subscription] = {}
        self._say = say
        self._periods: list[tuple[int, Raw, Subscription, int]] = []  # with the months on its plan before it
        self._credits: list[tuple[int, Raw]] = []
        self._rollovers: list[tuple[int, Raw]] = []

    def apply(self, position: int, kind: str, event: Raw) -> None:
        """Fold one event and judge what needs neither catalogue nor quota."""
        self.charged.apply(position, kind, event)
        name = event["subscription"]
        if kind == "SubscriptionStarted":
            self._by_name[name] = Subscription(event)
            return
        subscription = self._by_name.get(name)
        if subscription is None:
            self._say("event of no subscription", position, self.stream, "a subscription", name)
        elif kind == "PlanPeriodStarted":
            self._begun(position, event, subscription)
        elif kind == "PlanPeriodCancelled":
            subscription.take_back(event["number"])
        elif kind == "PlanPeriodCut":
            subscription.cut(event["number"], instant(event["at"]))
        elif kind == "PlanPeriodCredited":
            self._credits.append((position, event))
        elif kind == "PointsRolledOver":
            self._rollovers.append((position, event))
        else:
            subscription.asked(kind, event)

    def _begun(self, position: int, event: Raw, subscription: Subscription) -> None:
        starts_at = instant(event["starts_at"])
        self._expect("period's number", position, subscription.number + 1, event["number"])
        self._expect("period's start", position, subscription.due, starts_at)
        for what, bound in (("is paused", subscription.paused_from), ("has ended", subscription.ended_from)):
            if bound is not None and starts_at >= bound:
                self._say(f"period of a subscription that {what}", position, self.stream, "none", starts_at)
        turned = subscription.next is not None and subscription.next[0] <= starts_at
        plan = subscription.next[1] if turned and subscription.next is not None else subscription.plan
        self._expect("period's plan", position, plan, event["plan"])
        months = subscription.months if event["plan"] == subscription.plan else 0
        anchor = subscription.anchor
        subscription.begin(event)
        self._periods.append((position, {**event, "_anchor": anchor}, subscription, months))

    def _expect(self, what: str, position: int, expected: Any, found: Any) -> None:
        if expected != found:
            self._say(f"{what} is not what was computed", position, self.stream, expected, found)

    # -- against the catalogue ------------------------------------------------------------------------
    def check_terms(self, operator: str, prices: Prices) -> None:
        """Each period's terms and bounds by the version of its plan that was in force at its start."""
        for position, event, _, months in self._periods:
            version = self._version(operator, event, prices)
            if version is None:
                self._say("period of no plan in force", position, self.stream, "a plan", event["plan"])
                continue
            self._expect("period's plan version", position, version.number, event["plan_version"])
            for what, expected, found in _unequal_terms(event, version.item, months):
                self._expect(f"period's {what}", position, expected, found)
        for position, event in self._credits:
            of = self._period_of(event)
            if of is not None:
                self._expect("credit", position, rounded(exact_credit(of.event, event)), event["fen"])

    def _period_of(self, event: Raw) -> Period | None:
        return self.charged.periods.get((event["subscription"], event["number"]))

    @staticmethod
    def _version(operator: str, event: Raw, prices: Prices) -> Version | None:
        """The one in force at the start; a newer one counts when it was known a minute before."""
        key, at = f"{operator}/{event['plan']}", instant(event["starts_at"])
        recorded_at = instant(event["recorded_at"])
        latest = prices.in_force("plan", key, at, known_at=recorded_at)
        before = prices.in_force("plan", key, at, known_at=recorded_at - timedelta(seconds=FOLLOWING_S))
        named = next((v for v in (latest, before) if v is not None and v.number == event["plan_version"]), None)
        return named or latest

    # -- against quota ----------------------------------------------------------------------------------
    def check_grants(
        self,
        granted: dict[str, list[tuple[int, Raw]]],
        ended: dict[str, dict[str, int]],
        settled_before: datetime,
        known_until: datetime,
    ) -> None:
        """What was ordered was granted, once and as ordered, and nothing else in a subscription's name.

        What was ordered after `settled_before` may still be on its way; what was granted after `known_until` may have
        been ordered since.
        """
        ordered: dict[str, tuple[int, Raw, Raw]] = {}
        for period in self.charged.periods.values():
            if period.event.get("grant"):
                expected = _grant_of(period.event)
                ordered[period.event["grant"]] = (period.position, period.event, expected)
                if not period.cancelled:
                    self._granted(period.position, period.event, expected, granted, settled_before)
        for position, event in self._rollovers:
            of = self._period_of(event)
            if of is None:
                continue
            following = self._following(event["subscription"], of, position)
            self._check_rollover(position, event, of.event, following is not None, ended)
            if event.get("grant"):
                expected = _rollover_of(event, of.event)
                ordered[event["grant"]] = (position, event, expected)
                # With a period that quota grants nothing for, what would have rolled into it is not granted either.
                if following is not None and not following.cancelled:
                    self._granted(position, event, expected, granted, settled_before)
        for position, event in self._credits:
            of = self._period_of(event)
            if of is not None and of.event.get("grant"):
                left = sum(ended.get(of.event["grant"], {}).values())
                self._expect("unused points", position, min(left, of.event.get("allowance", 0)), event["unused"])
        for name, grants in granted.items():
            if name not in ordered and instant(grants[0][1]["recorded_at"]) <= known_until:
                self._say("grant that no subscription ordered", grants[0][0], self.stream, "none", name)
            elif len(grants) > 1:
                self._say("grant of a subscription twice", grants[1][0], self.stream, "once", name)

    def _granted(
        self,
        position: int,
        event: Raw,
        expected: Raw,
        granted: dict[str, list[tuple[int, Raw]]],
        settled_before: datetime,
    ) -> None:
        found = granted.get(event["grant"])
        if not found:
            if instant(event["recorded_at"]) < settled_before:
                self._say("points of a period were not granted", position, self.stream, event["grant"], "none")
            return
        for field, value in expected.items():
            self._expect(f"granted {field}", found[0][0], value, _plain(found[0][1].get(field, _ABSENT.get(field))))

    def _following(self, name: str, period: Period, known: int) -> Period | None:
        """The period that follows another one, as known at a position."""
        for (subscription, _), other in self.charged.periods.items():
            gone = other.cancelled and other.cut is not None and other.cut[0] < known
            if subscription == name and other.starts_at == period.ends_at and other.position <= known and not gone:
                return other
        return None

    def _check_rollover(
        self, position: int, event: Raw, period: Raw, follows: bool, ended: dict[str, dict[str, int]]
    ) -> None:
        left = sum(ended.get(period.get("grant", ""), {}).values())
        self._expect("points left at the period's end", position, left, event["unused"])
        most = min(event["unused"], period.get("rollover_max", 0)) if follows else 0
        self._expect("points rolled over", position, most, event["amount"])


# --- what a period must be --------------------------------------------------------------------------
def _unequal_terms(event: Raw, plan: Raw, months: int) -> list[tuple[str, Any, Any]]:
    fee, allowance, phase = _phase(plan, months)
    kind = plan["kind"]
    first = _day(instant(event["starts_at"]))
    after, whole = _bounds(plan, event["_anchor"], first)
    part = (after - first).days
    granted = rounded(Fraction(allowance * part, whole))
    percent = plan.get("discount_percent", 0)
    expected = {
        "source": kind if kind in ("bundle", "trial") else "plan",
        "phase": phase,
        "ends_at": day_start(after.isoformat()),
        "part_days": part,
        "whole_days": whole,
        "fee_fen": fee,
        "discount_percent": percent,
        "allowance": granted,
        "scope": plan.get("scope", {}),
        "priority": plan.get("priority", 50),
        "rollover_max": plan.get("rollover_max", 0) if granted and plan.get("rollover") == "limited" else 0,
    }
    known = {**_ABSENT, **event}
    found = {name: known[name] for name in expected} | {"ends_at": instant(event["ends_at"])}
    price = rounded(exact_fee(known)) + rounded(-exact_fee(known) * known["discount_percent"] / 100)
    pairs = [(name, expected[name], found[name]) for name in expected] + [("price_fen", price, known["price_fen"])]
    return [each for each in pairs if each[1] != each[2]]


_ABSENT: Raw = {
    "source": "plan",
    "phase": 0,
    "fee_fen": 0,
    "discount_percent": 0,
    "price_fen": 0,
    "allowance": 0,
    "grant": "",
    "scope": {},
    "priority": 50,
    "rollover_max": 0,
}


def _phase(plan: Raw, months: int) -> tuple[int, int, int]:
    """Fee, allowance and number of the phase after so many months on the plan."""
    for number, phase in enumerate(plan.get("phases", ()), start=1):
        if months < phase["months"]:
            return phase.get("fee_fen", 0), phase.get("allowance", 0), number
        months -= phase["months"]
    return plan.get("fee_fen", 0), plan.get("allowance", 0), 0


def _bounds(plan: Raw, anchor: date, first: date) -> tuple[date, int]:
    """The day after a period that begins on `first`, and the days of its whole cycle."""
    if plan["kind"] == "trial":
        days = plan["trial_days"]
        return first + timedelta(days=days), days
    if plan.get("cycle", "calendar") == "calendar":
        begin = first.replace(day=1)
        after = _months_on(begin, 1)
        return after, (after - begin).days
    turns = [_months_on(anchor, n) for n in range((first.year - anchor.year) * 12 + first.month - anchor.month + 2)]
    begin = max(turn for turn in turns if turn <= first)
    after = turns[turns.index(begin) + 1] if begin != turns[-1] else _months_on(anchor, len(turns))
    return after, (after - begin).days


def _months_on(day: date, months: int) -> date:
    month = day.month - 1 + months
    year, month = day.year + month // 12, month % 12 + 1
    return day.replace(year=year, month=month, day=min(day.day, monthrange(year, month)[1]))


def _day(at: datetime) -> date:
    return date.fromisoformat(period_and_day(at.isoformat())[1])


def _grant_of(started: Raw) -> Raw:
    known = {**_ABSENT, **started}
    return {
        "amount": known["allowance"],
        "source": known["source"],
        "price_fen": known["price_fen"],
        "scope": known["scope"],
        "effective_at": instant(known["starts_at"]),
        "expires_at": instant(known["ends_at"]),
        "plan": known["plan"],
        "plan_version": known["plan_version"],
        "subscription": known["subscription"],
    }


def _rollover_of(event: Raw, started: Raw) -> Raw:
    return _grant_of(started) | {
        "amount": event["amount"],
        "source": "rollover",
        "price_fen": 0,
        "effective_at": instant(event["starts_at"]),
        "expires_at": instant(event["ends_at"]),
    }


def _plain(value: Any) -> Any:
    """An instant where the text is one."""
    if isinstance(value, str) and value[4:5] == "-" and "T" in value:
        return instant(value)
    return value
