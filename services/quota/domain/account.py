"""An account's state, folded from its events. It knows nothing of commands, storage or time.

Every change to the books is made here, by `evolve`, from what an event says and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from shared.contracts import quota as q
from shared.contracts.base import Event

Status = Literal["open", "suspended", "closed"]
NEVER = datetime.max.replace(tzinfo=UTC)
LAPSED_MAX = 10_000  # expired reservations an account remembers, for settlements that come late


class Grant:
    """A lot of points and what became of it, in millipoints.

    `available`: what is neither held nor gone; kept, because every debit asks for it.
    """

    __slots__ = (
        "_ends_at",
        "_scope",
        "_starts_at",
        "available",
        "debited",
        "event",
        "expired",
        "name",
        "order",
        "reserved",
        "reversed",
        "void",
        "voided",
    )

    def __init__(self, event: q.PointsGranted, sequence: int) -> None:
        self.name = event.request_id
        self.event = event
        # The burn-down order: priority, then sooner expiry, then older grant.
        self.order = (event.priority, event.expires_at or NEVER, sequence)
        self._starts_at, self._ends_at = event.effective_at, event.expires_at or NEVER
        self._scope = event.scope if event.scope.models or event.scope.families else None
        self.reserved = self.debited = self.reversed = self.expired = self.voided = 0
        self.available = event.amount
        self.void = False

    def reserve(self, amount: int) -> None:
        self.reserved += amount
        self.available -= amount

    def debit(self, amount: int) -> None:
        self.debited += amount
        self.available -= amount

    def give_back(self, amount: int) -> None:
        self.reversed += amount
        self.available += amount

    def expire(self, amount: int) -> None:
        self.expired += amount
        self.available -= amount

    def withdraw(self, amount: int) -> None:
        """Void it: this much was left."""
        self.voided += amount
        self.available -= amount
        self.void = True

    def ended(self, at: datetime) -> bool:
        """Expired or voided: nothing may be drawn from it any more."""
        return self.void or self._ends_at <= at

    def pays_for(self, model: str, family: str, at: datetime) -> bool:
        """Whether it may be drawn from for a call to this model now."""
        return (
            self._starts_at <= at < self._ends_at
            and not self.void
            and (self._scope is None or self._scope.covers(model, family))
        )

    def __lt__(self, other: Grant) -> bool:
        return self.order < other.order


class Hold:
    """A reservation that has not ended and what it still holds, by grant. Expired, it holds nothing. `given`: tokens of
    input in the parts of its call that were charged."""

    __slots__ = ("event", "expired", "expires_at", "given", "remaining", "reserved_at")

    def __init__(self, event: q.PointsReserved) -> None:
        self.event = event
        self.reserved_at = event.at
        self.expires_at = event.expires_at
        self.remaining = {draw.grant: draw.amount for draw in event.draws}
        self.expired = False
        self.given = 0

    @property
    def amount(self) -> int:
        return sum(self.remaining.values())


class Account:
    """One subscriber's wallet at one operator."""

    __slots__ = (
        "_by_order",
        "credit_debited",
        "credit_limit",
        "credit_reserved",
        "grants",
        "holds",
        "lapsed",
        "opened",
        "overdrawn",
        "reversals",
        "status",
        "version",
    )

    def __init__(self) -> None:
        self.version = 0
        self.status: Status | None = None
        self.opened: q.AccountOpened | None = None
        self.grants: dict[str, Grant] = {}
        # Those from which something may still be drawn; a grant that is used up would only be walked past.
        self._by_order: list[Grant] = []
        self.holds: dict[str, Hold] = {}
        self.lapsed: dict[str, Hold] = {}  # expired and not settled yet, oldest first
        self.credit_limit = self.credit_reserved = self.credit_debited = 0
        self.overdrawn = 0
        # What was given back of a debit so far, by grant (overdrawn under ""); only debits that were reversed.
        self.reversals: dict[str, dict[str, int]] = {}

    @property
    def grants_left(self) -> int:
        """How many grants are not used up: each debit walks them."""
        return len(self._by_order)

    @property
    def balance(self) -> int:
        """What all grants together have left, held or not, expired or not."""
        return sum(g.available + g.reserved for g in self._by_order)

    @property
    def credit_left(self) -> int:
        return self.credit_limit - self.credit_debited - self.credit_reserved

    @property
    def burn_order(self) -> Sequence[Grant]:
        """The grants that are not used up, in the order in which they burn down."""
        return self._by_order

    def available(self, model: str, family: str, at: datetime) -> int:
        """What a call to this model could be charged now: grants, then credit, less what is owed."""
        grants = sum(g.available for g in self._by_order if g.pays_for(model, family, at))
        return grants + max(self.credit_left, 0) - self.overdrawn

    def available_in_all(self, at: datetime) -> int:
        """As `available`, over grants of any scope."""
        grants = sum(g.available for g in self._by_order if g.event.effective_at <= at and not g.ended(at))
        return grants + max(self.credit_left, 0) - self.overdrawn

    # -- folding ------------------------------------------------------------------------------
    def evolve(self, version: int, event: Event) -> None:
        """Fold one event."""
        self.version = version
        match event:
            case q.TokensDebited():
                if event.reservation:
                    self._free(event.reservation, event.freed)
                self._debit(event.draws)
                self.overdrawn += event.overdrawn
                if event.reservation and event.final:
                    self._end(event.reservation)
                elif event.reservation and (hold := self.hold(event.reservation)) is not None:
                    hold.given += event.usage.given
            case q.PointsReserved():
                self.holds[event.request_id] = Hold(event)
                self._reserve(event.draws)
            case q.ReservationExtended():
                hold = self.holds[event.reservation]
                hold.expires_at = event.expires_at
                for draw in event.draws:
                    hold.remaining[draw.grant] = hold.remaining.get(draw.grant, 0) + draw.amount
                self._reserve(event.draws)
            case q.ReservationReleased():
                self._free(event.reservation, event.draws)
                self._end(event.reservation)
            case q.ReservationExpired():
                self._free(event.reservation, event.draws)
                self._lapse(event.reservation)
            case q.PointsGranted():
                grant = Grant(event, version)
                self.grants[grant.name] = grant
                insort(self._by_order, grant)
            case q.DebitReversed():
                self._reverse(event)
            case q.GrantExpired():
                grant = self.grants[event.grant]
                grant.expire(event.amount)
                self._drop_if_used_up(grant)
            case q.GrantVoided():
                grant = self.grants[event.grant]
                grant.withdraw(event.amount)
                self._drop_if_used_up(grant)
            case q.AccountOpened():
                self.opened, self.status, self.credit_limit = event, "open", event.credit_limit
            case q.CreditLimitSet():
                self.credit_limit = event.credit_limit
            case q.AccountSuspended():
                self.status = "suspended"
            case q.AccountResumed():
                self.status = "open"
            case q.AccountClosed():
                self.status = "closed"
            case _:
                raise TypeError(f"not an event of an account: {type(event).__name__}")

    def hold(self, reservation: str) -> Hold | None:
        """A reservation that has not ended: live, or expired and not settled yet."""
        return self.holds.get(reservation) or self.lapsed.get(reservation)

    def _end(self, reservation: str) -> None:
        if self.holds.pop(reservation, None) is None:
            self.lapsed.pop(reservation, None)

    def _lapse(self, reservation: str) -> None:
        hold = self.lapsed[reservation] = self.holds.pop(reservation)
        hold.expired = True
        if len(self.lapsed) > LAPSED_MAX:
            del self.lapsed[next(iter(self.lapsed))]

    def _drop_if_used_up(self, grant: Grant) -> None:
        if not grant.reserved and not grant.available:
            at = bisect_left(self._by_order, grant)
            if at < len(self._by_order) and self._by_order[at] is grant:
                del self._by_order[at]

    def _reserve(self, draws: Iterable[q.Draw]) -> None:
        for draw in draws:
            if draw.grant == q.CREDIT:
                self.credit_reserved += draw.amount
            else:
                self.grants[draw.grant].reserve(draw.amount)

    def _free(self, reservation: str, draws: Iterable[q.Draw]) -> None:
        hold = self.hold(reservation)
        for draw in draws:
            if hold is not None:
                hold.remaining[draw.grant] -= draw.amount
            if draw.grant == q.CREDIT:
                self.credit_reserved -= draw.amount
            else:
                self.grants[draw.grant].reserve(-draw.amount)

    def _debit(self, draws: Iterable[q.Draw]) -> None:
        for draw in draws:
            if draw.grant == q.CREDIT:
                self.credit_debited += draw.amount
            else:
                drawn = self.grants[draw.grant]
                drawn.debit(draw.amount)
                if not drawn.available:
                    self._drop_if_used_up(drawn)

    def _reverse(self, event: q.DebitReversed) -> None:
        given = self.reversals.setdefault(event.debit, {})
        for draw in event.draws:
            given[draw.grant] = given.get(draw.grant, 0) + draw.amount
            if draw.grant == q.CREDIT:
                self.credit_debited -= draw.amount
            elif draw.grant not in event.regranted:
                back = self.grants[draw.grant]
                if not back.reserved and not back.available:
                    insort(self._by_order, back)
                back.give_back(draw.amount)
        given[""] = given.get("", 0) + event.overdrawn
        self.overdrawn -= event.overdrawn
