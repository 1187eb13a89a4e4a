"""An account's points as they would have been drawn, had its debits come to other amounts. Pure.

While nothing is different, every draw is the one that was made. From the first difference on, a debit takes what it
took, as far as it is still there, then what else there is in burn-down order, then credit. It must not know prices.
"""

from __future__ import annotations

from bisect import insort
from datetime import UTC, datetime
from typing import NamedTuple

from shared.contracts import quota as q
from shared.contracts.base import Scope

NEVER = datetime.max.replace(tzinfo=UTC)


class Lot:
    """A grant. `left`: millipoints that are there; `moved`: how many more than in fact were."""

    __slots__ = ("_ends_at", "_scope", "_starts_at", "ended", "left", "moved", "name", "order")

    def __init__(self, name: str, left: int, moved: int, terms: Terms, sequence: int) -> None:
        self.name, self.left, self.moved, self.ended = name, left, moved, False
        self._starts_at, self._ends_at, self._scope = terms.starts_at, terms.ends_at or NEVER, terms.scope
        self.order = (terms.priority, self._ends_at, sequence)

    def __lt__(self, other: Lot) -> bool:
        return self.order < other.order

    def over(self, at: datetime) -> bool:
        return self.ended or self._ends_at <= at

    def pays_for(self, model: str, family: str, at: datetime) -> bool:
        return (
            self.left > 0
            and not self.ended
            and self._starts_at <= at < self._ends_at
            and self._scope.covers(model, family)
        )

    def add(self, millipoints: int, in_fact: int) -> None:
        """So many come in, or go out; and how many in fact did."""
        self.left += millipoints
        self.moved += millipoints - in_fact


class Terms(NamedTuple):
    """When, for what and in which order a grant can be used."""

    starts_at: datetime
    ends_at: datetime | None
    scope: Scope
    priority: int


class Drawn:
    """A debit that was drawn otherwise, and what was given back of it: `back` in fact, `given` here."""

    __slots__ = ("amount", "back", "charged", "draws", "given", "in_fact")

    def __init__(self, in_fact: int, amount: int, draws: list[tuple[Lot, int]], charged: int) -> None:
        self.in_fact, self.amount, self.draws, self.charged = in_fact, amount, draws, charged
        self.back = self.given = 0


class Net(NamedTuple):
    """What a debit comes to or a reversal gives back, and the part of it that no grant paid for; millipoints."""

    amount: int
    charged: int


class Wallet:
    """An account's grants. `left_over`: of those that ended, how many millipoints more were left than in fact."""

    def __init__(self) -> None:
        self._lots: dict[str, Lot] = {}
        self._live: list[Lot] = []  # in burn-down order
        self._drawn: dict[str, Drawn] = {}
        self._regranted: dict[str, int] = {}  # by the grant that had ended
        self.left_over: dict[str, int] = {}

    def grant(self, event: q.PointsGranted, position: int, amount: int, scope: Scope, priority: int) -> None:
        """Points come in: `amount` of them, where the event may say another."""
        amount = self._regranted.pop(event.origin, amount)
        terms = Terms(event.effective_at, event.expires_at, scope, priority)
        self.put(event.request_id, amount, amount - event.amount, terms, position)

    def put(self, name: str, amount: int, moved: int, terms: Terms, position: int) -> None:
        lot = self._lots[name] = Lot(name, amount, moved, terms, position)
        insort(self._live, lot)

    def end(self, event: q.GrantVoided | q.GrantExpired) -> None:
        """What was left of a grant is gone; what is held of it may still be debited."""
        lot = self._lots.get(event.grant)
        if lot is None or lot.ended:
            return
        gone = min(lot.left, max(0, event.amount + lot.moved))
        if gone != event.amount:
            self.left_over[event.grant] = gone - event.amount
        lot.add(-gone, -event.amount)
        lot.ended = True
        self._live.remove(lot)

    def debit(self, event: q.TokensDebited, amount: int, family: str, began_at: datetime) -> Net:
        """A debit of `amount`, where the event may say another."""
        if amount == event.amount and not any(lot.moved for lot in self._live):
            for draw in event.draws:
                if draw.grant != q.CREDIT:
                    self._lots[draw.grant].left -= draw.amount
            return Net(amount, unpaid(event))
        draws: dict[str, int] = {}
        need = amount
        for draw in event.draws:
            if draw.grant != q.CREDIT:
                need -= self._take(self._lots[draw.grant], min(need, draw.amount), draws)
        for lot in self._live:
            if need and lot.pays_for(event.model, family, began_at):
                need -= self._take(lot, need, draws)
        for draw in event.draws:
            if draw.grant != q.CREDIT:
                self._lots[draw.grant].moved += draw.amount
        taken = [(self._lots[name], part) for name, part in draws.items()]
        self._drawn[event.request_id] = Drawn(event.amount, amount, taken, need)
        return Net(amount, need)

    @staticmethod
    def _take(lot: Lot, most: int, draws: dict[str, int]) -> int:
        part = min(most, lot.left)
        if part <= 0:
            return 0
        lot.add(-part, 0)
        draws[lot.name] = draws.get(lot.name, 0) + part
        return part

    def reverse(self, event: q.DebitReversed) -> Net:
        """Give back the same share of the debit as in fact, in reverse order of the draws."""
        drawn = self._drawn.get(event.debit)
        if drawn is None:
            self._give_in_fact(event, moved=False)
            return Net(event.amount, unpaid(event))
        drawn.back += event.amount
        due = drawn.back * drawn.amount // drawn.in_fact - drawn.given
        drawn.given += due
        of_charged = min(due, drawn.charged)
        drawn.charged -= of_charged
        rest = due - of_charged
        self._regranted = dict.fromkeys(event.regranted, 0)
        for n, (lot, part) in reversed(list(enumerate(drawn.draws))):
            back = min(rest, part)
            drawn.draws[n] = (lot, part - back)
            rest -= back
            if lot.name in event.regranted:
                self._regranted[lot.name] = back
            elif not lot.over(event.at):
                lot.add(back, 0)
        self._give_in_fact(event, moved=True)
        return Net(due, of_charged)

    def _give_in_fact(self, event: q.DebitReversed, *, moved: bool) -> None:
        for draw in event.draws:
            if draw.grant == q.CREDIT or draw.grant in event.regranted:
                continue
            if moved:
                self._lots[draw.grant].moved -= draw.amount
            else:
                self._lots[draw.grant].left += draw.amount


def unpaid(event: q.TokensDebited | q.DebitReversed) -> int:
    """Millipoints that no grant pays for, or had paid for: they stand against the credit limit, or are overdrawn."""
    return sum(draw.amount for draw in event.draws if draw.grant == q.CREDIT) + event.overdrawn
