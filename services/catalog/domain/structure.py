"""What is wrong with a catalogue by itself: found without knowing what was published before.

The terms of plans are checked in `terms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.catalog.domain.daytime import MINUTES_A_DAY, covered
from services.catalog.domain.kinds import Fault, Place
from services.catalog.domain.terms import plan_faults
from shared.contracts import catalog as c
from shared.contracts.base import Rates

PARTS_MAX = 100  # tiers, parts of a day or phases of one item: more is a mistake, and each is held against the others


def structure_faults(items: Iterable[Place]) -> list[Fault]:
    """Every fault of a catalogue's own making: duplicate keys, tiers, hours, terms that contradict each other."""
    faults: list[Fault] = []
    seen: dict[str, Place] = {}
    for place in items:
        first = seen.setdefault(place.stream, place)
        if first is not place:
            faults.append(Fault(place.path, place.key, f"stands twice: also at {first.path}"))
        faults += [Fault(f"{place.path}{at}", place.key, text) for at, text in _own_faults(place.item)]
    return faults


def _own_faults(item: object) -> Iterator[tuple[str, str]]:
    """Path inside the item (with a leading dot, or empty) and complaint."""
    for name in ("tiers", "off_peak", "phases"):
        if (count := len(getattr(item, name, ()))) > PARTS_MAX:
            yield f".{name}", f"has {count} entries, more than {PARTS_MAX}"
            return
    match item:
        case c.RateCard():
            yield from _tiers(item)
            yield from _hours(item)
        case c.Tariff():
            yield from _tariff(item)
        case c.Plan():
            yield from plan_faults(item)
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
