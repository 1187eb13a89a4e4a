"""What is wrong with a catalogue by itself: found without knowing what was published before."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from services.catalog.domain.daytime import MINUTES_A_DAY, covered
from services.catalog.domain.kinds import Fault, Place, places
from shared.contracts import catalog as c
from shared.contracts.base import Rates
from shared.units import round_half_away


def structure_faults(catalogue: c.Catalogue) -> list[Fault]:
    """Every fault of a catalogue's own making: duplicate keys, tiers, hours, terms that contradict each other."""
    faults: list[Fault] = []
    seen: dict[str, Place] = {}
    for place in places(catalogue):
        first = seen.setdefault(place.stream, place)
        if first is not place:
            faults.append(Fault(place.path, place.key, f"stands twice: also at {first.path}"))
        faults += [Fault(f"{place.path}{at}", place.key, text) for at, text in _own_faults(place.item)]
    return faults


def _own_faults(item: object) -> Iterator[tuple[str, str]]:
    """Path inside the item (with a leading dot, or empty) and complaint."""
    match item:
        case c.RateCard():
            yield from _tiers(item)
            yield from _hours(item)
        case c.Tariff():
            yield from _tariff(item)
        case c.Plan():
            yield from _plan(item)
        case c.Model() if item.successor == item.model:
            yield ".successor", "a model cannot succeed itself"
        case _:
            pass


def _tiers(card: c.RateCard) -> Iterator[tuple[str, str]]:
    for index in range(1, len(card.tiers)):
        lower, upper = card.tiers[index - 1].above_input_tokens, card.tiers[index].above_input_tokens
        if upper <= lower:
            yield f".tiers.{index}", f"tiers must ascend: {upper} after {lower}"


def _hours(card: c.RateCard) -> Iterator[tuple[str, str]]:
    taken: dict[int, int] = {}
    for index, part in enumerate(card.off_peak):
        if part.from_minute == part.to_minute or part.from_minute == MINUTES_A_DAY:
            yield f".off_peak.{index}", f"from {part.from_minute} to {part.to_minute} is no part of a day"
            continue
        minutes = covered(part.from_minute, part.to_minute)
        other = next((taken[minute] for minute in minutes if minute in taken), None)
        if other is not None:
            yield f".off_peak.{index}", f"overlaps off_peak.{other}: one minute cannot have two rates"
        else:
            taken.update(dict.fromkeys(minutes, index))


def _tariff(tariff: c.Tariff) -> Iterator[tuple[str, str]]:
    if tariff.home == tariff.serving:
        yield "", "a wholesale tariff is between two operators"
    if tariff.rates != Rates() and tariff.retail_percent:
        yield "", "gives rates and a share of retail: only one can hold"


def _plan(plan: c.Plan) -> Iterator[tuple[str, str]]:
    if plan.points_per_yuan == 0:
        yield ".points_per_yuan", "must be above zero: usage as you go is priced by it"
    if plan.kind == "trial" and not plan.trial_days:
        yield ".trial_days", "a trial ends: it needs trial_days"
    if plan.kind == "postpaid" and not plan.credit_limit:
        yield ".credit_limit", "a postpaid plan needs a credit_limit"
    if (plan.kind == "bundle") != (plan.bundle is not None):
        yield ".bundle", "a plan of kind bundle, and no other, says what it is sold together with"
    if plan.kind in ("monthly", "coding", "bundle", "trial") and not plan.allowance:
        yield ".allowance", f"a plan of kind {plan.kind} grants points"
    if plan.bundle is not None:
        share = attributed_fen(plan.bundle)
        if plan.fee_fen != share:
            yield (
                ".fee_fen",
                f"the tokens' share is {plan.bundle.token_share_percent} % of {plan.bundle.bundle_price_fen} fen: "
                f"{share}, not {plan.fee_fen}",
            )


def attributed_fen(bundle: c.Bundle) -> int:
    """The part of a bundle's price that belongs to the tokens, in fen, rounded once."""
    return round_half_away(Fraction(bundle.bundle_price_fen * bundle.token_share_percent, 100))
