"""Another catalogue laid over the one that was published: what each debit, period and grant of a bill would cost by it.

An item of the other catalogue takes the place of the item of its key for the whole period. Where the two are equal,
nothing is different, not even a version's number. It must not know what was drawn from which grant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from services.billing.domain.charges import Charge, Running, period_allowance, period_price
from services.billing.domain.metering import microseconds
from services.billing.domain.plan_lines import Granted
from services.billing.domain.plan_periods import phase_of
from services.billing.domain.terms import plan_named
from shared.catalogue.view import CatalogueView, Version, applicable_rates
from shared.clock import period_bounds
from shared.contracts import catalog as c
from shared.contracts import quota as q
from shared.contracts import subscriptions as s
from shared.contracts.base import Event
from shared.errors import NoRateInForce, UnknownModel

PLAN_SOURCES = ("plan", "bundle", "trial")  # grants and charges whose price and points are a plan's
UNDONE = ("credited", "cancelled")

Item = TypeVar("Item", c.RateCard, c.Plan)


class Priced(NamedTuple):
    """What a debit comes to, in millipoints, and under which rate card."""

    amount: int
    rate_card: str


class Overlay:
    """`published`: catalog's log, as positions and events in order; `other`: what is laid over it for `period`."""

    def __init__(self, published: Sequence[tuple[int, Event]], other: c.Catalogue, period: str) -> None:
        self._published = published
        self._all = _folded(published, published[-1][0] if published else 0)
        self._start = period_bounds(period)[0]
        self._cards = {card.key: _numbered(self._all, card, self._start) for card in other.rate_cards}
        self._plans = {plan.key: _numbered(self._all, plan, self._start) for plan in other.plans}
        self._replaced: dict[tuple[str, str], Version[c.RateCard] | None] = {}
        self._views: dict[int, tuple[CatalogueView, CatalogueView]] = {}

    # -- catalogues ------------------------------------------------------------------------------
    def views(self, position: int) -> tuple[CatalogueView, CatalogueView]:
        """The catalogue as of a position of its log, and the same with the other's plans in force from the period's
        start."""
        if position not in self._views:
            bare, laid = _folded(self._published, position), _folded(self._published, position)
            for plan in self._plans.values():
                laid.apply(position, _publication(plan, self._start))
            self._views[position] = bare, laid
        return self._views[position]

    def family(self, model: str, at: datetime) -> str:
        """A model's family; none of an unknown one."""
        try:
            return self._all.model(model, at, retired_too=True).family
        except UnknownModel:
            return ""

    # -- debits ----------------------------------------------------------------------------------
    def reprices(self, operator: str, model: str) -> bool:
        """Whether the other catalogue has a rate card for the model."""
        return f"{operator}/{model}" in self._cards

    def priced(self, operator: str, debit: q.TokensDebited, began_at: datetime, given: int) -> Priced:
        """A debit under the other catalogue. `began_at`: of the call, which decides between peak and off-peak; `given`:
        its tokens of input in earlier parts, which count for the tier."""
        card = self._card(operator, debit)
        if card is None:
            return Priced(debit.amount, debit.rate_card)
        amount = applicable_rates(card.item, debit.usage, began_at, given).price(debit.usage)
        return Priced(amount, f"{card.item.key}@{card.number}")

    def _card(self, operator: str, debit: q.TokensDebited) -> Version[c.RateCard] | None:
        """The card that takes the place of the one that a debit names; None where none does, or its equal."""
        about = (f"{operator}/{debit.model}", debit.rate_card)
        if about not in self._replaced:
            found = self._cards.get(about[0])
            if found is not None and _same(self._all, debit.rate_card, found.item):
                found = None
            self._replaced[about] = found
        return self._replaced[about]

    # -- plans -----------------------------------------------------------------------------------
    def plan_for(self, operator: str, plan: str, number: int) -> Version[c.Plan] | None:
        """What takes the place of a plan's version; None where nothing does, or its equal."""
        found = self._plans.get(f"{operator}/{plan}")
        if found is None:
            return None
        was = plan_named(operator, plan, number, self._all)
        return None if was is None or was == found.item else found

    def running(self, operator: str, running: Iterable[Running]) -> list[Running]:
        """The plans whose terms hold as you go."""
        return [
            Running(r.plan, version.number) if (version := self.plan_for(operator, *r)) is not None else r
            for r in running
        ]

    def granted(self, operator: str, grant: Granted) -> Granted:
        """A grant that no subscription ordered: what its price differed from its plan's fee, it still does, and points
        are as the plan has them where they were."""
        if grant.source not in PLAN_SOURCES or grant.at_us < microseconds(self._start):
            return grant
        version = self.plan_for(operator, grant.plan, grant.plan_version)
        was = plan_named(operator, grant.plan, grant.plan_version, self._all)
        if version is None or was is None:
            return grant
        return grant._replace(
            plan_version=version.number,
            price_fen=max(0, grant.price_fen + version.item.fee_fen - was.fee_fen),
            amount=version.item.allowance if grant.amount == was.allowance else grant.amount,
        )

    def period_points(self, operator: str, started: s.PlanPeriodStarted, months: int) -> tuple[int, c.Plan] | None:
        """The millipoints of a period, and by which plan, where that is another than it was."""
        version = self.plan_for(operator, started.plan, started.plan_version)
        if version is None:
            return None
        _, _, allowance = phase_of(version.item, months)
        return period_allowance(allowance, started.part_days, started.whole_days), version.item

    def charges(
        self,
        operator: str,
        charges: Iterable[Charge],
        months: dict[tuple[str, int], int],
        moved: dict[tuple[str, int], int],
    ) -> list[Charge]:
        """What subscriptions charge. Of each period, by subscription and number, `months`: how many the plan had run
        before it, and `moved`: how many millipoints more than in fact were left when it was cut."""
        charges, start = list(charges), microseconds(self._start)
        periods: dict[tuple[str, int], Charge] = {}
        for charge in charges:
            key = (charge.subscription, charge.number)
            if charge.kind in UNDONE or charge.at_us < start or key not in months:
                continue
            version = self.plan_for(operator, charge.plan, charge.plan_version)
            if version is not None:
                periods[key] = _period(charge, version, months[key])
        return [_charge(charge, periods, moved) for charge in charges]


def _charge(charge: Charge, periods: dict[tuple[str, int], Charge], moved: dict[tuple[str, int], int]) -> Charge:
    key = (charge.subscription, charge.number)
    period = periods.get(key)
    if charge.kind not in UNDONE:
        return period or charge
    # A period that brought no points gives back by its days alone: as one whose points are all left.
    unused = charge.unused + moved.get(key, 0) if charge.amount or period is None else period.amount
    if period is not None:
        same = ("plan_version", "phase", "fee_fen", "discount_percent", "price_fen", "amount")
        charge = charge._replace(**{name: getattr(period, name) for name in same})
    return charge._replace(unused=max(0, min(unused, charge.amount)))


def _period(charge: Charge, version: Version[c.Plan], months: int) -> Charge:
    """A period of a plan by another version of it: of the same days."""
    plan = version.item
    phase, fee_fen, allowance = phase_of(plan, months)
    days = (charge.part_days, charge.whole_days)
    return charge._replace(
        plan_version=version.number,
        phase=phase,
        fee_fen=fee_fen,
        discount_percent=plan.discount_percent,
        price_fen=period_price(fee_fen, *days, plan.discount_percent),
        amount=period_allowance(allowance, *days),
    )


# --- catalogues ------------------------------------------------------------------------------
def _folded(published: Iterable[tuple[int, Event]], position: int) -> CatalogueView:
    view = CatalogueView()
    for at, event in published:
        if at <= position:
            view.apply(at, event)
    return view


def _numbered(published: CatalogueView, item: Item, start: datetime) -> Version[Item]:
    """An item as a version: the last published one that equals it, else the one that would be published next."""
    versions = published.versions(type(item), item.key)
    number = max((v.number for v in versions if v.item == item), default=0)
    return Version(number or max((v.number for v in versions), default=0) + 1, start, start, item)


def _publication(plan: Version[c.Plan], at: datetime) -> c.PlanPublished:
    return c.PlanPublished(
        at=at, recorded_at=at, request_id="overlay", version=plan.number, effective_from=at, item=plan.item
    )


def _same(published: CatalogueView, reference: str, card: c.RateCard) -> bool:
    try:
        return published.rate_card_of(reference) == card
    except NoRateInForce:
        return False
