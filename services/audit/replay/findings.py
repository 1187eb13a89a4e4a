"""What an audit finds: differences, each with its place, and the report made of them. Pure.

Every difference belongs to one area; an area agrees when nothing was found in it. All are counted, the
first 1,000 are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Area = Literal["balances", "bills", "statements", "log", "invariants", "calls"]
DIFFERENCES_MAX = 1_000
TEXT_MAX = 300
# What comes of values that are not of the kind that the contract says.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree. `position` 0: not at one event; `account`: `operator/account` or empty."""

    area: Area
    what: str
    log: str
    position: int
    account: str
    expected: str
    found: str


class Findings:
    """Collects differences, bounded."""

    def __init__(self) -> None:
        self.differences: list[Difference] = []
        self.counts: dict[Area, int] = {}

    def add(
        self, area: Area, what: str, log: str, position: int, account: str = "", expected: Any = "", found: Any = ""
    ) -> None:
        self.counts[area] = self.counts.get(area, 0) + 1
        if len(self.differences) < DIFFERENCES_MAX:
            shown = (str(expected)[:TEXT_MAX], str(found)[:TEXT_MAX])
            self.differences.append(Difference(area, what, log, position, account, *shown))

    @contextmanager
    def judging(self, area: Area, what: str, log: str, position: int = 0, account: str = "") -> Iterator[None]:
        """What is computed within rests on what events say. Where that is nothing to compute with, it is a difference,
        `what`, and no end of the audit: else one such event would hide all others."""
        try:
            yield
        except MALFORMED as error:
            self.add(area, what, log, position, account, "events of their kind", repr(error))

    @property
    def count(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class AuditReport:
    """What was audited and whether it agrees. `debited`: millipoints of all debits; `events`: by log;
    `checkpoints`: by log, the signed head that was verified (`size`, `root_sha256`, `note`, the checkpoint as it was
    signed, and `verifier_key`, empty where nobody gave one). `not_asked`: what could not be compared, because the logs
    were read where no services answer; `balances_match` is then None."""

    period: str
    balances_match: bool | None
    bills_match: bool
    statements_match: bool
    log_verified: bool
    invariants_hold: bool
    calls_match: bool
    accounts: int
    bills: int
    statements: int
    events: Mapping[str, int]
    debited: int
    checkpoints: Mapping[str, Mapping[str, Any]]
    seed: int
    seconds: float
    not_asked: tuple[str, ...] = ()
    differences_count: int = 0
    differences: tuple[Difference, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Everything agrees."""
        return self.differences_count == 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"ok": self.ok, **asdict(self), "differences": [asdict(each) for each in self.differences]}
