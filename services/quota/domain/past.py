"""What of an account's history had happened by an instant, by event time, however late it was recorded. Pure.

Events stand in the order in which they were recorded; a command may be dated back. So a plain cut by event time
could keep a debit and leave out what it was drawn from. The rule here never does:

- An event *builds on* those before it without which it could not be: the account's opening; of a reservation all
  that happened to it before; a reversal on its debit; what takes points from a grant (a hold, a debit, a void) on
  the events that these very points came from: the grant, a release, a reversal. Points have no names, so a rule
  gives them some: who takes points takes the ones that came last of those that were there by then; only when they
  do not suffice, those that came soonest after.
- An event **counts from** its own event time, or from that of the earliest event that builds on it, directly or
  not, if that is sooner. Expiries are the exception, as they only write down that a time is over: they make nothing
  count sooner, but count themselves once all they build on does.
- As of an instant the books are those events that count by then, folded in the order in which they were recorded.

In a history that was recorded in the order of its event times this is the plain cut. In any other it is a set of
events that never lacks what one of them builds on, so its books are sound: nothing negative, sums conserved. It
only grows with the instant, and at the end it is all of them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort
from collections.abc import Iterable
from datetime import datetime

from shared.contracts import quota as q
from shared.contracts.base import Event

Lot = tuple[datetime, int, int]  # points of a grant: when they came there, by which event, how many

NOTHING = -1  # the number of no event
EXPIRIES = (q.GrantExpired, q.ReservationExpired)


class History:
    """Which of an account's events count by `at`: give it all of them, in their order, then ask. Some 50 bytes of
    memory an event.
    """

    def __init__(self, at: datetime) -> None:
        self._at = at
        self._happened = bytearray()  # for each event whether its own time has come
        self._expiries = bytearray()
        self._builds_on = array("q")  # numbers of events, for one event after the other
        self._ends = array("q")  # where in it those of each event end
        self._opening = NOTHING
        self._grants: dict[str, int] = {}
        self._calls: dict[str, int] = {}  # reservation -> the last that happened to it
        self._debits: dict[str, int] = {}
        self._regranting: dict[str, int] = {}  # ended grant -> the last reversal that gave it back as a new one
        self._lots: dict[str, list[Lot]] = {}

    def add(self, event: Event) -> None:
        """The next event."""
        number = len(self._happened)
        self._happened.append(event.at <= self._at)
        self._expiries.append(isinstance(event, EXPIRIES))
        self._builds_on.extend(self._follow(number, event) - {number, NOTHING})
        self._ends.append(len(self._builds_on))

    def counted(self) -> bytearray:
        """For each event, in order, 1 if it counts and 0 if not."""
        happened, expiries = self._happened, self._expiries
        counted = bytearray(h and not e for h, e in zip(happened, expiries, strict=True))
        for number in reversed(range(len(counted))):
            if counted[number]:
                for earlier in self._under(number):
                    counted[earlier] = 1
        for number, expiry in enumerate(expiries):
            if expiry and happened[number] and not counted[number]:
                counted[number] = all(counted[earlier] for earlier in self._under(number))
        return counted

    def _under(self, number: int) -> Iterable[int]:
        return self._builds_on[self._ends[number - 1] if number else 0 : self._ends[number]]

    # -- what an event builds on ------------------------------------------------------------------
    def _follow(self, number: int, event: Event) -> set[int]:
        under = {self._opening}
        match event:
            case q.TokensDebited():
                if event.reservation:
                    under.add(self._next(event.reservation, number))
                    self._give(number, event.at, event.freed)
                self._take(number, event.at, event.draws, under)
                self._debits[event.request_id] = number
            case q.PointsReserved():
                self._calls[event.request_id] = number
                self._take(number, event.at, event.draws, under)
            case q.ReservationExtended():
                under.add(self._next(event.reservation, number))
                self._take(number, event.at, event.draws, under)
            case q.ReservationReleased() | q.ReservationExpired():
                under.add(self._next(event.reservation, number))
                self._give(number, event.at, event.draws)
            case q.PointsGranted():
                self._grants[event.request_id] = number
                under.add(self._regranting.get(event.origin, NOTHING))
                self._give(number, event.at, [q.Draw(event.request_id, event.amount)])
            case q.DebitReversed():
                under.add(self._debits.get(event.debit, NOTHING))
                self._give(number, event.at, [draw for draw in event.draws if draw.grant not in event.regranted])
                self._regranting.update(dict.fromkeys(event.regranted, number))
            case q.GrantExpired() | q.GrantVoided():
                under.add(self._grants.get(event.grant, NOTHING))
                self._take(number, event.at, [q.Draw(event.grant, event.amount)], under)
            case q.AccountOpened():
                self._opening = number
        return under

    def _next(self, reservation: str, number: int) -> int:
        """The last that happened to a reservation before this."""
        last = self._calls.get(reservation, NOTHING)
        self._calls[reservation] = number
        return last

    def _give(self, number: int, at: datetime, draws: Iterable[q.Draw]) -> None:
        for draw in draws:
            if draw.grant != q.CREDIT:
                insort(self._lots.setdefault(draw.grant, []), (at, number, draw.amount))

    def _take(self, number: int, at: datetime, draws: Iterable[q.Draw], under: set[int]) -> None:
        """Points that came last of those that were there by `at`, then those that came soonest after it."""
        for draw in draws:
            lots = self._lots.get(draw.grant, [])  # of the credit limit there are none: it is a bound, not points
            amount = draw.amount
            there = bisect_right(lots, (at, number), key=_came)
            while amount > 0 and lots:
                there -= there > 0
                came, giver, left = lots[there]
                under.add(giver)
                if left > amount:
                    lots[there] = (came, giver, left - amount)
                else:
                    del lots[there]
                amount -= left


def _came(lot: Lot) -> tuple[datetime, int]:
    return lot[:2]
