"""The demo's figures: counted while it runs, and put together as its report. All amounts are integers."""

from __future__ import annotations

import resource
from collections import Counter
from typing import Any

from shared.contracts.billing import Bill
from tokengrid.demo.life import End
from tokengrid.demo.traffic import Planned


class Figures:
    """What came of the calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # of refusals and releases
        self.tokens = 0
        self.debited_mp = 0

    def ended(self, call: Planned, end: End) -> None:  # noqa: ARG002 - the call is for those who want to look closer
        self.calls += 1
        self.outcomes[end.outcome] += 1
        if end.code:
            self.reasons[f"{end.outcome}: {end.code}"] += 1
        self.tokens += end.tokens
        self.debited_mp += end.amount

    def as_dict(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "settled": self.outcomes["settled"],
            "released": self.outcomes["released"],
            "refused": self.outcomes["refused"],
            "abandoned": self.outcomes["abandoned"],
            "reasons": dict(sorted(self.reasons.items())),
            "tokens": self.tokens,
            "debited_mp": self.debited_mp,
        }


def billed(bills: list[Bill]) -> dict[str, Any]:
    """Sums over the bills: by kind of line, and in all."""
    lines: Counter[str] = Counter()
    for bill in bills:
        for line in bill.lines:
            lines[line.kind] += line.fen
    return {
        "bills": len(bills),
        "billed_fen": sum(bill.total_fen for bill in bills),
        "billed_fen_by_kind": dict(sorted(lines.items())),
        "billed_calls": sum(bill.calls for bill in bills),
        "billed_tokens": sum(bill.tokens for bill in bills),
        "billed_mp": sum(bill.debited for bill in bills),
    }


def rss_mb_max() -> int:
    """The most memory that this process ever had, in MB (Linux gives KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000
