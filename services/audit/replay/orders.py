"""What billing ordered from quota for subscriptions, and what quota did: each grant once and as ordered. Pure.

And what quota says was left of a period's points, on which credits and rollover rest. It must not know how periods come
about.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from services.audit.replay.account import PRIORITY, Account
from services.audit.replay.calendar import instant
from services.audit.replay.findings import Findings
from services.audit.replay.prices import Raw
from services.audit.replay.subscription import Noted, Period

ORDER_TIME = timedelta(minutes=1)  # between what billing records and what quota does, and the other way round
SETTLING_TIME = timedelta(days=1)  # by which a credit or rollover may be late, at the last event that was read
EXPIRED, VOIDED, GRANTED = "quota.GrantExpired:1", "quota.GrantVoided:1", "quota.PointsGranted:1"
DEFAULTS: Raw = {
    "price_fen": 0, "scope": {}, "priority": PRIORITY, "plan": "", "plan_version": 0, "subscription": "",
    "origin": "", "expires_at": None,
}  # fmt: skip


class Ended(NamedTuple):
    """What quota withdrew of a grant, or let expire."""

    recorded_at: datetime
    amount: int
    topic: str


class Order:
    """A grant that was ordered, and what quota did. `rolled`: the event, of points that roll over."""

    __slots__ = ("ended", "granted", "period", "recorded_at", "rolled")

    def __init__(self, period: Period, rolled: Raw | None) -> None:
        self.period = period
        self.rolled = rolled
        self.recorded_at = instant(rolled["recorded_at"]) if rolled else period.recorded_at
        self.granted = 0  # position in quota's log
        self.ended: list[Ended] = []

    def grant(self) -> Raw:
        """The grant as it must be."""
        p = self.period
        same = {"scope": p.scope, "plan": p.plan, "plan_version": p.plan_version, "subscription": p.subscription}
        if self.rolled is None:
            own = {"amount": p.allowance, "source": p.source, "price_fen": p.price_fen, "priority": p.priority}
            return {**DEFAULTS, **same, **own, "effective_at": p.starts_at, "expires_at": p.ends_at}
        rest = {"amount": self.rolled["amount"], "source": "rollover", "priority": max(0, p.priority - 1)}
        span = {name: instant(self.rolled[other]) for name, other in _SPAN.items()}
        return {**DEFAULTS, **same, **rest, **span}


_SPAN = {"effective_at": "starts_at", "expires_at": "ends_at"}


class Orders:
    """All orders, by account and the grant's name."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._accounts: dict[str, dict[str, Order]] = {}
        self._foreign: list[tuple[str, int, str, str]] = []

    def ordered(self, account: str, period: Period, rolled: Raw | None) -> None:
        """A period began, or points rolled over."""
        name = rolled["grant"] if rolled else period.grant
        if not name:
            return
        orders = self._accounts.setdefault(account, {})
        if name in orders:
            first = orders[name].period.position
            self._wrong("grant is ordered twice", "billing", period.position, account, f"only at {first}", name)
        orders[name] = Order(period, rolled)

    def heard(self, position: int, account: Account, topic: str, event: Raw, log: str = "quota") -> None:
        """Take one event of a log of quota."""
        if topic == GRANTED:
            if event.get("subscription"):
                self._granted(position, account.stream, event, log)
        elif topic in (VOIDED, EXPIRED):
            order = self._accounts.get(account.stream, {}).get(event["grant"])
            if order is not None:
                order.ended.append(Ended(instant(event["recorded_at"]), event["amount"], topic))

    def _granted(self, position: int, stream: str, event: Raw, log: str) -> None:
        name = event["request_id"]
        order = self._accounts.get(stream, {}).get(name)
        if order is None:
            self._foreign.append((log, position, stream, name))
            return
        if order.granted:
            self._wrong("ordered grant is made twice", log, position, stream, f"only at {order.granted}", name)
        order.granted = position
        found = {**DEFAULTS, **event, "effective_at": instant(event["effective_at"])}
        found["expires_at"] = instant(event["expires_at"]) if event.get("expires_at") else None
        for field, value in order.grant().items():
            if found[field] != value:
                self._wrong(f"{field} of the grant is not as ordered", log, position, stream, value, found[field])

    # -- at the end -----------------------------------------------------------------------------------
    def finish(self, latest: datetime, heads: Mapping[str, int], accounts: Mapping[str, Account]) -> None:
        """`latest`: when the last event was recorded that was read; `heads`: of quota's logs, before billing's was
        read. What quota did later may have been ordered later, and is not judged."""
        for log, position, stream, name in self._foreign:
            if position <= heads.get(log, 0):
                self._wrong("grant for a subscription that nobody ordered", log, position, stream, "an order", name)
        for stream, orders in self._accounts.items():
            account = accounts.get(stream)
            for name, order in orders.items():
                self._finish(stream, name, order, latest, account is not None and account.status == "closed")

    def _finish(self, stream: str, name: str, order: Order, latest: datetime, closed: bool) -> None:
        period, refused = order.period, order.rolled is not None and closed
        due = order.recorded_at < latest - ORDER_TIME and not refused
        if not order.granted and period.cancelled is None and due:
            self._wrong("ordered grant is not made", "billing", period.position, stream, name, "none")
        if order.rolled is not None:
            return
        if order.granted and period.cancelled is not None:
            self._check_cancelled(stream, name, order, period.cancelled, latest, closed)
        if period.cut is not None and period.cancelled is None:
            self._check_cut(stream, name, order, period.cut, latest, closed)
        elif period.rollover_max and period.cancelled is None:
            self._check_rolled(stream, name, order, latest)

    def _check_cancelled(
        self, stream: str, name: str, order: Order, cancelled: Noted, latest: datetime, closed: bool
    ) -> None:
        """Nothing is due for the period: its points are withdrawn, before it began or was cut."""
        if order.period.cut is not None:
            self._wrong("period was cut before it was cancelled", "billing", cancelled.position, stream, "one", name)
        if cancelled.recorded_at > order.period.starts_at:
            began = order.period.starts_at.isoformat()
            self._wrong("period is cancelled after its beginning", "billing", cancelled.position, stream, began, name)
        withdrawn = any(ended.topic == VOIDED for ended in order.ended)
        if not withdrawn and not closed and cancelled.recorded_at < latest - ORDER_TIME:
            what = "grant of a cancelled period is not withdrawn"
            self._wrong(what, "billing", cancelled.position, stream, "GrantVoided", name)

    def _check_cut(self, stream: str, name: str, order: Order, cut: Noted, latest: datetime, closed: bool) -> None:
        credited = order.period.credited
        if credited is None:
            if cut.recorded_at < latest - SETTLING_TIME:
                self._wrong("cut period is not credited", "billing", cut.position, stream, "a credit", name)
            return
        if any(ended.topic == VOIDED for ended in order.ended):
            self._check_unused(stream, name, credited, order.ended, VOIDED)
        elif credited.number or not closed:
            # Of a closed account nothing can be withdrawn any more.
            self._wrong("unused is not what quota says", "billing", credited.position, stream, "GrantVoided", name)

    def _check_rolled(self, stream: str, name: str, order: Order, latest: datetime) -> None:
        rolled, expired = order.period.rolled, [ended for ended in order.ended if ended.topic == EXPIRED]
        if rolled is not None:
            self._check_unused(stream, name, rolled, expired, EXPIRED)
        elif expired and expired[0].recorded_at < latest - SETTLING_TIME:
            self._wrong("rest of a period does not roll over", "billing", 0, stream, "PointsRolledOver", name)

    def _check_unused(self, stream: str, name: str, noted: Noted, ended: list[Ended], first: str) -> None:
        """The sum of what quota had said by then, which is at least one event of the kind `first`."""
        said: set[int] = set()
        total, begun = 0, False
        for each in ended:
            if begun and each.recorded_at >= noted.recorded_at - ORDER_TIME:
                said.add(total)
            if each.recorded_at > noted.recorded_at + ORDER_TIME:
                break
            total += each.amount
            begun = begun or each.topic == first
        else:
            if begun:
                said.add(total)
        if noted.number not in said:
            found = f"{noted.number} of {name}"
            self._wrong("unused is not what quota says", "billing", noted.position, stream, sorted(said), found)

    def _wrong(self, what: str, log: str, position: int, account: str, expected: Any, found: Any) -> None:
        self._findings.add("bills", what, log, position, account, expected, found)
