"""One audit, from the first event to the report: reads all logs, folds, compares, proves.

The order of reading makes that nothing refers to what was not read: audit's log and billing's before quota's,
whose head is taken first, then catalog's and routing's, to which quota's events refer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from services.audit.replay.account import Account
from services.audit.replay.answers import Answers
from services.audit.replay.billed import Billed
from services.audit.replay.calls import Calls
from services.audit.replay.findings import Area, AuditReport, Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.proofs import Proofs
from services.audit.replay.reader import Caller, LogReader, Progress
from services.audit.replay.usage import Metered

LOGS = ("catalog", "quota", "routing", "billing")
FOLLOW_WAIT_S = 30.0  # how long read models and audit may take to follow what was read
CALLS_WAIT_S = 2.0  # between a call's settlement and its report
PAUSE_S = 0.05


def run_audit(
    client: Caller,
    period: str,
    progress: Progress | None = None,
    *,
    verifier_keys: Mapping[str, str] | None = None,
    seed: int = 0,
    wait_s: float = FOLLOW_WAIT_S,
    calls_wait_s: float = CALLS_WAIT_S,
) -> AuditReport:
    """Audit everything that the services have recorded, and the bills and statements of `period` (`YYYY-MM`).

    `client.call(service, method, **kwargs)` reaches the services; `progress(log, done, total)` is told of each
    page. `verifier_keys`: the logs' keys, when they are known from elsewhere; by default those that the audit
    service names are trusted. `seed` chooses the sampled proofs. What does not agree is in the report; raises
    only what the client raises when a service cannot be asked.
    """
    return _Audit(client, period, progress, verifier_keys, seed).run(wait_s, calls_wait_s)


class _Audit:
    def __init__(
        self,
        client: Caller,
        period: str,
        progress: Progress | None,
        verifier_keys: Mapping[str, str] | None,
        seed: int,
    ) -> None:
        self._began = time.monotonic()
        self._client = client
        self._progress = progress
        self._period = period
        self._seed = seed
        self.findings = Findings()
        self.proofs = Proofs(client, verifier_keys, self.findings, seed)
        self.prices = Prices()
        self.billed = Billed(period, self.findings)
        self.calls = Calls(self.findings)
        self.answers = Answers(client, self.findings)
        self.readers: dict[str, LogReader] = {}

    def run(self, wait_s: float, calls_wait_s: float) -> AuditReport:
        audit = LogReader(self._client, "audit", self.proofs.apply, self.findings, self._progress)
        audit.read_on()
        self.readers["billing"] = self._reader("billing", self.billed.apply)
        self.readers["billing"].read_on()
        settled = {pair: issued.content["quota_position"] for pair, issued in self.billed.statements.items()}
        metered = self.metered = Metered(self._period, self.billed.cut_offs(), settled)
        ledger = self.ledger = Ledger(self.prices, self.findings, self._heard, self._event)
        quota = self.readers["quota"] = self._reader("quota", ledger.apply)
        self.readers["catalog"] = self._reader("catalog", self.prices.apply)
        self.readers["routing"] = self._reader("routing", self.calls.apply)
        self._read_quota()

        self.answers.check_balances(ledger, quota.position, self._read_quota, wait_s)
        self._check_calls(calls_wait_s)
        self._check_cut_offs(quota.position)
        self.billed.check_bills(ledger, metered, self.prices)
        self.billed.check_statements(metered, self.prices)
        billed_to = self.readers["billing"].position
        self.answers.check_bills(self.billed, billed_to)
        self.answers.check_statements(self.billed, billed_to)
        for log in LOGS:
            read_on = self._read_quota if log == "quota" else self.readers[log].read_on
            self.proofs.check(self.readers[log], read_on, wait_s)
        ledger.finish()
        return self._report({log: reader.position for log, reader in self.readers.items()} | {"audit": audit.position})

    def _reader(self, log: str, fold: Any) -> LogReader:
        reader = LogReader(self._client, log, fold, self.findings, self._progress)
        reader.wanted.update(self.proofs.signed.get(log, {}))
        return reader

    def _read_quota(self, to: int | None = None) -> int:
        """Quota's log, after everything that it may refer to."""
        quota = self.readers["quota"]
        target = quota.head() if to is None else to
        if target > quota.position:
            self.readers["catalog"].read_on()
            self.readers["routing"].read_on()
            quota.read_on(target)
        return quota.position

    def _heard(self, position: int, account: Account, topic: str, event: Raw) -> None:
        if topic in _METERED:
            self.metered.heard(position, account, topic, event)
            self.calls.heard(position, account, topic, event)

    def _event(self, position: int) -> tuple[str, Raw]:
        _, stream, event = self.readers["quota"].event_at(position)
        return stream, event

    def _check_calls(self, wait_s: float) -> None:
        """Calls that do not agree get a moment: theirs may be the ones in flight."""
        until = time.monotonic() + wait_s
        self._read_quota()
        self.readers["routing"].read_on()
        judged = self.calls.unfinished()
        while judged and time.monotonic() < until:
            time.sleep(PAUSE_S)
            self._read_quota()
            self.readers["routing"].read_on()
            judged &= self.calls.unfinished()
        self.calls.finish(judged)

    def _check_cut_offs(self, head: int) -> None:
        for stream, issued in self.billed.bills.items():
            if issued.content["quota_position"] > head:
                what = "bill's cut-off is beyond quota's log"
                cut_off = issued.content["quota_position"]
                self.findings.add("bills", what, "billing", issued.position, stream, head, cut_off)

    def _report(self, events: dict[str, int]) -> AuditReport:
        found = self.findings

        def agrees(area: Area) -> bool:
            return not found.counts.get(area)

        return AuditReport(
            period=self._period,
            balances_match=agrees("balances"),
            bills_match=agrees("bills"),
            statements_match=agrees("statements"),
            log_verified=agrees("log"),
            invariants_hold=agrees("invariants"),
            calls_match=agrees("calls"),
            accounts=len(self.ledger.accounts),
            bills=len(self.billed.bills),
            statements=len(self.billed.statements),
            events=events,
            debited=self.ledger.debited,
            checkpoints=self.proofs.verified,
            seed=self._seed,
            seconds=round(time.monotonic() - self._began, 3),
            differences_count=found.count,
            differences=tuple(found.differences),
        )


_METERED = {"quota.TokensDebited:1", "quota.DebitReversed:1", "quota.PointsGranted:1"}
