"""Where a retail price is below what a serving operator charges: warnings, for people to judge.

Compared in money: a point may be cheaper at one operator than at another, while wholesale is settled
at list price. Sales below cost are legal, so nothing here refuses anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from fractions import Fraction

from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from shared.contracts.base import TOKEN_CLASSES, Rates
from shared.units import POINTS_PER_YUAN

WARNINGS_MAX = 100


def margin_warnings(view: CatalogueView, published: Iterable[object], at: datetime, known_at: datetime) -> list[str]:
    """One sentence for each published rate card or tariff whose retail price is below wholesale.

    `at`: when the publication takes effect; `known_at`: when it was recorded, so that the answer to a
    replay is the first one.
    """
    found: dict[str, None] = {}
    for item in published:
        for warning in _of(view, item, at, known_at):
            found.setdefault(warning)
    warnings = list(found)
    if len(warnings) > WARNINGS_MAX:
        warnings[WARNINGS_MAX:] = [f"and {len(warnings) - WARNINGS_MAX} more"]
    return warnings


def _of(view: CatalogueView, item: object, at: datetime, known_at: datetime) -> Iterator[str]:
    if isinstance(item, c.RateCard):
        serving = {v.item.operator for v in view.items(c.Deployment, at, known_at) if v.item.model == item.model} - {
            item.operator
        }
        for operator in sorted(serving):
            yield from _pair(view, item, operator, at, known_at)
    elif isinstance(item, c.Tariff):
        models = [item.model]
        if item.model == "*":
            deployed = (v.item for v in view.items(c.Deployment, at, known_at))
            models = sorted({d.model for d in deployed if d.operator == item.serving})
        for model in models:
            card = view.in_force(c.RateCard, f"{item.home}/{model}", at, known_at)
            if card is not None:
                yield from _pair(view, card.item, item.serving, at, known_at)


def _pair(view: CatalogueView, card: c.RateCard, serving: str, at: datetime, known_at: datetime) -> Iterator[str]:
    found = view.tariff(card.operator, serving, card.model, at, known_at)
    if found is None:
        return
    reference, tariff = found
    kept = Fraction(100 - tariff.discount_percent, 100)
    worth = Fraction(POINTS_PER_YUAN, _points_per_yuan(view, card.operator, at, known_at))
    if tariff.rates == Rates():
        if Fraction(tariff.retail_percent, 100) * kept > worth:
            yield f"{card.key}: every call sold is below the wholesale tariff {reference}"
        return
    for token_class in TOKEN_CLASSES:
        lowest = min(getattr(rates, token_class) for rates in (card.rates, *(part.rates for part in card.off_peak)))
        wholesale = getattr(tariff.rates, token_class) * kept
        if lowest * worth < wholesale:
            yield (
                f"{card.key}: {token_class} is sold at {lowest} points per 1,000 tokens, "
                f"below the wholesale tariff {reference}"
            )


def _points_per_yuan(view: CatalogueView, operator: str, at: datetime, known_at: datetime) -> int:
    """What an operator's points cost as you go: the cheapest of its offers, list price without one."""
    plans = (v.item for v in view.items(c.Plan, at, known_at))
    offers = [plan.points_per_yuan for plan in plans if plan.operator == operator and plan.kind == "payg"]
    return max(offers, default=POINTS_PER_YUAN)
