"""What must be true after every day of the simulated year, and after every month.

Nothing here uses billing's or quota's own code to say so: the auditor's replay folds the logs by its own arithmetic,
and what billing's tables say is compared with sums over the log.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import sqlalchemy as sa

from services.audit.replay import run_audit
from services.audit.replay.answers import Answers
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.reader import LogReader
from services.billing.questions import Bills
from services.billing.rebuild import rebuild
from shared.clock import period_of
from shared.contracts.billing import DryRun
from tests.simulation.year import Year


class Invariants:
    """Reads on where it left off: a day costs what happened that day."""

    def __init__(self, year: Year) -> None:
        self._year = year
        self._findings = Findings()
        prices = Prices()
        self._ledger = Ledger(prices, self._findings, self._heard, self._event)
        self._catalog = LogReader(year.client, "catalog", prices.apply, self._findings)
        self._quota = LogReader(year.client, "quota", self._ledger.apply, self._findings)
        self._answers = Answers(year.client, self._findings)
        self._amounts: Counter[str] = Counter()  # by account: debited less reversed
        self._unpaid: Counter[str] = Counter()

    def after_day(self) -> None:
        """The ledger's seven, quota's balances, billing's usage, and that nothing is left undone."""
        self._catalog.read_on()
        self._quota.read_on()
        self._answers.check_balances(self._ledger, self._quota.position, self._read_on, 0.0)
        self._nothing_found()
        if self._year.billing_is_up:
            self._usage()
            self._nothing_undone()
            self._dry_runs()

    def after_month(self, period: str) -> None:
        """The whole audit, with every bill computed again; and that all are there once."""
        self._year.follow_all()
        report = run_audit(self._year.client, period, seed=1)
        assert report.ok, json.dumps(report.as_dict()["differences"][:5], indent=1, ensure_ascii=False)
        self._serials()

    def of_the_year(self) -> None:
        """Everything has happened, or the year was none; every bill can be computed again."""
        found = rebuild(lambda log, after, limit: getattr(self._year, log).shards[0].log.read(after, limit))
        assert found.ok, found.differences[:5]
        assert found.bills > 2000
        done = self._year.done
        wanted = ("debit", "reverse", "subscribe", "change_subscription", "pause_subscription", "resume_subscription")
        wanted += ("end_subscription", "pay", "credit", "void", "grant_credit", "prices_change", "close_account")
        missing = [name for name in wanted if not done.get(name) and name != "close_account"]
        assert not missing, missing
        self._ledger.finish()
        self._nothing_found()

    # -- of a day -----------------------------------------------------------------------------------
    def _read_on(self, to: int) -> int:
        self._quota.read_on(to)
        return self._quota.position

    def _event(self, position: int) -> tuple[str, Any]:
        _, stream, event = self._quota.event_at(position)
        return stream, event

    def _heard(self, _position: int, account: Any, topic: str, event: Any) -> None:
        sign = {"quota.TokensDebited:1": 1, "quota.DebitReversed:1": -1}.get(topic, 0)
        if sign:
            unpaid = event.get("overdrawn", 0) + sum(n for grant, n in event["draws"] if grant == "credit")
            self._amounts[account.stream] += sign * event["amount"]
            self._unpaid[account.stream] += sign * unpaid

    def _nothing_found(self) -> None:
        found = self._findings.differences
        assert not self._findings.count, found[:3]

    def _usage(self) -> None:
        asked = sa.text("SELECT operator || '/' || account, sum(amount), sum(charged) FROM usage GROUP BY 1")
        with self._year.billing.engine.connect() as connection:
            rows = connection.execute(asked).all()
        assert {s: (a, c) for s, a, c in rows if a or c} == {
            s: (a, self._unpaid[s]) for s, a in self._amounts.items() if a or self._unpaid[s]
        }

    def _nothing_undone(self) -> None:
        with self._year.billing.engine.connect() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM orders")).scalar() == 0

    def _dry_runs(self) -> None:
        now = self._year.clock.now
        for operator, account in self._year.random.sample(self._year.accounts, 2):
            query = DryRun(operator=operator, account=account, period=period_of(now))
            bill = self._year.billing.dry_run(query)["bill"]
            assert bill["total_fen"] == sum(line["fen"] for line in bill["lines"])

    # -- of a month -----------------------------------------------------------------------------------
    def _serials(self) -> None:
        numbers: dict[str, list[int]] = {}
        after = ""
        while page := self._year.billing.bills(Bills(after=after, limit=1000))["bills"]:
            for bill in page:
                numbers.setdefault(bill["operator"], []).append(int(bill["number"].rpartition("-")[2]))
            after = page[-1]["number"]
        for found in numbers.values():
            assert sorted(found) == list(range(1, len(found) + 1))
