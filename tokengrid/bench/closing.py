"""The month's close: bills a second, and how long a call holds up the rest of the service.

Every account opened on the first, took a monthly plan, and called three models on credit. Must not know how a bill
is made.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.billing.application import BillingApplication
from services.billing.rebuild import rebuild
from services.billing.runs import ISSUE_MAX
from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from shared.clock import FrozenClock, period_bounds
from shared.config import Settings
from shared.contracts import quota as q
from shared.contracts.base import Event, Rates, Usage, encode_event
from shared.eventstore.log import LoggedEvent
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
    app, following_s = _followed(settings, catalog_settings, accounts)
    progress(name)
    took = _close(app, accounts)
    found = [
        Row(name, accounts / sum(took), "bills/s"),
        Row(f"{name}: p50 of a call of {ISSUE_MAX}", percentile(sorted(took), 0.5) * 1000, "ms"),
        Row(f"{name}: longest call", max(took) * 1000, "ms"),
    ]
    if accounts < FULL_ACCOUNTS:  # its log would have to be in memory
        progress(f"{name}: computing it again")
        first = f"{name}: first run, followed and closed"
        found.append(Row(first, accounts / (following_s + sum(took)), "bills/s"))
        found.append(Row(rebuilt_name(store, accounts), accounts / _rebuild_s(app, accounts), "bills/s", None, first))
    app.close()
    return found


def rebuilt_name(store: str, accounts: int) -> str:
    return f"{row_name(store, accounts)}: rebuilt from the logs"


def _rebuild_s(app: BillingApplication, accounts: int) -> float:
    """Seconds to compute all bills again, the logs at hand."""
    quota = [LoggedEvent(**fields) for fields in _log(accounts)]
    with app.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT position, topic, state FROM catalogue_copy ORDER BY position")).all()
    catalog = [LoggedEvent(position, "", 0, topic, state) for position, topic, state in rows]
    logs = {"quota": quota, "catalog": catalog}

    def read(log: str, after: int, limit: int) -> Sequence[LoggedEvent]:
        return app.log.read(after, limit) if log == "billing" else logs[log][after : after + limit]

    found = rebuild(read)
    assert (found.bills, found.equal) == (accounts, accounts), f"{found.equal} of {found.bills} bills are equal"
    return found.seconds


def _followed(settings: Settings, catalog_settings: Settings, accounts: int) -> tuple[BillingApplication, float]:
    """Billing with the month followed, and the seconds that took."""
    catalog = CatalogApplication(catalog_settings, FrozenClock(STARTS - timedelta(days=30)))
    catalog.publish(sample_publication(STARTS - timedelta(days=30)))
    app = BillingApplication(settings, FrozenClock(ENDS + timedelta(hours=2)))
    app.follow_catalog([e._asdict() for e in catalog.log.read(0, settings.page_max)])
    catalog.close()
    log = _log(accounts)
    following_s = 0.0
    while page := list(itertools.islice(log, FOLLOWED)):
        began = time.perf_counter()
        app.follow_quota(page)
        following_s += time.perf_counter() - began
    return app, following_s


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
