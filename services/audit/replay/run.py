"""One audit, from the first event to the report: reads all logs, folds, compares, proves.

The order of reading makes that nothing refers to what was not read. Heads are taken in the order: quota's, billing's,
catalog's and routing's; to what has a head earlier, later ones are read before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec

from services.audit.replay.account import EPOCH, Account
from services.audit.replay.answers import Answers
from services.audit.replay.billed import Billed
from services.audit.replay.calendar import instant
from services.audit.replay.calls import Calls
from services.audit.replay.findings import Area, AuditReport, Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.orders import Orders
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.proofs import Proofs
from services.audit.replay.reader import Caller, Fold, LogReader, Progress
from services.audit.replay.recomputed import Audited, Recomputed
from services.audit.replay.sharding import is_of_quota, log_name, log_of, shard_of
from services.audit.replay.state import Keep, Saving, check_same, decode, gathered, program, restored
from services.audit.replay.subscriptions import Subscriptions
from services.audit.replay.usage import Metered
from shared.errors import MalformedCommand

if TYPE_CHECKING:
    from services.audit.replay.debits import Debits

P = ParamSpec("P")

FOLLOW_WAIT_S = 30.0  # how long read models and audit may take to follow what was read
CALLS_WAIT_S = 2.0  # between a call's settlement and its report
PAUSE_S = 0.05
# What only services can answer.
NOT_ASKED = (
    "balances as quota's read model has them",
    "bills and statements as billing answers them; they were computed again from its log",
    "proofs of inclusion and consistency as audit answers them; roots were computed from all events",
)


def audited(
    client: Caller,
    period: str,
    progress: Progress | None = None,
    *,
    verifier_keys: Mapping[str, str] | None = None,
    seed: int = 0,
    wait_s: float = FOLLOW_WAIT_S,
    calls_wait_s: float = CALLS_WAIT_S,
    asks: bool = True,
    keep: Keep | None = None,
) -> Audited:
    """Audit everything that the services have recorded, and the bills and statements of `period` (`YYYY-MM`).

    `client.call(service, method, **kwargs)` reaches the services; `progress(log, done, total)` is told of each
    page. `verifier_keys`: the logs' keys, when they are known from elsewhere; by default those that the audit
    service names are trusted. `asks`: whether services answer behind `client`. Where it only reads logs (`head` and
    `events`), what they would have been asked is in the report as `not_asked`, and is no difference. `seed` chooses
    the sampled proofs. `keep`: where it saves how far it has come, after each log and each 250,000 events, and goes on
    from if something was saved there.

    What does not agree is in the report; raises only what the client raises when a service or source cannot be asked,
    and SetupFailed where what was saved is of another audit or none: it stays as it is. With
    the report comes what was computed again, and the logs that it was computed from.
    """
    return _Audit(client, period, progress, verifier_keys, seed, asks, keep).run(wait_s, calls_wait_s)


def _report_of(audit: Callable[P, Audited]) -> Callable[P, AuditReport]:
    def report(*args: P.args, **kwargs: P.kwargs) -> AuditReport:
        """As `audited`, the report alone."""
        return audit(*args, **kwargs).report

    return report


run_audit = _report_of(audited)


class _Audit:
    def __init__(
        self,
        client: Caller,
        period: str,
        progress: Progress | None,
        verifier_keys: Mapping[str, str] | None,
        seed: int,
        asks: bool,
        keep: Keep | None,
    ) -> None:
        self._began = time.monotonic()
        self._client = client
        self._told = progress
        self._keep = keep
        self._saving = Saving(keep, lambda: gathered(self, self._about()))
        self._done: dict[str, int] = {}
        self._period = period
        self._seed = seed
        self.findings = Findings()
        self.proofs = Proofs(client, verifier_keys, self.findings, seed, asks)
        self._asks = asks
        self.prices = Prices()
        self.quota_logs = self._quota_logs()
        self.orders = Orders(self.findings)
        self.subscriptions = Subscriptions(self.prices, self.findings, self.orders.ordered)
        self.billed = Billed(period, self.findings, self.subscriptions, len(self.quota_logs))
        self.calls = Calls(self.findings)
        self.answers = Answers(client, self.findings)
        self.readers: dict[str, LogReader] = {}
        # Heads of quota's logs before billing's was read: up to there, billing has ordered what quota did; and when the
        # last event up to there or of billing was recorded.
        self.heads: dict[str, int] = {}
        self.latest_read = ""
        self.metered, self.metering = Metered(period, {}, {}), False  # whether its bills are known
        self._debits: list[Debits] = []  # by shard, where the source has logs by columns

    def run(self, wait_s: float, calls_wait_s: float) -> Audited:
        self._fold_all()
        self._saving.stop()
        if self._asks:
            self._check_balances(wait_s)
        self._check_calls(calls_wait_s if self._asks else 0)
        self._check_cut_offs()
        accounts = {stream: account for ledger in self.ledgers for stream, account in ledger.accounts.items()}
        self.billed.check_bills(accounts, self.metered, self.prices)
        self._check_subscriptions(accounts)
        self.billed.check_statements(self.metered, self.prices)
        billed_to = self.readers["billing"].position
        if self._asks:
            self.answers.check_bills(self.billed, billed_to)
            self.answers.check_statements(self.billed, billed_to)
        for log in ("catalog", *self.quota_logs, "routing", "billing"):
            read_on: Callable[[int], int] = self.readers[log].read_on
            if log in self.quota_logs:
                read_on = partial(self._read_quota, self.quota_logs.index(log))
            elif log == "billing":
                read_on = self._read_billing
            self.proofs.check(self.readers[log], read_on, wait_s)
        self._check_shards()
        for ledger in self.ledgers:
            ledger.finish()
        read = {log: reader.position for log, reader in (*self.readers.items(), ("audit", self.audit_log))}
        computed = Recomputed(self.billed, accounts, self.metered, self.prices)
        return Audited(self._report(read), computed, self.readers, tuple(self.quota_logs))

    def _fold_all(self) -> None:
        """Read all logs, from the beginning or from where the run before this one was."""
        saved = self._keep.load() if self._keep is not None else None
        state = None if saved is None else decode(saved)
        if state is not None:
            check_same(state, self._about())
        self.audit_log = LogReader(self._client, "audit", self.proofs.apply, self.findings, self._progress)
        self.audit_log.read_on(None if state is None else state["audit"]["position"])
        self.ledgers = [self._ledger(shard, log) for shard, log in enumerate(self.quota_logs)]
        folds: Mapping[str, Fold] = {
            "catalog": self.prices.apply, "billing": self._of_billing, "routing": self.calls.apply
        }  # fmt: skip
        self.readers |= {log: self._reader(log, fold) for log, fold in folds.items()}
        if state is None:
            self.heads = {log: self.readers[log].head() for log in self.quota_logs}
        else:
            restored(self, state)
            self._done = {log: reader.position for log, reader in self.readers.items()}
        if not self.metering:
            self._read_billing()
            self.metered, self.metering = Metered(self._period, self.billed.cut_offs(), self.billed.settled()), True
        for debits, log in zip(self._debits, self.quota_logs, strict=False):
            debits.metered, debits.until = self.metered, self.heads[log]
        self._read_all_of_quota()

    def _about(self) -> dict[str, Any]:
        """What names this audit: with any of it another, it would come to another report."""
        keys = {log: str(key) for log, key in self.proofs.keys.items()}
        given = {"month": self._period, "seed": self._seed, "kind of source": self._asks, "keys": keys}
        return {**given, "number of logs": self.quota_logs, "version of this program": program()}

    def _progress(self, log: str, done: int, total: int) -> None:
        """A page was folded: everything is as it is to be saved."""
        if log != "audit":  # which a run that goes on reads again
            self._saving.read(done - self._done.get(log, 0), whole=done == total)
            self._done[log] = done
        if self._told is not None:
            self._told(log, done, total)

    def _quota_logs(self) -> list[str]:
        """Quota's logs by shard: those for which there are keys, or, where no services answer, those that there are."""
        if not self._asks:
            return [log_name(shard, count) for count in [self._shards()] for shard in range(count)]
        return sorted(filter(is_of_quota, self.proofs.logs), key=shard_of) or ["quota"]

    def _shards(self) -> int:
        shards = 1
        while True:
            try:
                self._client.call("quota", "head", shard=shards)
            except MalformedCommand:
                return shards
            shards += 1

    def _ledger(self, shard: int, log: str) -> Ledger:
        heard, event = partial(self._heard, shard), partial(self._event, log)
        ledger = Ledger(self.prices, self.findings, heard, event, log)
        reader = self._reader(log, ledger.apply, "quota", shard if len(self.quota_logs) > 1 else None)
        if hasattr(self._client, "columns"):  # such a source has what is needed to read them
            from services.audit.replay.debits import Debits

            reader.debits = Debits(ledger, self.prices)
            self._debits.append(reader.debits)
        self.readers[log] = reader
        return ledger

    def _reader(self, log: str, fold: Any, service: str = "", shard: int | None = None) -> LogReader:
        reader = LogReader(self._client, log, fold, self.findings, self._progress, service=service, shard=shard)
        reader.wanted.update(self.proofs.signed.get(log, {}))
        return reader

    def _read_billing(self, to: int | None = None) -> int:
        """Billing's log, after the catalogue, to which it refers."""
        billing = self.readers["billing"]
        target = billing.head() if to is None else to
        if target > billing.position:
            self.readers["catalog"].read_on()
            billing.read_on(target)
        return billing.position

    def _of_billing(self, position: int, stream: str, topic: str, event: Raw) -> None:
        self._recorded(event)
        self.billed.apply(position, stream, topic, event)

    def _recorded(self, event: Raw) -> None:
        if (text := event["recorded_at"]) > self.latest_read and instant(text):  # raises for what is none
            self.latest_read = text

    def latest(self) -> str:
        """When the last event was recorded that was read."""
        return max((self.latest_read, *(debits.latest for debits in self._debits)))

    def _check_subscriptions(self, accounts: Mapping[str, Account]) -> None:
        latest = instant(text) if (text := self.latest()) else EPOCH
        with self.findings.judging("bills", "subscriptions and their orders cannot be judged", "billing"):
            self.subscriptions.finish(latest, accounts)
            self.orders.finish(latest, self.heads, accounts)

    def _read_all_of_quota(self) -> None:
        for shard in range(len(self.quota_logs)):
            self._read_quota(shard)

    def _read_quota(self, shard: int, to: int | None = None) -> int:
        """A log of quota, after everything that it may refer to."""
        quota = self.readers[self.quota_logs[shard]]
        target = quota.head() if to is None else to
        if target > quota.position:
            self.readers["catalog"].read_on()
            self.readers["routing"].read_on()
            quota.read_on(target)
        return quota.position

    def _heard(self, shard: int, position: int, account: Account, topic: str, event: Raw) -> None:
        log = self.quota_logs[shard]
        if position <= self.heads[log]:
            self._recorded(event)
        if topic in _OF_GRANTS:
            self.orders.heard(position, account, topic, event, log)
        if topic in _METERED:
            self.metered.heard(position, account, topic, event, shard)
            self.calls.heard(position, account, topic, event, log)

    def _event(self, log: str, position: int) -> tuple[str, Raw]:
        _, stream, event = self.readers[log].event_at(position)
        return stream, event

    def _check_balances(self, wait_s: float) -> None:
        for shard, (log, ledger) in enumerate(zip(self.quota_logs, self.ledgers, strict=True)):
            which = shard if len(self.quota_logs) > 1 else None
            read_on = partial(self._read_quota, shard)
            self.answers.check_balances(ledger, self.readers[log].position, read_on, wait_s, log, which)

    def _check_shards(self) -> None:
        """Every account is in the log of its shard, and of no other; there is no shard that was not audited."""
        shards = len(self.quota_logs)
        for log, ledger in zip(self.quota_logs, self.ledgers, strict=True):
            for stream in ledger.accounts if shards > 1 else ():
                if (right := log_of(stream, shards)) != log:
                    self.findings.add("invariants", "account of another shard", log, 0, stream, right, log)
        if not self._asks:
            return  # their number is what there is
        try:
            self._client.call("quota", "head", shard=shards)
        except MalformedCommand:
            return
        self.findings.add("log", "quota has more shards than are followed", "quota", 0, "", shards, "more")

    def _check_calls(self, wait_s: float) -> None:
        """Calls that do not agree get a moment: theirs may be the ones in flight."""
        until = time.monotonic() + wait_s
        self._read_all_of_quota()
        self.readers["routing"].read_on()
        judged = self.calls.unfinished()
        while judged and time.monotonic() < until:
            time.sleep(PAUSE_S)
            self._read_all_of_quota()
            self.readers["routing"].read_on()
            judged &= self.calls.unfinished()
        self.calls.finish(judged)

    def _check_cut_offs(self) -> None:
        for stream, issued in self.billed.bills.items():
            log, cut_off = issued.content.get("quota_log", "quota"), issued.content["quota_position"]
            head = self.readers[log].position if log in self.quota_logs else 0
            if cut_off > head:
                what = "bill's cut-off is beyond quota's log"
                self.findings.add("bills", what, "billing", issued.position, stream, head, cut_off)

    def _report(self, events: dict[str, int]) -> AuditReport:
        found = self.findings

        def agrees(area: Area) -> bool:
            return not found.counts.get(area)

        return AuditReport(
            period=self._period,
            balances_match=agrees("balances") if self._asks else None,
            bills_match=agrees("bills"),
            statements_match=agrees("statements"),
            log_verified=agrees("log"),
            invariants_hold=agrees("invariants"),
            calls_match=agrees("calls"),
            accounts=sum(len(ledger.accounts) for ledger in self.ledgers),
            bills=len(self.billed.judged),
            statements=len(self.billed.statements),
            events=events,
            debited=sum(ledger.debited for ledger in self.ledgers),
            checkpoints=self.proofs.verified,
            seed=self._seed,
            seconds=round(time.monotonic() - self._began, 3),
            not_asked=() if self._asks else (*NOT_ASKED, *self.proofs.not_asked),
            differences_count=found.count,
            differences=tuple(found.differences),
        )


_OF_GRANTS = {"quota.PointsGranted:1", "quota.GrantVoided:1", "quota.GrantExpired:1"}
_METERED = {"quota.TokensDebited:1", "quota.DebitReversed:1", "quota.PointsGranted:1"}
