"""Who subscribes: accounts at the operators with a mix of offers, and the commands that open them.

Pure: the same seed and catalogue give the same subscribers. It must not know how commands are sent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from shared.contracts import quota as q
from shared.contracts import subscriptions as s
from shared.units import FEN_PER_YUAN, MILLIPOINTS_PER_POINT
from tokengrid.demo.market import Offer, Shop

# Of a hundred subscribers; kinds that an operator does not sell are shared among the others.
MIX = {"payg": 34, "monthly": 26, "coding": 14, "trial": 8, "bundle": 9, "postpaid": 9}
# How much an account calls, relative, and how many of a hundred do so: most are light users.
ACTIVITY = ((1, 50), (3, 35), (6, 15))
FAVOURITES_MAX = 4
TOP_UPS_YUAN = (10, 20, 50)
# New customers' points, so few that a light user's month ends with a refusal.
WELCOME_POINTS = (6_000, 20_000)
WELCOME_PERCENT = 30
BUYS_MORE_PERCENT = 50


class Subscriber(NamedTuple):
    """An account, what it calls, and how it pays when it runs dry."""

    operator: str
    account: str
    region: str
    kind: str
    plan: str
    models: tuple[str, ...]
    activity: int
    buys_more_fen: int  # 0: it is refused and stays so
    points_per_yuan: int
    opening: tuple[q.QuotaCommand, ...]
    subscribe: s.Subscribe | None = None  # to the plan, where it has a fee or points


def subscribers(
    shops: Sequence[Shop], count: int, seed: int, start: datetime, end: datetime, prefix: str = ""
) -> list[Subscriber]:
    """`count` subscribers, the operators in turn; all open with the month (`start`, `end`: its first instant,
    and the first after it)."""
    rng = random.Random(f"tokengrid subscribers {seed}")
    return [
        _subscriber(shops[index % len(shops)], f"{prefix}{index + 1:06d}", rng, start, end) for index in range(count)
    ]


def _subscriber(shop: Shop, account: str, rng: random.Random, start: datetime, end: datetime) -> Subscriber:
    kinds = [kind for kind in MIX if kind in shop.offers] or sorted(shop.offers)
    kind = rng.choices(kinds, [MIX.get(kind, 1) for kind in kinds])[0]
    offer = rng.choice(shop.offers[kind])
    favourites = rng.sample(offer.models, min(len(offer.models), rng.randint(1, FAVOURITES_MAX)))
    plan = offer.plan
    opened = q.OpenAccount(
        operator=shop.operator,
        account=account,
        request_id="open",
        subscriber=f"subscriber-{account}",
        plan=plan.plan,
        credit_limit=plan.credit_limit,
        occurred_at=start,
    )
    subscribe = None
    if plan.allowance or plan.fee_fen:
        subscribe = s.Subscribe(
            operator=shop.operator, account=account, request_id="plan", plan=plan.plan, occurred_at=start
        )
    grants, buys_more_fen = _first_points(offer, opened, rng, end)
    return Subscriber(
        operator=shop.operator,
        account=account,
        region=shop.region,
        kind=kind,
        plan=plan.plan,
        models=tuple(sorted(favourites)),
        activity=rng.choices([a for a, _ in ACTIVITY], [share for _, share in ACTIVITY])[0],
        buys_more_fen=buys_more_fen,
        points_per_yuan=plan.points_per_yuan,
        opening=(opened, *grants),
        subscribe=subscribe,
    )


def _first_points(
    offer: Offer, opened: q.OpenAccount, rng: random.Random, end: datetime
) -> tuple[tuple[q.QuotaCommand, ...], int]:
    """What is bought or given at the start where no plan brings points, and for how many fen the subscriber buys more
    when it runs dry."""
    plan, start = offer.plan, opened.occurred_at
    assert start is not None, "the demo says when everything happened"
    common = {
        "operator": opened.operator,
        "account": opened.account,
        "plan": plan.plan,
        "plan_version": offer.version,
        "scope": plan.scope,
        "priority": plan.priority,
        "occurred_at": start,
    }

    def lot(amount: int, source: q.GrantSource, price_fen: int, expires_at: datetime | None) -> q.Grant:
        return q.Grant(
            **common,  # type: ignore[arg-type]
            request_id=source,
            amount=amount,
            source=source,
            price_fen=price_fen,
            expires_at=expires_at,
        )

    if plan.allowance or plan.kind == "postpaid" or plan.credit_limit:
        return (), 0
    buys_more_fen = rng.choice(TOP_UPS_YUAN) * FEN_PER_YUAN
    if rng.randrange(100) < WELCOME_PERCENT:
        points = rng.choice(WELCOME_POINTS)
        stays = buys_more_fen if rng.randrange(100) < BUYS_MORE_PERCENT else 0
        return (lot(points * MILLIPOINTS_PER_POINT, "promotion", 0, end),), stays
    return (lot(bought(buys_more_fen, plan.points_per_yuan), "purchase", buys_more_fen, None),), buys_more_fen


def bought(fen: int, points_per_yuan: int) -> int:
    """Millipoints for a purchase as you go."""
    return fen * points_per_yuan * MILLIPOINTS_PER_POINT // FEN_PER_YUAN
