"""Events of quota's log by hand, in raw JSON, and what the auditor's own ledger makes of them."""

from __future__ import annotations

from typing import Any

import msgspec

from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices

AT = "2026-06-18T04:00:00Z"
LATER = "2026-06-18T05:00:00Z"
STREAM = "east/a1"
CARD = "east/m1@1"
RATES = {"input": 1000, "output": 4000}

Raw = dict[str, Any]
Entry = tuple[str, str, Raw]


def event(kind: str, request_id: str, /, **fields: Any) -> Entry:
    return STREAM, f"quota.{kind}:1", {"at": AT, "recorded_at": AT, "request_id": request_id} | fields


def opened(**fields: Any) -> Entry:
    return event("AccountOpened", "open", **fields)


def granted(name: str = "g1", amount: int = 10_000_000, **fields: Any) -> Entry:
    return event("PointsGranted", name, **{"amount": amount, "source": "purchase", "effective_at": AT} | fields)


def reserved(name: str, draws: list[Any], **fields: Any) -> Entry:
    amount = sum(draw[1] for draw in draws)
    given = {"call": name, "model": "m1", "rate_card": CARD, "amount": amount, "draws": draws, "expires_at": LATER}
    return event("PointsReserved", name, **given | fields)


def debited(name: str, tokens: int, draws: list[Any], **fields: Any) -> Entry:
    """`tokens` of input, at 1,000 millipoints each."""
    given = {"call": name, "model": "m1", "rate_card": CARD, "rates": RATES, "usage": {"input": tokens}}
    return event("TokensDebited", name, **given | {"amount": tokens * 1000, "draws": draws} | fields)


def prices() -> Prices:
    known = Prices()
    cards: tuple[tuple[str, str, Raw], ...] = (
        ("east", "m1", {"rates": RATES}),
        ("east", "m2", {"rates": RATES}),
        (
            "east",
            "tiered",
            {
                "rates": {"input": 10},
                "tiers": [
                    {"above_input_tokens": 100, "rates": {"input": 20}},
                    {"above_input_tokens": 200, "rates": {"input": 30}},
                ],
                "off_peak": [{"from_minute": 1320, "to_minute": 480, "rates": {"input": 5}}],
            },
        ),
    )
    start = "2026-01-01T00:00:00Z"
    for position, (operator, model, terms) in enumerate(cards, start=1):
        item = {"operator": operator, "model": model, **terms}
        published = {"at": start, "recorded_at": start, "version": 1, "effective_from": start, "item": item}
        known.apply(position, f"rate_card:{operator}/{model}", "catalog.RateCardPublished:1", published)
    family = {"model": "m1", "family": "f1", "developer": "D"}
    published = {"at": start, "recorded_at": start, "version": 1, "effective_from": start, "item": family}
    known.apply(4, "model:m1", "catalog.ModelPublished:1", published)
    return known


def fold(*entries: Entry) -> tuple[Ledger, Findings]:
    """The ledger of these events, and what was found. Each passes through JSON, as in a log."""
    log = [(stream, topic, msgspec.json.decode(msgspec.json.encode(fields))) for stream, topic, fields in entries]
    findings = Findings()
    ledger = Ledger(prices(), findings, lambda *_: None, lambda position: (log[position - 1][0], log[position - 1][2]))
    for position, (stream, topic, fields) in enumerate(log, start=1):
        ledger.apply(position, stream, topic, fields)
    ledger.finish()
    return ledger, findings


def found(*entries: Entry) -> list[tuple[str, int]]:
    _, findings = fold(*entries)
    return [(difference.what, difference.position) for difference in findings.differences]


def lifecycle() -> list[Entry]:
    """A life with everything in it that is allowed."""
    return [
        opened(credit_limit=2_000_000),
        granted("g1", 3_000_000, expires_at=LATER, priority=10),
        granted("g2", 5_000_000),
        reserved("h1", [["g1", 3_000_000], ["g2", 1_000_000]]),
        debited("s1", 500, [["g1", 500_000]], reservation="h1", freed=[["g1", 500_000]], final=False),
        event(
            "ReservationExtended", "x1", reservation="h1", amount=1_000_000, draws=[["g2", 1_000_000]],
            expires_at=LATER,
        ),
        debited(
            "s2", 2_600, [["g1", 2_500_000], ["g2", 100_000]], reservation="h1",
            freed=[["g1", 2_500_000], ["g2", 2_000_000]], released=1_900_000,
        ),
        debited("d1", 8_000, [["g2", 4_900_000], ["credit", 2_000_000]], overdrawn=1_100_000),
        event("DebitReversed", "v1", debit="d1", model="m1", rate_card=CARD, amount=1_200_000,
              draws=[["credit", 100_000]], overdrawn=1_100_000),
        event("DebitReversed", "v2", at=LATER, debit="s1", model="m1", rate_card=CARD, amount=500_000,
              draws=[["g1", 500_000]], regranted=["g1"]),
        granted("v2/0", 500_000, source="adjustment", origin="g1", effective_at=LATER, at=LATER),
        reserved("h2", [["credit", 100_000]]),
        event("ReservationExpired", "e/h2", at=LATER, reservation="h2", amount=100_000, draws=[["credit", 100_000]]),
        debited("s3", 10, [["credit", 10_000]], reservation="h2", late=True, at=LATER),
        reserved("h3", [["v2/0", 400_000]], at=LATER),
        event("GrantVoided", "void", grant="v2/0", amount=100_000),
        event("AccountSuspended", "stop"),
        event("AccountResumed", "go"),
        event("CreditLimitSet", "limit", credit_limit=0),
        event("AccountClosed", "close"),
        event("ReservationReleased", "close/0", reservation="h3", amount=400_000, draws=[["v2/0", 400_000]]),
    ]  # fmt: skip


START = [opened(), granted()]
HELD = [*START, reserved("h1", [["g1", 5_000]])]
