"""What an audit has computed again, bill by bill, for whoever shows it. Pure.

A bill is computed when it is asked for: the bills of a month, twice, would be more than all accounts take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from services.audit.replay.account import Account
from services.audit.replay.billed import Billed, Issued, bill_differences, statement_differences
from services.audit.replay.charges import Carries, Terms
from services.audit.replay.findings import AuditReport
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.reader import LogReader
from services.audit.replay.usage import Metered


class Numbered(NamedTuple):
    """A bill as it was issued to `stream` (`operator/account`).

    `status`: `stands`, `void`, `billed twice`, `no account`, or `not judged` for one that was issued behind what the
    audit read, or that nothing could be computed for.
    """

    stream: str
    issued: Issued
    status: str

    @property
    def number(self) -> str:
        return str(self.issued.content["number"])

    @property
    def stands(self) -> bool:
        return self.status == "stands"


class Again(NamedTuple):
    """A bill or statement computed again. `differences`: path, computed and issued value; `terms`: on which a bill's
    usage became money."""

    computed: Raw
    differences: tuple[tuple[str, Any, Any], ...]
    terms: Terms = Terms()


class Settled(NamedTuple):
    """A statement between two operators, as it was issued and as it was computed again; one that was issued behind what
    the audit read, or for which nothing could be computed, was not."""

    home: str
    serving: str
    issued: Issued
    again: Again | None


class Recomputed:
    """The bills and statements of the audited period."""

    def __init__(self, billed: Billed, accounts: Mapping[str, Account], metered: Metered, prices: Prices) -> None:
        self.period = billed.period
        self.prices = prices
        self._billed = billed
        self._accounts = accounts
        self._metered = metered

    def numbered(self) -> Iterator[Numbered]:
        """Every bill of the period that was ever issued, in the order of the numbers."""
        for _, (stream, one) in sorted(self._billed.numbers.items(), key=lambda each: str(each[0])):
            yield Numbered(stream, one, self._status(stream, one))

    def _status(self, stream: str, one: Issued) -> str:
        if one.content["number"] in self._billed.void:
            return "void"
        if self._billed.bills.get(stream) is not one:
            return "billed twice"
        if stream not in self._accounts:
            return "no account"
        return "stands" if self._billed.judged.get(stream) is one else "not judged"

    def again(self, bill: Numbered) -> Again | None:
        """A bill that stands, computed again."""
        if not bill.stands:
            return None
        account = self._accounts[bill.stream]
        computed = self._billed.computed(bill.issued, account, self._metered, self.prices)
        terms = self._billed.terms(bill.issued, account, self.prices)
        return Again(computed, tuple(bill_differences(computed, bill.issued)), terms)

    def carries(self, bill: Numbered) -> Carries:
        """Whether a bill has a debit of a period that stands at a position of its log of quota."""
        return self._billed.carries(bill.stream, bill.issued)

    def debits(self, bill: Numbered) -> int:
        """How many debits and reversals the lines of a bill are the sums of."""
        carries, rows = self.carries(bill), self._metered.usage.get(bill.stream, {})
        return sum(sums.events for key, sums in rows.items() if carries(key.period, key.section))

    def settled(self, bill: Numbered) -> tuple[int, int]:
        """Fen of it that were paid, and that were credited."""
        number = bill.issued.content["number"]
        return self._billed.paid.get(number, 0), self._billed.credited.get(number, 0)

    def statements(self) -> Iterator[Settled]:
        """In the order of the operators' names."""
        for pair, issued in sorted(self._billed.statements.items()):
            computed = self._billed.statements_computed.get(pair)
            again = None
            if computed is not None:
                again = Again(computed, tuple(statement_differences(computed, issued)))
            yield Settled(*pair, issued, again)


class Audited(NamedTuple):
    """A finished audit. `logs`: what it read, to be read again; `quota_logs`: which of them are of quota."""

    report: AuditReport
    computed: Recomputed
    logs: Mapping[str, LogReader]
    quota_logs: tuple[str, ...]
