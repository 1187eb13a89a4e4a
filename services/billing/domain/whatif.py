"""What-if: an account's life replayed under another catalogue, and what a bill is made of then. Pure.

Folded from quota's events up to the bill's cut-off. It gives differences only: to what the bill was made of in fact
they are added. It must not know where events or inputs come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from services.billing.domain.metering import PLAN_GRANTS, microseconds
from services.billing.domain.overlay import Overlay, Priced
from services.billing.domain.plan_lines import Granted
from services.billing.domain.redrawing import Terms, Wallet, unpaid
from services.billing.domain.usage_lines import Used
from shared.clock import period_bounds
from shared.contracts import billing as b
from shared.contracts import quota as q
from shared.contracts import subscriptions as s
from shared.contracts.base import TOKEN_CLASSES, Event

SUMS = ("calls", *TOKEN_CLASSES, "amount", "charged")


class Begun(NamedTuple):
    """A period of a plan that began in the billed period, after so many months on the plan."""

    started: s.PlanPeriodStarted
    months: int


class InParts(NamedTuple):
    """A call that is charged in parts: when it began, and its tokens of input so far."""

    began_at: datetime
    given: int = 0


class Replay:
    """One account up to a cut-off. `begun`: its plan's periods of the billed period."""

    def __init__(self, operator: str, period: str, cut_off: int, overlay: Overlay, begun: Iterable[Begun]) -> None:
        self._operator, self._cut_off, self._overlay = operator, cut_off, overlay
        self._bounds = period_bounds(period)
        self._wallet = Wallet()
        self._held: dict[str, InParts] = {}
        self._reference: dict[str, str] = {}  # of debits that are under another rate card now
        self._added: dict[tuple[str, str], dict[str, int]] = {}
        self.months: dict[tuple[str, int], int] = {}
        self._periods: dict[str, Begun] = {}  # by the name of the grant
        for of in begun:
            started = of.started
            self.months[started.subscription, started.number] = of.months
            self._periods[started.grant] = of
            if not started.grant:
                self._put_points(of)

    def _put_points(self, of: Begun) -> None:
        """A period that brought no points, and does now."""
        started = of.started
        found = self._overlay.period_points(self._operator, started, of.months)
        if found is not None and found[0]:
            amount, plan = found
            terms = Terms(started.starts_at, started.ends_at, plan.scope, plan.priority)
            self._wallet.put(f"{PLAN_GRANTS}{started.subscription}/{started.number}", amount, amount, terms, 0)

    # -- folding ---------------------------------------------------------------------------------
    def apply(self, position: int, event: Event) -> None:
        """The next event of the account; what lies behind the cut-off does not count."""
        if position > self._cut_off:
            return
        match event:
            case q.TokensDebited():
                self._debit(event)
            case q.DebitReversed():
                self._reverse(event)
            case q.PointsReserved():
                if self._overlay.reprices(self._operator, event.model):
                    self._held[event.request_id] = InParts(event.at)
            case q.PointsGranted():
                self._grant(position, event)
            case q.GrantVoided() | q.GrantExpired():
                self._wallet.end(event)

    def _debit(self, event: q.TokensDebited) -> None:
        held = self._held.pop(event.reservation, None)
        began_at, given = held or InParts(event.at)
        if held is not None and not event.final:
            self._held[event.reservation] = InParts(began_at, given + event.usage.given)
        in_period = self._in_period(event.at)
        made = Priced(event.amount, event.rate_card)
        if in_period:
            made = self._overlay.priced(self._operator, event, began_at, given)
        family = self._overlay.family(event.model, began_at)
        net = self._wallet.debit(event, made.amount, family, began_at)
        if made.rate_card != event.rate_card:
            self._reference[event.request_id] = made.rate_card
        if in_period:
            usage = {"calls": int(event.final)} | {name: getattr(event.usage, name) for name in TOKEN_CLASSES}
            before = usage | {"amount": event.amount, "charged": unpaid(event)}
            self._count(event.model, event.rate_card, before, -1)
            self._count(event.model, made.rate_card, usage | net._asdict(), 1)

    def _reverse(self, event: q.DebitReversed) -> None:
        net = self._wallet.reverse(event)
        if self._in_period(event.at):
            self._count(event.model, event.rate_card, {"amount": -event.amount, "charged": -unpaid(event)}, -1)
            card = self._reference.get(event.debit, event.rate_card)
            self._count(event.model, card, {"amount": -net.amount, "charged": -net.charged}, 1)

    def _grant(self, position: int, event: q.PointsGranted) -> None:
        amount, scope, priority = event.amount, event.scope, event.priority
        of = self._periods.get(event.request_id)
        if of is not None:
            found = self._overlay.period_points(self._operator, of.started, of.months)
            if found is not None:
                amount, plan = found
                scope, priority = plan.scope, plan.priority
        elif not event.subscription and self._in_period(event.at):
            about = (event.source, event.amount, event.price_fen, event.plan, event.plan_version)
            amount = self._overlay.granted(self._operator, Granted(microseconds(event.at), position, *about)).amount
        self._wallet.grant(event, position, amount, scope, priority)

    def _in_period(self, at: datetime) -> bool:
        return self._bounds[0] <= at < self._bounds[1]

    def _count(self, model: str, rate_card: str, sums: dict[str, int], sign: int) -> None:
        into = self._added.setdefault((model, rate_card), dict.fromkeys(SUMS, 0))
        for name, value in sums.items():
            into[name] += sign * value

    # -- what came of it -------------------------------------------------------------------------
    def usage(self, usage: Iterable[Used]) -> list[Used]:
        """The period's usage as it would have been. A rate card under which nothing is left has none."""
        found = {(used.model, used.rate_card): used for used in usage}
        for key, added in self._added.items():
            if any(added.values()):
                found[key] = _plus(found.get(key), key, added)
                if not any((found[key].calls, found[key].usage.total, found[key].amount, found[key].charged)):
                    del found[key]
        return list(found.values())

    def left_over(self) -> dict[tuple[str, int], int]:
        """Of periods of plans, by subscription and number, how many millipoints more were left than in fact."""
        found = {}
        for grant, moved in self._wallet.left_over.items():
            if grant.startswith(PLAN_GRANTS) and grant.count("/") > 1:
                subscription, _, number = grant.removeprefix(PLAN_GRANTS).rpartition("/")
                if number.isdecimal():
                    found[subscription, int(number)] = moved
        return found


def _plus(used: Used | None, key: tuple[str, str], added: dict[str, int]) -> Used:
    tokens = {name: added[name] + (getattr(used.usage, name) if used else 0) for name in TOKEN_CLASSES}
    calls, amount, charged = (
        added[name] + (getattr(used, name) if used else 0) for name in ("calls", "amount", "charged")
    )
    return Used(*key, calls, b.TokenSums(**tokens), amount, charged)
