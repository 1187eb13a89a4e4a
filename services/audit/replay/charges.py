"""What subscriptions come to on a bill: lines of periods and of what is given back, and terms as you go. Pure.

Which of it a bill carries is told from its cut-offs in billing's own log. It must not know what was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from services.audit.replay.calendar import day_of, period_of
from services.audit.replay.periods import given_back, rounded, share
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.subscription import Period, Subscription

LINES = {"plan": "plan_fee", "bundle": "bundle", "trial": "trial"}  # by a period's source
LINE_DEFAULTS: Raw = {
    "model": "",
    "plan": "",
    "plan_version": 0,
    "subscription": "",
    "from_day": "",
    "to_day": "",
    "rate_card": "",
    "calls": 0,
    "usage": {},
    "amount": 0,
    "charged": 0,
    "residual": "0/1",
}
Carries = Callable[[str, int], bool]  # whether a bill has what is of a period and stands at a position


class Terms(NamedTuple):
    """What usage costs as you go, and the most and least that a month of it does; 0: no bound."""

    points_per_yuan: int = 250_000
    usage_discount_percent: int = 0
    cap_fen: int = 0
    commitment_fen: int = 0


class Subscribed(NamedTuple):
    """What a bill has of its account's subscriptions: lines by kind, terms if one sets them; and credits left."""

    lines: Mapping[str, list[Raw]]
    terms: Terms | None
    credit_fen: int


NO_SUBSCRIPTION = Subscribed({}, None, 0)


def terms_of(plan: Raw) -> Terms:
    """The terms as you go of a plan."""
    return Terms(plan.get("points_per_yuan") or 250_000, *(plan.get(name, 0) for name in Terms._fields[1:]))


def line(kind: str, exact: Fraction | int, **fields: object) -> Raw:
    """A line of a bill: exact fen are rounded here, once."""
    fen = rounded(Fraction(exact))
    rest = exact - Fraction(fen)
    return {**LINE_DEFAULTS, **fields, "kind": kind, "fen": fen, "residual": f"{rest.numerator}/{rest.denominator}"}


def running_terms(
    operator: str, taken: Iterable[Subscription], at: datetime, position: int, prices: Prices, known: int
) -> Terms | None:
    """Those of the subscription that runs at a bill's period's start with usage as you go, of several the first one."""
    for subscription in taken:
        for period in subscription.periods:
            if period.runs(at, position):
                plan = prices.plan_version(operator, period.plan, period.plan_version, known)
                if plan is not None and plan.get("overage", "refuse") == "payg":
                    return terms_of(plan)
    return None


def plan_lines(taken: Iterable[Subscription], carries: Carries) -> dict[str, list[Raw]]:
    """Lines by kind, each in its order. A discount stands behind its fee, in the same list."""
    charged: list[tuple[datetime, int, str, list[Raw]]] = []
    for subscription in taken:
        for period in subscription.periods:
            charged += _charged(period, carries)
    lines: dict[str, list[Raw]] = {}
    for _, _, kind, made in sorted(charged, key=lambda c: c[:2]):
        lines.setdefault(kind, []).extend(made)
    return lines


def _charged(period: Period, carries: Carries) -> Iterator[tuple[datetime, int, str, list[Raw]]]:
    """What a period adds to a bill, with what orders it."""
    month = period_of(period.starts_at)
    has_fee = carries(month, period.position)
    gone = period.cancelled
    has_gone = gone is not None and carries(month, gone.position)
    if has_fee and not has_gone:
        yield period.starts_at, period.position, LINES[period.source], _fee(period)
    if gone is not None and has_gone and not has_fee and period.price_fen:
        yield gone.at, gone.position, "plan_credit", [line("plan_credit", -period.price_fen, **_about(period))]
    back = period.credited
    if back is not None and period.price_fen and carries(period_of(back.at), back.position):
        left = period.cut.number if period.cut is not None else 0
        exact = given_back(period.price_fen, period.part_days, period.allowance, left, back.number)
        about = _about(period) | {"from_day": day_of(back.at).isoformat()}
        yield back.at, back.position, "plan_credit", [line("plan_credit", -exact, **about)]


def _fee(period: Period) -> list[Raw]:
    if period.source == "trial":
        return [line("trial", 0, amount=period.allowance, **_about(period))]
    exact = share(period.fee_fen, period.part_days, period.whole_days)
    lines = [line(LINES[period.source], exact, amount=period.allowance, **_about(period))]
    if period.discount_percent:
        lines.append(line("discount", -exact * period.discount_percent / 100, **_about(period)))
    return lines


def _about(period: Period) -> Raw:
    return {
        "plan": period.plan,
        "plan_version": period.plan_version,
        "subscription": period.subscription,
        "from_day": day_of(period.starts_at).isoformat(),
        "to_day": (day_of(period.ends_at) - timedelta(days=1)).isoformat(),
    }
