"""Subscriptions as billing's log has them, and whether each event of theirs follows from those before it. Pure.

Periods are computed again: where they begin and end, on which terms of which plan's version. The catalogue must have
been read as far as these events refer to it. What quota made of them is judged in `orders`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from services.audit.replay import periods
from services.audit.replay.account import Account
from services.audit.replay.calendar import instant
from services.audit.replay.findings import Findings
from services.audit.replay.prices import Prices, Raw, Version
from services.audit.replay.subscription import Noted, Period, Subscription, Turn

OVERDUE = timedelta(days=1)  # by which what is due by itself may be late, at the last event that was read
DEFAULT_PRIORITY = 50  # of a plan that names none

Ordered = Callable[[str, Period, Raw | None], None]
"""Told of each period of an account, and of the event with which what was left of it rolled over."""


class Subscriptions:
    """All subscriptions, by `operator/account` and name. `accounts` has them in the order in which they were taken."""

    def __init__(self, prices: Prices, findings: Findings, ordered: Ordered) -> None:
        self.accounts: dict[str, dict[str, Subscription]] = {}
        self.trials: dict[str, Raw] = {}  # by stream: the trial's mark
        self._prices = prices
        self._findings = findings
        self._ordered = ordered
        self._handlers: dict[str, Callable[[int, str, Subscription, Raw], None]] = {
            "billing.SubscriptionChanged:1": self._changed,
            "billing.SubscriptionPaused:1": self._paused,
            "billing.SubscriptionResumed:1": self._resumed,
            "billing.SubscriptionEnded:1": self._ended,
            "billing.PlanPeriodStarted:1": self._period_started,
            "billing.PlanPeriodCancelled:1": self._period_cancelled,
            "billing.PlanPeriodCut:1": self._period_cut,
            "billing.PlanPeriodCredited:1": self._period_credited,
            "billing.PointsRolledOver:1": self._rolled_over,
        }
        self.topics = {*self._handlers, "billing.SubscriptionStarted:1", "billing.TrialTaken:1"}

    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:
        """Fold one event of a stream `subscriptions:…` or `trial:…`."""
        name = event["subscription"]
        if topic == "billing.TrialTaken:1":
            if stream in self.trials:
                self._wrong("trial is taken twice", position, stream, self.trials[stream]["subscription"], name)
            self.trials.setdefault(stream, event)
            return
        account = stream.partition(":")[2]
        taken = self.accounts.setdefault(account, {})
        if topic == "billing.SubscriptionStarted:1":
            if name in taken:
                self._wrong("subscription is taken twice", position, account, "once", name)
            taken[name] = Subscription(position, event)
            return
        subscription = taken.get(name)
        if subscription is None:
            self._wrong("event of no subscription", position, account, "SubscriptionStarted", name)
        else:
            self._handlers[topic](position, account, subscription, event)

    # -- what was asked for -------------------------------------------------------------------------
    def _changed(self, position: int, _account: str, s: Subscription, e: Raw) -> None:
        s.change(e["plan"], self._turned(position, s, e))

    def _paused(self, position: int, _account: str, s: Subscription, e: Raw) -> None:
        s.paused_from = self._turned(position, s, e)

    def _resumed(self, position: int, _account: str, s: Subscription, e: Raw) -> None:
        s.resume(self._turned(position, s, e))

    def _ended(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        if s.ended_from is not None:
            self._wrong("subscription is ended twice", position, account, s.ended_from.isoformat(), e["effective_at"])
        s.ended_from = self._turned(position, s, e)

    def _turned(self, position: int, s: Subscription, e: Raw) -> datetime:
        """When it takes effect."""
        effective_at = instant(e["effective_at"])
        s.turns.append(Turn(position, instant(e["at"]), effective_at, e.get("at_once", False), s.begins_at))
        return effective_at

    # -- periods ------------------------------------------------------------------------------------
    def _period_started(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        due, plan = s.next_start(), s.plan_from(instant(e["starts_at"]))
        number = s.periods[-1].number + 1 if s.periods else 1
        period = Period(position, e)
        if due is None or due != period.starts_at:
            found = due.isoformat() if due else "none: it is paused, or over"
            self._wrong("period begins where none does", position, account, found, e["starts_at"])
        found_terms = self._terms(position, account, s, plan, period)
        expected = {"number": number, "plan": plan, **found_terms}
        for field, value in expected.items():
            has = getattr(period, field)
            if has != value:
                self._wrong(f"{field} of the period is not what was computed", position, account, value, has)
        s.periods.append(period)
        self._ordered(account, period, None)

    def _terms(self, position: int, account: str, s: Subscription, plan: str, period: Period) -> Raw:
        """The fields of a period as its plan has them."""
        key = f"{account.partition('/')[0]}/{plan}"
        versions = self._prices.plans_known(key, period.starts_at, period.recorded_at)
        if not versions:
            self._wrong("plan of the period was not in force", position, account, "a published plan", plan)
            return {}
        version = next((v for v in versions if v.number == period.plan_version), versions[0])
        return {"plan_version": version.number, **self._terms_of(version, s, plan, period)}

    def _terms_of(self, version: Version, s: Subscription, plan: str, period: Period) -> Raw:
        item = version.item
        ends_at, part, whole = periods.bounds(item, s.anchor, period.starts_at)
        phase, fee_fen, allowance = periods.terms(item, s.before(plan))
        granted = periods.rounded(periods.share(allowance, part, whole))
        discount = item.get("discount_percent", 0)
        limited = granted and item.get("rollover", "none") == "limited"
        return {
            "source": periods.SOURCES.get(item["kind"], "plan"),
            "phase": phase,
            "ends_at": ends_at,
            "part_days": part,
            "whole_days": whole,
            "fee_fen": fee_fen,
            "discount_percent": discount,
            "price_fen": periods.price(fee_fen, part, whole, discount),
            "allowance": granted,
            "grant": f"plan/{s.name}/{period.number}" if granted else "",
            "scope": item.get("scope", {}),
            "priority": item.get("priority", DEFAULT_PRIORITY),
            "rollover_max": item.get("rollover_max", 0) if limited else 0,
        }

    def _period_cancelled(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        period = self._period(position, account, s, e)
        if period is None:
            return
        if period.cut is not None and not period.grant:
            self._wrong("period was cut before it was cancelled", position, account, "one of them", e["number"])
        if period.credited is not None:
            self._wrong("period was credited before it was cancelled", position, account, "one of them", e["number"])
        noted = Noted(position, instant(e["at"]), instant(e["recorded_at"]))
        if not period.grant and noted.recorded_at > period.starts_at:
            self._wrong(
                "period is cancelled after its beginning", position, account, period.starts_at, e["recorded_at"]
            )
        if noted.at != period.starts_at:
            self._wrong("period is cancelled for another instant", position, account, period.starts_at, e["at"])
        period.cancelled = noted

    def _period_cut(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        period = self._period(position, account, s, e)
        if period is None:
            return
        at = instant(e["at"])
        if period.cut is not None or not period.starts_at <= at < period.ends_at:
            self._wrong("period is cut while it does not run", position, account, _span(period), e["at"])
        if not any(turn.at_once and turn.effective_at == at for turn in s.turns):
            self._wrong("period is cut and nobody asked for it", position, account, "a change at once", e["at"])
        left = periods.days_left(at, period.ends_at)
        if e["left_days"] != left:
            self._wrong("left_days of the cut is not what was computed", position, account, left, e["left_days"])
        if e.get("grant", "") != period.grant:
            self._wrong("grant of the cut is another", position, account, period.grant, e.get("grant", ""))
        period.cut = Noted(position, at, instant(e["recorded_at"]), left)

    def _period_credited(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        period = self._period(position, account, s, e)
        if period is None:
            return
        if period.cut is None or period.credited is not None:
            what = "credit for a period that was not cut" if period.cut is None else "period is credited twice"
            self._wrong(what, position, account, "one credit for a cut", e["number"])
            return
        left, unused = period.cut.number, e["unused"]
        back = periods.given_back(period.price_fen, period.part_days, period.allowance, left, unused)
        for field, expected in {"left_days": left, "fen": periods.rounded(back)}.items():
            if e[field] != expected:
                self._wrong(f"{field} of the credit is not what was computed", position, account, expected, e[field])
        if instant(e["at"]) != period.cut.at:
            self._wrong("credit is not of its cut's instant", position, account, period.cut.at, e["at"])
        period.credited = Noted(position, instant(e["at"]), instant(e["recorded_at"]), unused)

    def _rolled_over(self, position: int, account: str, s: Subscription, e: Raw) -> None:
        period = self._period(position, account, s, e)
        if period is None:
            return
        if period.rolled is not None or period.cut is not None or not period.rollover_max:
            what = "points roll over twice" if period.rolled is not None else "points roll over that must not"
            self._wrong(what, position, account, "none", e["number"])
        following = s.following(period)
        amount = min(e["unused"], period.rollover_max) if following is not None else 0
        expected = {
            "amount": amount,
            "grant": f"plan/{s.name}/{period.number}/rollover" if amount else "",
            "starts_at": period.ends_at,
            "ends_at": following.ends_at if following is not None else period.ends_at,
        }
        found = {"grant": "", **e, "starts_at": instant(e["starts_at"]), "ends_at": instant(e["ends_at"])}
        for field, value in expected.items():
            if found[field] != value:
                self._wrong(f"{field} of what rolls over is not what was computed", position, account, value, e[field])
        period.rolled = Noted(position, instant(e["at"]), instant(e["recorded_at"]), e["unused"])
        if e.get("grant"):
            self._ordered(account, period, e)

    def _period(self, position: int, account: str, s: Subscription, e: Raw) -> Period | None:
        period = s.period(e["number"])
        if period is None or period.cancelled is not None:
            self._wrong("event of no period", position, account, "a period that takes place", f"{s.name}/{e['number']}")
            return None
        return period

    # -- at the end -----------------------------------------------------------------------------------
    def finish(self, latest: datetime, owners: Mapping[str, Account]) -> None:
        """What can only be said when everything is folded, up to an event recorded at `latest`. `owners`: quota's
        accounts."""
        trials: dict[str, str] = {}
        for account, taken in self.accounts.items():
            owner = owners.get(account)
            for s in taken.values():
                due = s.next_start()
                closed = owner is not None and owner.status == "closed"  # and gets no more points
                if due is not None and due < latest - OVERDUE and not closed:
                    self._wrong("period is missing", 0, account, due.isoformat(), f"{s.name}: none")
                for turn in s.turns:
                    self._check_turn(account, s, turn)
                for period in s.periods:
                    if period.source == "trial" and period.cancelled is None:
                        self._check_trial(account, s, period, owner, trials)

    def _check_turn(self, account: str, s: Subscription, turn: Turn) -> None:
        """What was asked for takes effect when it may, and ends the period that runs then if it holds at once."""
        at = turn.effective_at
        if turn.at_once and any(p.cancelled is None and p.starts_at < at < p.over_at for p in s.periods):
            self._wrong("period was not cut", turn.position, account, at.isoformat(), f"{s.name} goes on")
        may = s.may_turn(turn)
        if at not in may:
            expected = sorted(each.isoformat() for each in may)
            self._wrong("change takes effect at another time", turn.position, account, expected, at.isoformat())

    def _check_trial(
        self, account: str, s: Subscription, period: Period, owner: Account | None, trials: dict[str, str]
    ) -> None:
        """Each subscriber has one trial of a plan, and it is marked as taken."""
        operator, _, name = account.partition("/")
        subscriber = owner.opened[1].get("subscriber") if owner is not None and owner.opened else ""
        who = f"subscriber:{subscriber}" if subscriber else f"account:{name}"
        stream = f"trial:{operator}/{period.plan}/{who}"
        mark = self.trials.get(stream)
        if mark is None or (mark["account"], mark["subscription"]) != (name, s.name):
            self._wrong("trial is not marked as taken", period.position, account, stream, mark)
        if stream in trials:
            self._wrong("trial is taken twice", period.position, account, trials[stream], f"{account}: {s.name}")
        trials[stream] = f"{account}: {s.name}"

    def _wrong(self, what: str, position: int, account: str, expected: Any, found: Any) -> None:
        self._findings.add("bills", what, "billing", position, account, expected, found)


def _span(period: Period) -> str:
    return f"{period.starts_at.isoformat()} to {period.over_at.isoformat()}"
