"""Evidence of a bill of ten thousand debits among a hundred thousand: made, weighed, verified.

The services answer in this process, on SQLite; what is timed of making it is all that happens between a bill's number
and the file's bytes. Must not know what is in it.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from services.audit.application import AuditApplication
from services.audit.evidence import collect, pack, unpack, verify
from services.billing.application import BillingApplication
from services.billing.questions import Bills
from services.catalog.application import CatalogApplication
from shared.clock import FrozenClock, period_bounds, period_of
from shared.config import Settings
from shared.contracts.schema import parse
from shared.eventstore.log import EventLog
from shared.transparency.keys import VerifierKey
from shared.transparency.leaf import hasher
from shared.transparency.multiproof import verify_multiproof
from tokengrid.bench import calls, engine
from tokengrid.bench.measure import Progress, Row, first_error

ACCOUNTS, DEBITS = 10, 100_000
PAGE = 5_000
ROUNDS = 3
MADE = "evidence of a bill of 10,000 debits, made"
SIZE = "evidence of a bill of 10,000 debits"
JUDGED = "evidence of a bill of 10,000 debits, verified, the bill computed again"
PROVEN = "events of evidence proven below a signed root"


def rows(folder: Path, progress: Progress) -> list[Row]:
    """`folder` is used for the files and must be empty."""
    progress("evidence: a hundred thousand debits")
    services = _Services(Settings(var=folder))
    number = services.bill()
    made_s, judged_s, proven_s = [], [], []
    for _ in range(ROUNDS):
        progress(MADE)
        began = time.perf_counter()
        data = pack(collect(services, number))
        made_s.append(time.perf_counter() - began)
        evidence = unpack(data)
        keys = [VerifierKey.parse(text) for text in services.audit.status()["verifier_keys"].values()]
        began = time.perf_counter()
        verdict = verify(evidence, keys)
        judged_s.append(time.perf_counter() - began)
        assert verdict.ok, verdict.differences
        proven_s.append(_proven_s(evidence.of("quota"), verdict.signed[-1].checkpoint))
    events = len(evidence.of("quota").events)
    assert events > DEBITS // ACCOUNTS * 9 // 10
    services.close()
    return [
        Row(MADE, median(made_s), "s"),
        Row(SIZE, len(data) / 1e6, "MB"),
        Row(JUDGED, median(judged_s), "s"),
        Row(PROVEN, events / median(proven_s), "proofs/s"),
    ]


def _proven_s(proven: Any, checkpoint: Any) -> float:
    """Seconds to hash the events and lead them to the root."""
    began = time.perf_counter()
    leaf_hash = hasher(proven.log)
    leaves = {
        e.position - 1: leaf_hash(e.position, e.stream, e.version, e.topic, e.state.encode()) for e in proven.events
    }
    verify_multiproof(leaves, checkpoint.size, proven.proof_bytes, checkpoint.root)
    return time.perf_counter() - began


class _Services:
    """The applications, asked as their services are."""

    def __init__(self, settings: Settings) -> None:
        self.quota = engine.quota(settings, settings, ACCOUNTS)
        numbers, whose = itertools.count(), itertools.cycle(range(ACCOUNTS))
        for _ in range(DEBITS // 1000):
            first_error(self.quota.execute(calls.debits(numbers, whose, 1000)))
        self.period = period_of(datetime.now(UTC))
        closing = FrozenClock(period_bounds(self.period)[1] + timedelta(hours=2))
        self.billing = BillingApplication(settings, closing)
        self.catalog = CatalogApplication(settings)
        self.audit = AuditApplication(settings)
        for page in _pages(self.catalog.log):
            self.billing.follow_catalog(page)
            self.audit.follow("catalog", page)
        for page in _pages(self.quota.log):
            self.billing.follow_quota(page)
            self.audit.follow("quota", page)

    def bill(self) -> str:
        """The number of a bill of one of the accounts."""
        run = {"operator": calls.OPERATOR, "period": self.period, "quota_position": self.quota.log.head()}
        while self.billing.submit("issue_bills", run)["remaining"]:
            pass
        for page in _pages(self.billing.log):
            self.audit.follow("billing", page)
        self.audit.seal_grown()
        bills: Sequence[dict[str, Any]] = self.billing.bills(parse(Bills, {"account": calls.account(0)}))["bills"]
        return str(bills[0]["number"])

    def call(self, service: str, method: str, /, **fields: Any) -> Any:
        app = getattr(self, service)
        if method == "stream":
            page = app.log.stream(fields["stream"], fields["after"], fields["limit"])
            return json.loads(json.dumps({"events": [event._asdict() for event in page]}))
        if method == "bills":
            return app.bills(parse(Bills, fields))
        return json.loads(json.dumps(getattr(app, method)(fields)))

    def close(self) -> None:
        for app in (self.quota, self.billing, self.catalog, self.audit):
            app.close()


def _pages(log: EventLog) -> Iterator[list[dict[str, Any]]]:
    after = 0
    while page := log.read(after, PAGE):
        yield [event._asdict() for event in page]
        after = page[-1].position
