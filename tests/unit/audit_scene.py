"""A market, somebody between it and the auditor who changes what is answered, and words for what the auditor finds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from services.audit.replay import AuditReport, Difference, run_audit
from shared.eventstore.log import LoggedEvent
from tests.unit.audit_world import JUNE, Market, Tampering


@dataclass
class Scene:
    """An honest market, and the way between it and the auditor."""

    market: Market
    tampering: Tampering = field(init=False)

    def __post_init__(self) -> None:
        self.tampering = Tampering(self.market.client)

    def audit(self, period: str = JUNE, **options: Any) -> AuditReport:
        return run_audit(self.tampering, period, **{"wait_s": 0.2, "calls_wait_s": 0.1} | options)

    def first(self, log: str, kind: str, *within: str) -> LoggedEvent:
        """The first event of a kind whose JSON contains all these texts."""
        events: list[LoggedEvent] = getattr(self.market, log).shards[0].log.read(0, 100_000)
        return next(e for e in events if f".{kind}:" in e.topic and all(text in e.state for text in within))

    def change(self, event: LoggedEvent, log: str = "billing", **fields: Any) -> None:
        """The event has other values."""
        self.tampering.event(log, event.position, lambda e: e.update(fields))

    def replace(self, event: LoggedEvent, topic: str, log: str = "billing", **fields: Any) -> None:
        """Another event stands in its place: of its instants and stream, whatever else is in `fields`."""
        kept = {name: value for name, value in json.loads(event.state).items() if name in ("at", "recorded_at")}
        state = json.dumps(kept | fields, separators=(",", ":"))

        def of_page(answer: Any) -> Any:
            for e in answer["events"]:
                if e["position"] == event.position:
                    e.update(topic=f"{log}.{topic}:1", state=state)
            return answer

        self.tampering.answer(log, "events", of_page)


def found(report: AuditReport, area: str, what: str) -> list[Difference]:
    return [d for d in report.differences if d.area == area and d.what == what]


def flags(report: AuditReport) -> set[str]:
    """What does not agree."""
    named = {
        "balances": report.balances_match,
        "bills": report.bills_match,
        "statements": report.statements_match,
        "log": report.log_verified,
        "invariants": report.invariants_hold,
        "calls": report.calls_match,
    }
    assert report.ok == all(named.values())
    return {name for name, agrees in named.items() if not agrees}


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


class Keep:
    """Keeps a state in memory; `killed_at`: the saving, by number, behind which the run is killed."""

    def __init__(self, kept: bytes | None = None, killed_at: int = 0) -> None:
        self.kept = kept
        self.saved = 0
        self.killed_at = killed_at

    def load(self) -> bytes | None:
        return self.kept

    def save(self, state: bytes) -> None:
        self.kept = state
        self.saved += 1
        if self.saved == self.killed_at:
            raise Killed
