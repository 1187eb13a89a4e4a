"""What the catalogue alone says about the candidates for a call: computed once, asked for many calls.

A `Market` holds as long as the catalogue is unchanged and nothing in it begins to take effect. Prices are
integer millipoints, shares integer thousandths. It knows nothing of health, capacity or single calls.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from shared.contracts.base import Rates, Usage
from shared.errors import MalformedCommand

LATENCY_SCALE_MS = 1_000  # round trip and time to first token together that count as the worst
LATENCY_UNKNOWN_MS = 200  # between regions whose latency nobody published
CARBON_SCALE_G = 1_000  # g/kWh that count as the worst: coal
WEIGHT_MAX = 1_000_000  # keeps a score far below the largest integer of the published language
# What a call is taken to consist of when margins are compared: three parts input, one part output.
REFERENCE_USAGE = Usage(input=750, output=250)
WORST = 1_000

NO_AGREEMENT = "no-agreement"
NO_DATA_CENTRE = "data-centre-unknown"


class Weights(NamedTuple):
    """What a policy says, bounded."""

    price: int
    latency: int
    load: int
    carbon: int
    preference: int


class Candidate(NamedTuple):
    """A deployment of the model, as one home operator's calls from one region see it."""

    deployment: str
    serving_operator: str
    barred: str  # why no call of this operator may go there; empty when one may
    residency: frozenset[str]
    tokens_per_minute: int
    concurrent_calls: int
    round_trip_ms: int
    carbon: int  # share, thousandths
    preference: int  # share, thousandths
    tariff: str  # reference of the wholesale tariff; empty at home
    terms: c.Tariff | None


class Market:
    """The candidates for one operator's calls of one model from one region, by name."""

    __slots__ = ("_price_shares", "candidates", "card", "operator", "policy_version", "rate_card", "region", "weights")

    def __init__(
        self,
        operator: str,
        region: str,
        rate_card: str,
        card: c.RateCard,
        policy_version: int,
        weights: Weights,
        candidates: tuple[Candidate, ...],
    ) -> None:
        self.operator = operator
        self.region = region
        self.rate_card = rate_card
        self.card = card
        self.policy_version = policy_version
        self.weights = weights
        self.candidates = candidates
        self._price_shares: dict[Rates, tuple[int, ...]] = {}

    def price_shares(self, retail: Rates) -> tuple[int, ...]:
        """By candidate: how much of retail goes to the serving operator, 0 (all margin) to 1,000 (none left)."""
        shares = self._price_shares.get(retail)
        if shares is None:
            shares = self._price_shares[retail] = tuple(_price_share(one.terms, retail) for one in self.candidates)
        return shares


def survey(view: CatalogueView, operator: str, model: str, region: str, at: datetime) -> Market:
    """The market for these calls at an instant; `region` empty: the operator's home.

    Raises UnknownOperator, UnknownModel, NoRateInForce, and MalformedCommand for an unknown region.
    """
    home = view.operator(operator, at)
    view.model(model, at)
    rate_card, card = view.rate_card(operator, model, at)
    if region and view.in_force(c.Region, region, at) is None:
        raise MalformedCommand(f"no region {region!r}", {"fields": {"region": ["unknown region"]}})
    region = region or home.home_region
    policy = view.in_force(c.Policy, operator, at)
    terms = policy.item if policy is not None else c.Policy(operator=operator)
    candidates = tuple(
        _candidate(view, operator, deployment, region, terms, at) for deployment in view.deployments_of(model, at)
    )
    weights = Weights(
        *(min(w, WEIGHT_MAX) for w in (terms.price, terms.latency, terms.load, terms.carbon, terms.preference))
    )
    number = policy.number if policy is not None else 0
    return Market(operator, region, rate_card, card, number, weights, candidates)


def wholesale_price(terms: c.Tariff | None, retail: Rates, price: Callable[[Rates], int]) -> int:
    """Millipoints the serving operator is owed for what `price` gives the price of; rounded down, nothing at home."""
    if terms is None:
        return 0
    gross = price(terms.rates) if terms.rates != Rates() else price(retail) * terms.retail_percent // 100
    return gross * (100 - terms.discount_percent) // 100


def _candidate(
    view: CatalogueView, operator: str, deployment: c.Deployment, region: str, policy: c.Policy, at: datetime
) -> Candidate:
    serving = deployment.operator
    centre = view.in_force(c.DataCentre, deployment.data_centre, at)
    agreement = None if serving == operator else view.tariff(operator, serving, deployment.model, at)
    barred = ""
    if centre is None:
        barred = NO_DATA_CENTRE
    elif serving != operator and agreement is None:
        barred = NO_AGREEMENT
    return Candidate(
        deployment=deployment.deployment,
        serving_operator=serving,
        barred=barred,
        residency=frozenset(centre.item.residency) if centre is not None else frozenset(),
        tokens_per_minute=deployment.tokens_per_minute,
        concurrent_calls=deployment.concurrent_calls,
        round_trip_ms=_round_trip_ms(view, region, centre.item.region, at) if centre is not None else 0,
        carbon=min(WORST, centre.item.carbon_g_per_kwh * WORST // CARBON_SCALE_G) if centre is not None else WORST,
        preference=_preference_share(policy.preferred, deployment),
        tariff=agreement[0] if agreement is not None else "",
        terms=agreement[1] if agreement is not None else None,
    )


def _round_trip_ms(view: CatalogueView, here: str, there: str, at: datetime) -> int:
    """As published by either of the two regions; a region is next to itself."""
    for one, other in ((here, there), (there, here)):
        region = view.in_force(c.Region, one, at)
        if region is not None and other in region.item.latency_ms:
            return region.item.latency_ms[other]
    return 0 if here == there else LATENCY_UNKNOWN_MS


def _preference_share(preferred: tuple[str, ...], deployment: c.Deployment) -> int:
    """0 for the first name on the list, growing along it; 1,000 off the list; 0 for all without a list."""
    for index, name in enumerate(preferred):
        if name in (deployment.deployment, deployment.operator, deployment.data_centre):
            return index * WORST // len(preferred)
    return WORST if preferred else 0


def _price_share(terms: c.Tariff | None, retail: Rates) -> int:
    owed = wholesale_price(terms, retail, _reference_price)
    earned = _reference_price(retail)
    if earned == 0:
        return WORST if owed else 0
    return min(WORST, owed * WORST // earned)


def _reference_price(rates: Rates) -> int:
    return rates.price(REFERENCE_USAGE)
