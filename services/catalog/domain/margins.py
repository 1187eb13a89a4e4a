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
    """One sentence for each retail price below wholesale that a published rate card, tariff or plan has to do with.

    `at`: when the publication takes effect; `known_at`: when it was recorded, so that the answer to a
    replay is the first one.
    """
    found: dict[str, None] = {}
    margins = _Margins(view, at, known_at)
    for item in published:
        for warning in margins.of(item):
            found.setdefault(warning)
    warnings = list(found)
    if len(warnings) > WARNINGS_MAX:
        warnings[WARNINGS_MAX:] = [f"and {len(warnings) - WARNINGS_MAX} more"]
    return warnings


class _Margins:
    """The terms in force, looked up once for all that is compared."""

    def __init__(self, view: CatalogueView, at: datetime, known_at: datetime) -> None:
        self._view, self._at, self._known_at = view, at, known_at
        self._serving: dict[str, set[str]] = {}
        for deployment in view.items(c.Deployment, at, known_at):
            self._serving.setdefault(deployment.item.model, set()).add(deployment.item.operator)
        # What an operator's points cost as you go: the cheapest of its offers, list price without one.
        self._points_per_yuan: dict[str, int] = {}
        for plan in view.items(c.Plan, at, known_at):
            if plan.item.kind == "payg":
                known = self._points_per_yuan.get(plan.item.operator, 0)
                self._points_per_yuan[plan.item.operator] = max(known, plan.item.points_per_yuan)

    def of(self, item: object) -> Iterator[str]:
        match item:
            case c.RateCard():
                for serving in sorted(self._serving.get(item.model, set()) - {item.operator}):
                    yield from self._pair(item, serving)
            case c.Tariff():
                for model in sorted(self._serving) if item.model == "*" else [item.model]:
                    card = self._view.in_force(c.RateCard, f"{item.home}/{model}", self._at, self._known_at)
                    if card is not None and item.serving in self._serving.get(model, ()):
                        yield from self._pair(card.item, item.serving)
            case c.Plan() if item.kind == "payg":
                for card in self._view.items(c.RateCard, self._at, self._known_at):
                    if card.item.operator == item.operator:
                        yield from self.of(card.item)
            case _:
                pass

    def _pair(self, card: c.RateCard, serving: str) -> Iterator[str]:
        found = self._view.tariff(card.operator, serving, card.model, self._at, self._known_at)
        if found is None:
            return
        reference, tariff = found
        kept = Fraction(100 - tariff.discount_percent, 100)
        worth = Fraction(POINTS_PER_YUAN, self._points_per_yuan.get(card.operator, POINTS_PER_YUAN))
        if tariff.rates == Rates():
            if Fraction(tariff.retail_percent, 100) * kept > worth:
                yield f"{card.key}: every call sold is below the wholesale tariff {reference}"
            return
        for token_class in TOKEN_CLASSES:
            lowest = min(getattr(rates, token_class) for rates in (card.rates, *(part.rates for part in card.off_peak)))
            if lowest * worth < getattr(tariff.rates, token_class) * kept:
                yield (
                    f"{card.key}: {token_class} is sold at {lowest} points per 1,000 tokens, "
                    f"below the wholesale tariff {reference}"
                )
