"""Which deployment a call goes to: hard filters, then a score in integer thousandths, lower is better.

Pure and deterministic: the same market, fleet, call and instant give the same choice; of equals the
name that sorts first wins. It knows nothing of events, storage or the clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from services.routing.domain.capacity import Capacity
from services.routing.domain.fleet import Fleet
from services.routing.domain.health import Health
from services.routing.domain.market import LATENCY_SCALE_MS, WORST, Candidate, Market, Weights, wholesale_price
from shared.catalogue.view import applicable_rates
from shared.contracts.base import Rates, Usage
from shared.contracts.routing import Rejected, Route, Score
from shared.errors import NoDeployment

FALLBACKS_MAX = 5
RECORDED_MAX = 64  # candidates whose score or rejection an event keeps

EXCLUDED = "excluded"
RESIDENCY = "residency"
CIRCUIT_OPEN = "circuit-open"
CALLS_EXHAUSTED = "calls-exhausted"
TOKENS_EXHAUSTED = "tokens-exhausted"
PRICE_CAP = "price-cap"


# A candidate that passed, its price and load shares in thousandths, and its time to first token where measured.
Eligible = tuple[Candidate, int, int, int | None]


class Choice(NamedTuple):
    """Where a call goes and why. `scores`: best first, the chosen one at its head."""

    chosen: Candidate
    rates: Rates
    scores: tuple[Score, ...]
    fallbacks: tuple[str, ...]
    rejected: tuple[Rejected, ...]


def choose(market: Market, fleet: Fleet, call: Route, at: datetime, now_ms: int) -> Choice:
    """The deployment for a call that begins at `at`, decided at `now_ms`.

    Raises NoDeployment, with the reason for every candidate in `details.rejected`.
    """
    rates = applicable_rates(market.card, Usage(input=call.input_tokens), at)
    fleet.capacity.expire(now_ms)
    tokens = leased_tokens(call) or 1  # a call that announces no tokens still needs one left
    eligible: list[Eligible] = []
    rejected: list[Rejected] = []
    for candidate, price_share in zip(market.candidates, market.price_shares(rates), strict=True):
        health = fleet.health.get(candidate.deployment)
        load = _load(candidate, health, fleet.capacity, call, tokens, rates, now_ms)
        if isinstance(load, str):
            rejected.append(Rejected(deployment=candidate.deployment, reason=load))
        else:
            ttft_ms = health.ttft.percentile(now_ms) if health is not None else None
            eligible.append((candidate, price_share, load, ttft_ms))
    if not eligible:
        raise NoDeployment(
            f"no deployment of {call.model} can take this call",
            {
                "model": call.model,
                "rejected": [{"deployment": r.deployment, "reason": r.reason} for r in rejected[:RECORDED_MAX]],
            },
        )
    scored = _scored(market.weights, eligible)
    chosen = scored[0][2]
    return Choice(
        chosen=chosen,
        rates=rates,
        scores=tuple(score for _, _, _, score in scored[:RECORDED_MAX]),
        fallbacks=_fallbacks([candidate.deployment for _, _, candidate, _ in scored[1:RECORDED_MAX]], fleet, now_ms),
        rejected=tuple(rejected[:RECORDED_MAX]),
    )


def leased_tokens(call: Route) -> int:
    """What a call takes of a deployment's tokens per minute."""
    return max(call.tokens, call.input_tokens)


def _load(
    candidate: Candidate,
    health: Health | None,
    capacity: Capacity,
    call: Route,
    tokens: int,
    rates: Rates,
    now_ms: int,
) -> int | str:
    """The hard filters, in order: the first reason that takes the candidate out, else its load in thousandths."""
    name = candidate.deployment
    if name in call.exclude:
        return EXCLUDED
    if candidate.barred:
        return candidate.barred
    if call.residency and not candidate.residency.issuperset(call.residency):
        return RESIDENCY
    if health is not None and not health.admits(now_ms):
        return CIRCUIT_OPEN
    calls, calls_max = capacity.calls(name), candidate.concurrent_calls
    if calls >= calls_max:
        return CALLS_EXHAUSTED
    promised, promised_max = capacity.tokens(name, now_ms), candidate.tokens_per_minute
    if promised + tokens > promised_max:
        return TOKENS_EXHAUSTED
    if call.price_cap is not None and _highest_price(candidate, call, rates) > call.price_cap:
        return PRICE_CAP
    if health is not None and health.throttled(now_ms):
        return WORST
    return max(calls * WORST // calls_max, promised * WORST // promised_max)


def _highest_price(candidate: Candidate, call: Route, retail: Rates) -> int:
    """Millipoints for the dearest use the call may make, to the subscriber or wholesale, whichever is more."""

    def highest(rates: Rates) -> int:
        dearest_input = max(rates.input, rates.cached_input, rates.cache_write)
        rest = max(call.tokens - call.input_tokens, 0)
        return call.input_tokens * dearest_input + rest * max(dearest_input, rates.output)

    return max(highest(retail), wholesale_price(candidate.terms, retail, highest))


def _scored(weights: Weights, eligible: list[Eligible]) -> list[tuple[int, str, Candidate, Score]]:
    """Best first: total, name, candidate, score."""
    measured = [ttft_ms for _, _, _, ttft_ms in eligible if ttft_ms is not None]
    # What nobody has measured is taken to be as fast as the others are on average.
    mean_ms = sum(measured) // len(measured) if measured else 0
    scored = []
    for candidate, price_share, load, ttft_ms in eligible:
        wait_ms = candidate.round_trip_ms + (mean_ms if ttft_ms is None else ttft_ms)
        price = weights.price * price_share
        latency = weights.latency * min(WORST, wait_ms * WORST // LATENCY_SCALE_MS)
        loaded = weights.load * load
        carbon = weights.carbon * candidate.carbon
        preference = weights.preference * candidate.preference
        total = price + latency + loaded + carbon + preference
        score = Score(
            deployment=candidate.deployment,
            serving_operator=candidate.serving_operator,
            total=total,
            price=price,
            latency=latency,
            load=loaded,
            carbon=carbon,
            preference=preference,
        )
        scored.append((total, candidate.deployment, candidate, score))
    scored.sort(key=_rank)
    return scored


def _rank(scored: tuple[int, str, Candidate, Score]) -> tuple[int, str]:
    return scored[0], scored[1]


def _fallbacks(names: list[str], fleet: Fleet, now_ms: int) -> tuple[str, ...]:
    """The next best whose circuits are closed: a half-open one takes probes only, and those are leased."""
    found = []
    for name in names:
        health = fleet.health.get(name)
        if health is None or health.state(now_ms) == "closed":
            found.append(name)
            if len(found) == FALLBACKS_MAX:
                break
    return tuple(found)
