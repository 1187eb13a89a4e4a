"""Where a retail price is below what a serving operator charges: warnings, for people to judge.

Compared in money: a point may be cheaper at one operator than at another, while wholesale is settled
at list price. Sales below cost are legal, so nothing here refuses anything. Of a plan it is the cheapest point that
it gives that counts: whoever uses all of an allowance pays no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from fractions import Fraction

from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from shared.contracts.base import TOKEN_CLASSES, Rates
from shared.units import MILLIPOINTS_PER_FEN, POINTS_PER_YUAN

WARNINGS_MAX = 100


def margin_warnings(view: CatalogueView, published: Iterable[object], at: datetime, known_at: datetime) -> list[str]:
    """One sentence for each retail price below wholesale that a published rate card, tariff, plan or deployment has to
    do with.

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
    """The terms in force, looked up once for all that is compared; and nothing compared twice."""

    def __init__(self, view: CatalogueView, at: datetime, known_at: datetime) -> None:
        self._view, self._at, self._known_at = view, at, known_at
        self._compared: set[str] = set()
        self._families = {model.item.model: model.item.family for model in view.items(c.Model, at, known_at)}
        self._serving: dict[str, set[str]] = {}
        for deployment in view.items(c.Deployment, at, known_at):
            self._serving.setdefault(deployment.item.model, set()).add(deployment.item.operator)
        self._cards: dict[str, list[c.RateCard]] = {}
        self._sold: dict[str, list[c.RateCard]] = {}
        for card in view.items(c.RateCard, at, known_at):
            self._cards.setdefault(card.item.operator, []).append(card.item)
            self._sold.setdefault(card.item.model, []).append(card.item)
        self._plans: dict[str, list[c.Plan]] = {}
        # What an operator's points cost as you go: the cheapest of its offers, list price without one.
        self._as_you_go: dict[str, Fraction] = {}
        for plan in view.items(c.Plan, at, known_at):
            self._plans.setdefault(plan.item.operator, []).append(plan.item)
            if sells_as_you_go(plan.item):
                worth = worth_as_you_go(plan.item)
                self._as_you_go[plan.item.operator] = min(self._as_you_go.get(plan.item.operator, worth), worth)

    def of(self, item: object) -> Iterator[str]:
        match item:
            case c.RateCard():
                yield from self._card(item)
                yield from self._plans_of(item.operator)
            case c.Tariff():
                for model in sorted(self._serving) if item.model == "*" else [item.model]:
                    card = self._view.in_force(c.RateCard, f"{item.home}/{model}", self._at, self._known_at)
                    if card is not None and item.serving in self._serving.get(model, ()):
                        yield from self._pair(card.item, item.serving)
                yield from self._plans_of(item.home)
            case c.Plan():
                if sells_as_you_go(item):
                    for sold in self._cards.get(item.operator, ()):
                        yield from self._card(sold)
                yield from self._plan(item)
            case c.Deployment():
                for sold in self._sold.get(item.model, ()):
                    if sold.operator != item.operator:
                        yield from self._pair(sold, item.operator)
                        yield from self._plans_of(sold.operator)
            case _:
                pass

    def _first(self, kind: str, key: str) -> bool:
        """Whether this is compared for the first time."""
        seen = f"{kind}:{key}" in self._compared
        self._compared.add(f"{kind}:{key}")
        return not seen

    def _plans_of(self, operator: str) -> Iterator[str]:
        if self._first("operator", operator):
            for plan in self._plans.get(operator, ()):
                yield from self._plan(plan)

    def _card(self, card: c.RateCard) -> Iterator[str]:
        if self._first("rate_card", card.key):
            for serving in sorted(self._serving.get(card.model, set()) - {card.operator}):
                yield from self._pair(card, serving)

    def _pair(self, card: c.RateCard, serving: str) -> Iterator[str]:
        worth = self._as_you_go.get(card.operator, Fraction(1))
        for reference, where in self._below(card, serving, worth):
            if where is None:
                yield f"{card.key}: every call sold is below the wholesale tariff {reference}"
            else:
                token_class, lowest = where
                yield (
                    f"{card.key}: {token_class} is sold at {lowest} points per 1,000 tokens, "
                    f"below the wholesale tariff {reference}"
                )

    def _plan(self, plan: c.Plan) -> Iterator[str]:
        """One sentence for a plan, however many models it sells below wholesale."""
        found = cheapest_point(plan)
        if found is None or not self._first("plan", plan.key):
            return
        worth, phase = found
        below: dict[str, str] = {}
        sold = 0
        for card in self._cards.get(plan.operator, ()):
            family = self._families.get(card.model)
            others = sorted(self._serving.get(card.model, set()) - {plan.operator})
            if family is None or not others or not plan.scope.covers(card.model, family):
                continue
            sold += 1
            for serving in others:
                for reference, _ in self._below(card, serving, worth):
                    below.setdefault(card.model, reference)
        if below:
            example, reference = next(iter(below.items()))
            yield (
                f"{plan.key}: a point costs as little as {_share(worth)} of list price{phase}, below wholesale for "
                f"{len(below)} of {sold} models, such as {example} by the tariff {reference}"
            )

    def _below(self, card: c.RateCard, serving: str, worth: Fraction) -> Iterator[tuple[str, tuple[str, int] | None]]:
        """The tariff under which `serving` charges more than the card brings with a point worth this share of
        list price: for every call (None), or for a token class, with its lowest rate."""
        found = self._view.tariff(card.operator, serving, card.model, self._at, self._known_at)
        if found is None:
            return
        reference, tariff = found
        kept = Fraction(100 - tariff.discount_percent, 100)
        if tariff.rates == Rates():
            if Fraction(tariff.retail_percent, 100) * kept > worth:
                yield reference, None
            return
        for token_class in TOKEN_CLASSES:
            parts = (card.rates, *(part.rates for part in card.off_peak), *(tier.rates for tier in card.tiers))
            lowest = min(getattr(rates, token_class) for rates in parts)
            if lowest * worth < getattr(tariff.rates, token_class) * kept:
                yield reference, (token_class, lowest)


def sells_as_you_go(plan: c.Plan) -> bool:
    """Whether points can be had beyond an allowance, each at `points_per_yuan`."""
    return plan.kind in ("payg", "postpaid") or plan.overage == "payg"


def worth_as_you_go(plan: c.Plan) -> Fraction:
    """What a point costs as you go, after the plan's discount, as a share of list price."""
    return Fraction(POINTS_PER_YUAN, plan.points_per_yuan) * Fraction(100 - plan.usage_discount_percent, 100)


def cheapest_point(plan: c.Plan) -> tuple[Fraction, str] | None:
    """What a point of the allowance costs at the least, after the discount, as a share of list price, and in which
    phase, in words. None where the plan sells no points: a trial is given away and meant to be."""
    if plan.kind == "trial":
        return None
    terms: list[tuple[c.Plan | c.Phase, str]] = [(plan, "")]
    terms += [(phase, f" in phase {number}") for number, phase in enumerate(plan.phases, start=1)]
    kept = Fraction(100 - plan.discount_percent, 100)
    found = [
        (each.fee_fen * kept * MILLIPOINTS_PER_FEN / each.allowance, where) for each, where in terms if each.allowance
    ]
    return min(found, key=lambda each: each[0], default=None)


def _share(worth: Fraction) -> str:
    """Per cent, cut off behind the first decimal."""
    thousandths = worth * 1000 // 1
    return f"{thousandths // 10}.{thousandths % 10} %"
