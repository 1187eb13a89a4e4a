"""Billing behind the ledger: debits that the engine wrote, read back, projected as a follower hands them on.

What is timed is all that happens to a page once the broker has delivered it. Must not know what usage is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from services.billing.application import BillingApplication
from services.quota.application import QuotaApplication
from shared.config import Settings
from tokengrid.bench import calls, engine
from tokengrid.bench.engine import USUAL
from tokengrid.bench.measure import Measure, Work, first_error

PAGE = 100_000  # as the service takes them
PAGES = (5_000, PAGE)  # at the head of a busy log, and far behind
AT_ONCE = 5_000  # events of one answer of the upstream


def row_name(store: str, page: int) -> str:
    return f"{store}: usage projected, {page:,} debits a page"


def behind(quota: QuotaApplication, settings: Settings) -> BillingApplication:
    """Billing on a database of its own, with all of quota's log followed."""
    billing = BillingApplication(settings)
    while page := travelled(quota, billing.follow_quota([]), AT_ONCE):
        billing.follow_quota(page)
    return billing


def travelled(quota: QuotaApplication, after: int, count: int) -> list[dict[str, Any]]:
    """A section of quota's log as it comes from the broker."""
    page: list[dict[str, Any]] = []
    while len(page) < count and (part := quota.log.read(after + len(page), min(AT_ONCE, count - len(page)))):
        page += msgspec.json.decode(msgspec.json.encode([event._asdict() for event in part]))
    return page


def measures(
    quota: QuotaApplication,
    billing: BillingApplication,
    store: str,
    accounts: int = calls.ACCOUNTS,
    pages: Sequence[int] = PAGES,
) -> list[Measure]:
    """One for each size of page, beside the rate at which the engine writes; nothing else writes to this log."""
    numbers, whose = itertools.count(engine.FIRST), calls.uniform(accounts)
    return [_measure(quota, billing, store, numbers, whose, page) for page in pages]


def _measure(
    quota: QuotaApplication,
    billing: BillingApplication,
    store: str,
    numbers: Iterator[int],
    whose: Iterator[int],
    count: int,
) -> Measure:
    def prepare() -> Work:
        after = quota.log.head()
        for start in range(0, count, USUAL):
            first_error(quota.execute(calls.debits(numbers, whose, min(USUAL, count - start))))
        page = travelled(quota, after, count)
        return lambda: billing.follow_quota(page)

    def check(reached: int) -> None:
        assert reached == quota.log.head(), f"followed to {reached}, not to {quota.log.head()}"

    return Measure(row_name(store, count), "debits/s", count, prepare, (f"{store}: engine, {USUAL:,} a batch",), check)
