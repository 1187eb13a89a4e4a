"""The month's close: bills a second, and how long a call holds up the rest of the service.

Every account opened on the first, took a monthly plan, and called three models on credit. Must not know how a bill
is made.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from services.billing.application import BillingApplication
from services.billing.runs import ISSUE_MAX
from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from shared.clock import FrozenClock, period_bounds
from shared.config import Settings
from shared.contracts import quota as q
from shared.contracts.base import Event, Rates, Usage, encode_event
from tokengrid.bench import calls
from tokengrid.bench.measure import Progress, Row, percentile

ACCOUNTS = 2 * calls.ACCOUNTS
FULL_ACCOUNTS = 100_000
PERIOD = "2026-06"
STARTS, ENDS = period_bounds(PERIOD)
MODELS = ("deepseek-v3.2", "glm-5", "kimi-k2.5")
PLAN, FEE_FEN, ALLOWANCE = "monthly-9.9", 990, 10**10
LIFE = 2 + len(MODELS)  # events of an account
FOLLOWED = 50_000  # events at once


def row_name(store: str, accounts: int) -> str:
    return f"{store}: a month closed, {accounts:,} accounts"


def rows(settings: Settings, catalog_settings: Settings, store: str, accounts: int, progress: Progress) -> list[Row]:
    """Of a month of so many accounts, on the empty database of `settings`."""
    name = row_name(store, accounts)
    progress(f"{name}: following")
    app = _followed(settings, catalog_settings, accounts)
    progress(name)
    took = _close(app, accounts)
    # Here belongs whatever is measured of a month that is closed: its rebuild, against the row `name`.
    app.close()
    return [
        Row(name, accounts / sum(took), "bills/s"),
        Row(f"{name}: p50 of a call of {ISSUE_MAX}", percentile(sorted(took), 0.5) * 1000, "ms"),
        Row(f"{name}: longest call", max(took) * 1000, "ms"),
    ]


def _followed(settings: Settings, catalog_settings: Settings, accounts: int) -> BillingApplication:
    catalog = CatalogApplication(catalog_settings, FrozenClock(STARTS - timedelta(days=30)))
    catalog.publish(sample_publication(STARTS - timedelta(days=30)))
    app = BillingApplication(settings, FrozenClock(ENDS + timedelta(hours=2)))
    app.follow_catalog([e._asdict() for e in catalog.log.read(0, settings.page_max)])
    catalog.close()
    log = _log(accounts)
    while page := list(itertools.islice(log, FOLLOWED)):
        app.follow_quota(page)
    return app


def _close(app: BillingApplication, accounts: int) -> list[float]:
    """Issue all bills; seconds of each call."""
    run = {"operator": calls.OPERATOR, "period": PERIOD, "quota_position": LIFE * accounts, "limit": ISSUE_MAX}
    took: list[float] = []
    issued, remaining = 0, 1
    while remaining:
        began = time.perf_counter()
        answer = app.submit("issue_bills", run)
        took.append(time.perf_counter() - began)
        issued, remaining = issued + answer["issued"], answer["remaining"]
    assert issued == accounts, f"{issued} bills for {accounts} accounts"
    return took


def _log(accounts: int) -> Iterator[dict[str, Any]]:
    """Quota's log of the month, as it travels: one account's life after the other."""
    position = 0
    for number in range(accounts):
        for version, event in enumerate(_life(number), start=1):
            position += 1
            yield {
                "position": position,
                "stream": calls.stream(number),
                "version": version,
                "topic": event.TOPIC,
                "state": encode_event(event).decode(),
                "trace": None,
            }


def _life(number: int) -> Iterator[Event]:
    def about(at: datetime, request: str) -> dict[str, Any]:
        return {"at": at, "recorded_at": at, "request_id": request}

    plan: dict[str, Any] = {"plan": PLAN, "plan_version": 1, "price_fen": FEE_FEN, "amount": ALLOWANCE}
    yield q.AccountOpened(**about(STARTS, "open"), plan=PLAN, credit_limit=ALLOWANCE)
    yield q.PointsGranted(**about(STARTS, "grant"), source="plan", effective_at=STARTS, **plan)
    rates = Rates(input=1000, output=5000)
    for day, model in enumerate(MODELS, start=1 + number % 20):
        usage = Usage(input=1000 + number % 1000, output=200)
        yield q.TokensDebited(
            **about(STARTS + timedelta(days=day), f"call-{day}"),
            call="",
            model=model,
            rate_card=f"{calls.OPERATOR}/{model}@1",
            rates=rates,
            usage=usage,
            amount=rates.price(usage),
            draws=(q.Draw(q.CREDIT, rates.price(usage)),),
        )
