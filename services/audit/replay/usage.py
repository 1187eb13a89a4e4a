"""What bills and statements are made of, added up while the ledger is folded. Pure.

Only what the audited period's bills can carry is kept: per account a sum for each model, rate card, period
and section of the log between the cut-offs of that account's bills.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.audit.replay.account import Account
from services.audit.replay.calendar import period_and_day
from services.audit.replay.prices import CLASSES, Raw

CREDIT = "credit"


class Sums:
    """Usage of a model, in tokens by class and millipoints. `charged` is what no grant paid for; `events`: how many
    debits and reversals it is the sum of."""

    __slots__ = ("amount", "calls", "charged", "events", "tokens")

    def __init__(self) -> None:
        self.calls = self.amount = self.charged = self.events = 0
        self.tokens = [0, 0, 0, 0]

    def add(self, other: Sums) -> None:
        self.events += other.events
        self.calls += other.calls
        self.amount += other.amount
        self.charged += other.charged
        self.tokens = [a + b for a, b in zip(self.tokens, other.tokens, strict=True)]

    def debit(self, event: Raw) -> None:
        self.events += 1
        self.calls += event.get("final", True)
        self.amount += event["amount"]
        self.charged += _unpaid(event)
        used = event["usage"]
        for n, name in enumerate(CLASSES):
            if name in used:
                self.tokens[n] += used[name]

    def reverse(self, event: Raw) -> None:
        """What a debit was given back, points and no tokens."""
        self.events += 1
        self.amount -= event["amount"]
        self.charged -= _unpaid(event)


class Granted(NamedTuple):
    """A grant as a bill shows it. `section`: the first cut-off that includes it."""

    period: str
    section: int
    at: str
    position: int
    event: Raw


class Usage(NamedTuple):
    """Where usage is added up for a bill."""

    period: str
    section: int
    model: str
    rate_card: str


class Metered:
    """Sums per account for bills, and per pair of operators for statements."""

    def __init__(
        self, period: str, cut_offs: Mapping[str, Sequence[int]], settled: Mapping[tuple[str, str], Sequence[int]]
    ) -> None:
        """`cut_offs`: of each account's bills, ascending; `settled`: the cut-offs of each pair's statement, one for
        each log of quota."""
        self._period = period
        self._cut_offs = cut_offs
        self._settled = settled
        self.grants: dict[str, list[Granted]] = {}
        self.usage: dict[str, dict[Usage, Sums]] = {}
        self.wholesale: dict[tuple[str, str], dict[tuple[str, str], Sums]] = {}
        # Of a pair, by log of quota: its first debit in the period.
        self.pairs: dict[tuple[str, str], dict[int, int]] = {}

    def heard(self, position: int, account: Account, topic: str, event: Raw, shard: int = 0) -> None:
        """Take one event of the log of a shard of quota."""
        if topic == "quota.TokensDebited:1":
            self._debited(position, account, event, shard)
        elif topic == "quota.DebitReversed:1":
            row = self._row(position, account, event)
            if row is not None:
                row.reverse(event)
        elif topic == "quota.PointsGranted:1":
            section = self._section(position, account)
            period = period_and_day(event["at"])[0]
            if section and period <= self._period:
                granted = Granted(period, section, event["at"], position, event)
                self.grants.setdefault(account.stream, []).append(granted)

    # -- many debits at once ------------------------------------------------------------------------
    @property
    def billed(self) -> bool:
        """Whether any account has a bill: else no usage counts."""
        return bool(self._cut_offs)

    def section_of(self, stream: str, first: int, last: int) -> int | None:
        """The cut-off that includes these positions; 0: none does. None: it is not the same for all."""
        cut_offs = self._cut_offs.get(stream, ())
        n = bisect_left(cut_offs, first)
        if n != bisect_left(cut_offs, last):
            return None
        return cut_offs[n] if n < len(cut_offs) else 0

    def summed(self, stream: str, usage: Usage, numbers: Sequence[int]) -> None:
        """Take debits of an account that nobody else served: calls, millipoints, those that no grant paid for, and
        tokens by class."""
        if usage.period > self._period:
            return
        rows = self.usage.setdefault(stream, {})
        row = rows.get(usage)
        if row is None:
            row = rows[usage] = Sums()
        calls, amount, charged, *tokens = numbers
        row.calls += calls
        row.events += calls
        row.amount += amount
        row.charged += charged
        for n, count in enumerate(tokens):
            row.tokens[n] += count

    # -- one event ------------------------------------------------------------------------------------
    def _debited(self, position: int, account: Account, event: Raw, shard: int) -> None:
        row = self._row(position, account, event)
        if row is not None:
            row.debit(event)
        serving = event.get("serving_operator")
        if serving and serving != account.operator:
            period, day = period_and_day(event["at"])
            if period == self._period:
                pair = (account.operator, serving)
                self.pairs.setdefault(pair, {}).setdefault(shard, position)
                if position <= cut_off_at(self._settled.get(pair, ()), shard):
                    rows = self.wholesale.setdefault(pair, {})
                    rows.setdefault((event["model"], day), Sums()).debit(event)

    def _row(self, position: int, account: Account, event: Raw) -> Sums | None:
        section = self._section(position, account)
        period = period_and_day(event["at"])[0]
        if not section or period > self._period:
            return None
        rows = self.usage.setdefault(account.stream, {})
        key = Usage(period, section, event["model"], event["rate_card"])
        row = rows.get(key)
        if row is None:
            row = rows[key] = Sums()
        return row

    def _section(self, position: int, account: Account) -> int:
        """The first cut-off of the account's bills that includes this position; 0: no bill does."""
        cut_offs = self._cut_offs.get(account.stream, ())
        n = bisect_left(cut_offs, position)
        return cut_offs[n] if n < len(cut_offs) else 0


def cut_off_at(cut_offs: Sequence[int], shard: int) -> int:
    """The cut-off in the log of a shard; 0 where none is stated."""
    return cut_offs[shard] if shard < len(cut_offs) else 0


def _unpaid(event: Raw) -> int:
    """Millipoints against the credit limit, or owed."""
    owed: int = event.get("overdrawn", 0)
    for name, amount in event["draws"]:
        if name == CREDIT:
            owed += amount
    return owed
