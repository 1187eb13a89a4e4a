"""Whatever happens, in whatever pages it is followed: a bill is what the rules say, read word by word.

The reference below takes the bare list of events and the rules of the room's README, and nothing of the
room's own metering, tables or late marks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.billing.application import BillingApplication
from services.billing.domain.canonical import sha256_of
from services.billing.domain.metering import Heard
from services.billing.domain.rating import Account, Used, rate
from shared.catalogue.view import CatalogueView
from shared.clock import period_bounds, period_of
from shared.contracts import quota as q
from shared.contracts.base import TOKEN_CLASSES, Usage
from shared.contracts.billing import Bill, BillIssued, TokenSums
from shared.contracts.catalog import Plan
from shared.eventstore.log import LoggedEvent
from tests.unit.billing_world import (
    JUNE,
    QuotaLog,
    billing,
    catalogue,
    follow,
    heard,
    issue,
    june,
    set_clock,
    summed,
)

PERIODS = ("2026-06", "2026-07", "2026-08")
ACCOUNTS = ("a", "b", "c")
KINDS = {"plan": "plan_fee", "bundle": "bundle", "purchase": "purchase", "trial": "trial", "promotion": "trial"}


class Reference:
    """The rules, as plainly as they can be written."""

    def __init__(self) -> None:
        self.issued: dict[str, list[tuple[str, int]]] = defaultdict(list)  # account -> (period, cut-off), in order

    def lines(self, events: list[LoggedEvent], account: str, period: str, cut_off: int) -> list[tuple[Any, ...]]:
        granted: list[tuple[str, Any, int, q.PointsGranted]] = []
        usage: dict[tuple[str, str, str], list[int]] = {}
        for logged in events:
            if logged.stream != f"sh-telecom/{account}" or logged.position > cut_off:
                continue
            event = logged.event
            line = self._line_of(account, period, period_of(event.at), logged.position)
            if line is None:
                continue
            if isinstance(event, q.PointsGranted) and event.source in KINDS:
                granted.append((KINDS[event.source], event.at, logged.position, event))
            elif isinstance(event, q.TokensDebited | q.DebitReversed):
                self._use(usage.setdefault((line, event.model, event.rate_card), [0] * 7), event)
        order = list(dict.fromkeys(KINDS.values()))
        lines: list[tuple[Any, ...]] = [
            (kind, 0 if kind == "trial" else event.price_fen, event.amount)
            for kind, _, _, event in sorted(granted, key=lambda g: (order.index(g[0]), g[1], g[2]))
        ]
        for (line, model, rate_card), sums in sorted(usage.items(), key=lambda u: (u[0][0] != "usage", *u[0][1:])):
            exact = Fraction(sums[6], 2_500_000)
            fen = int(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)
            lines.append((line, model, rate_card, *sums, fen))
        return lines

    def _line_of(self, account: str, period: str, of: str, position: int) -> str | None:
        if of == period:
            return "usage"
        if of > period:
            return None
        bills = self.issued[account]
        own = [n for n, (p, _) in enumerate(bills) if p == of]
        if not own or position <= bills[own[0]][1]:
            return None
        carried = any(p > of and position <= at for p, at in bills[own[0] + 1 :])
        return None if carried else "late_usage"

    @staticmethod
    def _use(sums: list[int], event: q.TokensDebited | q.DebitReversed) -> None:
        sign = 1 if isinstance(event, q.TokensDebited) else -1
        if isinstance(event, q.TokensDebited):
            sums[0] += int(event.final)
            for n, name in enumerate(TOKEN_CLASSES, start=1):
                sums[n] += getattr(event.usage, name)
        sums[5] += sign * event.amount
        sums[6] += sign * (sum(d.amount for d in event.draws if d.grant == "credit") + event.overdrawn)


def shown(bill: Bill) -> list[tuple[Any, ...]]:
    """A bill's lines in the reference's form."""
    return [
        (
            line.kind,
            line.model,
            line.rate_card,
            line.calls,
            *(getattr(line.usage, name) for name in TOKEN_CLASSES),
            line.amount,
            line.charged,
            line.fen,
        )
        if line.model
        else (line.kind, line.fen, line.amount)
        for line in bill.lines
    ]


def happen(quota: QuotaLog, rng: random.Random, now: Any) -> None:
    """One more event, mostly of now, sometimes of weeks ago."""
    backdated = timedelta(days=rng.randrange(35)) if rng.random() < 0.3 else timedelta()
    at, account, model = now - backdated, rng.choice(ACCOUNTS), rng.choice(["kimi-k2.5", "glm-5"])
    kind = rng.random()
    if kind < 0.15:
        source = rng.choice([*KINDS, "adjustment"])
        quota.grant(source, rng.randrange(1, 10**9), at, recorded=now, account=account, price_fen=rng.randrange(999))
    elif kind < 0.3:
        quota.account = account
        given: dict[str, Any] = {name: rng.randrange(1, 10**7) for name in ("grants", "credit", "overdrawn")}
        quota.reverse(at, recorded=now, model=model, **given)
    else:
        usage = Usage(input=rng.randrange(1, 9000), output=rng.randrange(900), cached_input=rng.randrange(99))
        unpaid: dict[str, Any] = {"credit": rng.randrange(500), "overdrawn": rng.randrange(500)}
        quota.debit(at, usage, recorded=now, account=account, model=model, final=rng.random() < 0.8, **unpaid)


def close(app: BillingApplication, quota: QuotaLog, period: str, rng: random.Random, reference: Reference) -> None:
    """Cut off at the head, let more happen and be followed, then issue in pieces and compare each bill."""
    now = period_bounds(period)[1] + timedelta(hours=1)
    cut_off = quota.head
    for _ in range(rng.randrange(20)):
        happen(quota, rng, now)
    follow(app, quota, page=rng.randrange(1, 40))
    set_clock(app, now)
    before = app.log.head()
    while issue(app, quota, period, quota_position=cut_off, limit=rng.randrange(1, 4))["remaining"]:
        pass
    bills = [e.event.bill for e in app.log.read(before, 100) if isinstance(e.event, BillIssued)]
    assert [bill.account for bill in bills] == list(ACCOUNTS)
    for bill in bills:
        assert shown(bill) == reference.lines(quota.events, bill.account, period, cut_off)
        reference.issued[bill.account].append((period, cut_off))


def test_bills_of_a_summer_follow_the_rules_however_it_was_followed(tmp_path: Path, seed: int) -> None:
    for run in range(6):
        rng = random.Random(f"{seed}/{run}")
        app, quota, reference = billing(tmp_path / str(run)), QuotaLog(), Reference()
        for account in ACCOUNTS:
            quota.open(june(1, 0), account=account)
        periods = list(PERIODS)
        if rng.random() < 0.3:
            periods = ["2026-07", "2026-06", "2026-08"]  # June's close was forgotten
        for month in PERIODS:
            start, end = period_bounds(month)
            for step in range(40):
                happen(quota, rng, start + (end - start) * step / 40)
            if rng.random() < 0.5:
                follow(app, quota, page=rng.randrange(1, 60))
            if periods[0] <= month:
                close(app, quota, periods.pop(0), rng, reference)
        while periods:
            close(app, quota, periods.pop(0), rng, reference)
        app.close()


EVENTS = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.integers(0, 60 * 24 * 40),
        st.integers(0, 5000),
        st.integers(0, 1000),
        st.sampled_from(["kimi", "glm"]),
    ),
    max_size=30,
)


def debited(rows: list[tuple[int, int, int, int, str]]) -> list[Heard]:
    quota = QuotaLog()
    for day, delay_min, tokens, unpaid, model in rows:
        at = june(day)
        usage = Usage(input=tokens + 1)
        quota.debit(at, usage, overdrawn=unpaid, model=model, recorded=at + timedelta(minutes=delay_min))
    return heard(quota)


@given(rows=EVENTS, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_pages_cut_anywhere_give_the_same_bill(rows: list[Any], cuts: list[int]) -> None:
    events = debited(rows)
    edges = [0, *sorted(min(c, len(events)) for c in cuts), len(events)]
    pages = [events[a:b] for a, b in pairwise(edges)]

    def bill(pages: list[list[Heard]]) -> Bill:
        account = Account("sh-telecom", "a1", june(1))
        return rate(account, JUNE, CatalogueView(), len(events), usage=summed(pages, len(events)))

    assert sha256_of(bill(pages)) == sha256_of(bill([events]))


@given(
    used=st.lists(st.tuples(st.integers(-(10**12), 10**12), st.integers(1, 10**9)), max_size=8),
    price=st.sampled_from([1, 3, 7, 200_000, 250_000, 400_000, 999_983]),
)
def test_lines_are_exact_to_their_residual_and_sum_to_the_total(used: list[tuple[int, int]], price: int) -> None:
    view = catalogue(Plan(operator="o", plan="p", name="", kind="payg", points_per_yuan=price)).view()
    usage = [Used(f"m{n}", "", 0, TokenSums(), charged, charged) for n, (charged, _) in enumerate(used)]
    bill = rate(Account("o", "a", june(1), "p"), JUNE, view, 1, usage=usage)
    assert bill.total_fen == sum(line.fen for line in bill.lines)
    for line, given_ in zip(bill.lines, usage, strict=True):
        assert abs(Fraction(line.residual)) <= Fraction(1, 2)
        assert line.fen + Fraction(line.residual) == Fraction(given_.charged, 10 * price)
    assert abs(Fraction(bill.total_fen * 6, 106) - bill.vat_fen) <= Fraction(1, 2)
