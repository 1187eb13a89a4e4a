"""The projection of usage with a past: what a debit costs when millions have been counted before.

The rows of that past are made inside PostgreSQL by one statement: a hundred debits an account, spread over a month.
Must not know how usage is folded.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from services.billing.application import BillingApplication
from shared.clock import period_bounds
from shared.config import Settings
from shared.contracts import quota as q
from shared.contracts.base import Rates, Usage, encode_event
from tokengrid.bench import calls
from tokengrid.bench.calls import ACCOUNTS, MODEL, OPERATOR
from tokengrid.bench.measure import Progress, Row
from tokengrid.bench.projecting import PAGE
from tokengrid.servers import PostgreSQL

MILLION = 1_000_000
DEBITS = 100  # of an account
DAYS = 30  # on which they were made: so many rows an account
PERIOD = "2026-06"
PROJECTED = 10  # pages
CARD = f"{OPERATOR}/{MODEL}@1"
USAGE = Usage(**calls.USAGE)
RATES = Rates(input=1000, output=5000)
_STATEMENT = """INSERT INTO usage (operator, account, period, model, rate_card, serving_operator, day, segment,
    calls, input, cached_input, cache_write, output, amount, charged, trace)
SELECT {operator}, 'a' || lpad(a::text, 7, '0'), {period}, {model}, {card}, '', {period} || to_char(d, '"-"FM00'), 0,
    {times}, {times} * {input}, 0, 0, {times} * {output}, {times} * {amount}, 0, NULL
FROM generate_series(1, {days}) AS d, generate_series(0, {accounts} - 1) AS a"""


class Past(NamedTuple):
    """So many debits counted before, and of how many accounts."""

    debits: int
    accounts: int


def row_name(debits: int) -> str:
    return f"PostgreSQL: usage projected, {debits:,} debits counted before"


def plan(million: int = MILLION) -> list[Past]:
    """In order; the first comes last again: what the machine does in between is in both."""
    few, many = Past(million, million // DEBITS), Past(10 * million, 10 * million // DEBITS)
    return [few, many, few]


def rows(
    server: PostgreSQL,
    folder: Path,
    progress: Progress,
    planned: Sequence[Past] | None = None,
    page: int = PAGE,
    active: int = ACCOUNTS,
) -> list[Row]:
    """Debits a second of each past; `active` of its accounts are debited, by chance. `server` runs."""
    found: dict[Past, list[float]] = {}
    for number, past in enumerate(planned or plan()):
        progress(f"{row_name(past.debits)}: filling")
        name = f"counted_{number}"
        app = BillingApplication(Settings(database=server.create_database(name), var=folder / "counted"))
        with psycopg.connect(server.admin_url(name).replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(_statement(past))
            connection.execute("VACUUM (ANALYZE) usage")
            connection.execute("CHECKPOINT")
        progress(row_name(past.debits))
        found.setdefault(past, []).append(_rate(app, past, page, min(active, past.accounts)))
        app.close()
        server.drop_database(name)
    first = row_name(next(iter(found)).debits)
    return [
        Row(name, mean(rates), "debits/s", None, None if name == first else first)
        for past, rates in found.items()
        for name in [row_name(past.debits)]
    ]


def _statement(past: Past) -> sql.Composed:
    values = {
        "operator": OPERATOR,
        "period": PERIOD,
        "model": MODEL,
        "card": CARD,
        "times": past.debits // past.accounts // DAYS,
        "input": USAGE.input,
        "output": USAGE.output,
        "amount": RATES.price(USAGE),
        "days": DAYS,
        "accounts": past.accounts,
    }
    return sql.SQL(_STATEMENT).format(**{name: sql.Literal(value) for name, value in values.items()})


def _rate(app: BillingApplication, past: Past, page: int, active: int) -> float:
    """Pages are made while the clock stands."""
    log, spent = _log(past.accounts // active, active), 0.0
    for _ in range(PROJECTED):
        travelling = list(itertools.islice(log, page))
        began = time.perf_counter()
        app.follow_quota(travelling)
        spent += time.perf_counter() - began
    return PROJECTED * page / spent


def _log(step: int, active: int) -> Iterator[dict[str, Any]]:
    """Debits of the period's last day, one told again for accounts by chance, spread evenly among all."""
    at = period_bounds(PERIOD)[1].replace(hour=0)
    state = encode_event(
        q.TokensDebited(
            at=at,
            recorded_at=at,
            request_id=calls.ordered_key(0),
            fingerprint="0" * 16,
            call=calls.ordered_key(0),
            model=MODEL,
            rate_card=CARD,
            rates=RATES,
            usage=USAGE,
            amount=RATES.price(USAGE),
            draws=(q.Draw("grant", RATES.price(USAGE)),),
        )
    ).decode()
    known = calls.ordered_key(0)
    for position, of in enumerate(calls.uniform(active), start=1):
        yield {
            "position": position,
            "stream": calls.stream(of * step),
            "version": DEBITS + position,
            "topic": q.TokensDebited.TOPIC,
            "state": state.replace(known, calls.ordered_key(position)),
            "trace": None,
        }
