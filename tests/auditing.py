"""The auditor at work in tests: `tokengrid audit`'s own replay of quota's log, its findings sorted by invariant.

It asks whatever has the methods of a service: an application in this process, or a client of those that run. It
must not know how the log came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.audit.replay.account import Account as Books
from services.audit.replay.answers import Answers
from services.audit.replay.findings import Difference, Findings
from services.audit.replay.invariants import INVARIANTS, invariant_of, standing
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.reader import Caller, LogReader
from services.quota.application import QuotaApplication
from services.quota.domain.account import Account
from services.quota.schemas import Balances
from shared.contracts.quota import CREDIT
from shared.eventstore.log import LoggedEvent

PAGE = 5000


class InProcess:
    """An application of quota, and a catalog's log, asked as services are."""

    def __init__(self, app: QuotaApplication, catalogue: Sequence[LoggedEvent]) -> None:
        self.app = app
        self.catalogue = catalogue

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        if method == "balances":
            self.follow()
            return self.app.balances(Balances(**asked))
        if method == "head":
            return self.app.log.head() if service == "quota" else len(self.catalogue)
        after, limit = asked["after"], asked["limit"]
        page = self.app.log.read(after, limit) if service == "quota" else self.catalogue[after : after + limit]
        return {"events": [event._asdict() for event in page]}

    def follow(self) -> None:
        """The read model follows the log to its head."""
        while page := self.app.log.read(self.app.projector.position(), PAGE):
            self.app.follow_quota([event._asdict() for event in page])


class Auditor:
    """Reads on as the log grows, and says which invariants it found broken."""

    def __init__(self, client: Caller) -> None:
        self.findings = Findings()
        self._client = client
        prices = Prices()
        self._log: list[tuple[str, Any]] = []
        self.ledger = Ledger(prices, self.findings, lambda *_: None, lambda position: self._log[position - 1])
        self._catalog = LogReader(client, "catalog", prices.apply, self.findings)
        self._quota = LogReader(client, "quota", self._fold, self.findings)
        self._touched: set[str] = set()

    def read_on(self) -> int:
        """Fold what is new; how far the log has come."""
        head = self._quota.head()
        self._catalog.read_on()
        self._quota.read_on(head)
        for stream in self._touched:
            for what, expected, found in standing(self.ledger.accounts[stream]):
                self.findings.add("invariants", what, "quota", 0, stream, expected, found)
        self._touched.clear()
        return self._quota.position

    def check_read_model(self) -> None:
        """What the service's balances say, against the books."""
        Answers(self._client, self.findings).check_balances(
            self.ledger, self._quota.position, lambda _: self.read_on(), wait_s=30
        )

    def check_memory(self, accounts: Iterable[tuple[str, Account]]) -> None:
        """What a process has in memory, against the books."""
        for stream, account in accounts:
            books = self.ledger.accounts.get(stream) or Books(stream)  # one that is only asked about has no events
            expected, found = _netted(books.state()), in_memory(account)
            if expected != found:
                self.findings.add("balances", "memory differs", "quota", 0, stream, expected, found)

    def finish(self) -> None:
        """The last word, when nothing comes any more."""
        self.read_on()
        self.ledger.finish()

    def broken(self, invariant: str) -> list[Difference]:
        return [difference for difference in self.findings.differences if invariant_of(difference) == invariant]

    def check(self) -> None:
        """Raises AssertionError with the names of the invariants that are broken."""
        for name, meaning in INVARIANTS.items():
            assert not self.broken(name), f"{name} ({meaning}): {self.broken(name)[:5]}"

    def _fold(self, position: int, stream: str, topic: str, event: Any) -> None:
        self._log.append((stream, event))
        self.ledger.apply(position, stream, topic, event)
        self._touched.add(stream)


def audit(app: QuotaApplication, catalogue: Sequence[LoggedEvent]) -> Auditor:
    """All seven invariants over all that an application has recorded, from the beginning. Raises AssertionError."""
    auditor = Auditor(InProcess(app, catalogue))
    auditor.read_on()
    app.writer.refresh()
    auditor.check_memory((stream, app.accounts.account(stream)) for stream in auditor.ledger.accounts)
    auditor.check_read_model()
    auditor.finish()
    auditor.check()
    return auditor


def in_memory(account: Account) -> dict[str, Any]:
    """A process's account in the form in which the auditor states it."""
    books = ("reserved", "debited", "reversed", "expired", "voided")
    grants = {
        name: {"granted": grant.event.amount, **{book: getattr(grant, book) for book in books}}
        for name, grant in account.grants.items()
    }
    if account.credit_reserved or account.credit_debited:
        grants[CREDIT] = {"reserved": account.credit_reserved, "debited": account.credit_debited}
    return {
        "status": account.status or "",
        "version": account.version,
        "credit_limit": account.credit_limit,
        "overdrawn": account.overdrawn,
        "grants": grants,
    }


def _netted(state: dict[str, Any]) -> dict[str, Any]:
    """In memory credit is what is drawn now: reversals are subtracted."""
    grants = dict(state["grants"])
    credit = grants.pop(CREDIT, {"reserved": 0, "debited": 0, "reversed": 0})
    net = {"reserved": credit["reserved"], "debited": credit["debited"] - credit["reversed"]}
    return {**state, "grants": grants | ({CREDIT: net} if any(net.values()) else {})}
