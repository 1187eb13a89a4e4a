"""Deciding a publication: what of it is new, and every reason against it.

Whole or not at all. The past is what calls were priced by: it is never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from services.catalog.domain.completeness import price_faults
from services.catalog.domain.kinds import Fault, Place, places
from services.catalog.domain.references import Horizon, reference_faults
from services.catalog.domain.structure import structure_faults
from shared.catalogue.view import CatalogueView
from shared.clock import SHANGHAI
from shared.contracts import catalog as c
from shared.errors import CatalogueConflict

# A publication with hundreds of mistakes must not make a refusal larger than itself.
REASONS_MAX = 200


class Publication(NamedTuple):
    """What a publication comes to: what is new, how many items hold unchanged already, and what speaks against it."""

    new: tuple[Place, ...]
    skipped: int
    faults: tuple[Fault, ...]


def judge(view: CatalogueView, command: c.Publish, now: datetime, tolerance_s: int) -> Publication:
    """What of `command` is new, and every reason against it, judged at `now`.

    `tolerance_s`: how far before `now` a new version may take effect, for clocks that differ.
    """
    all_places = tuple(places(command.catalogue))
    new = tuple(place for place in all_places if not _holds(view, place, command.effective_from))
    horizon = Horizon(view, command.catalogue, command.effective_from)
    faults = structure_faults(all_places)
    faults += _past_faults(view, new, command.effective_from, now - timedelta(seconds=tolerance_s))
    faults += _trial_faults(view, new)
    faults += reference_faults(horizon, new)
    faults += price_faults(horizon, new)
    return Publication(new, len(all_places) - len(new), tuple(faults))


def decide(view: CatalogueView, command: c.Publish, now: datetime, tolerance_s: int) -> Publication:
    """As `judge`. Raises CatalogueConflict with every reason, where there is one."""
    found = judge(view, command, now, tolerance_s)
    if found.faults:
        count = len(found.faults)
        raise CatalogueConflict(
            f"refused for {count} {'reason' if count == 1 else 'reasons'}; nothing was published",
            {"reasons": [str(fault) for fault in found.faults[:REASONS_MAX]], "count": count},
        )
    return found


def _holds(view: CatalogueView, place: Place, at: datetime) -> bool:
    found = view.in_force(place.kind.item, place.key, at)
    return found is not None and found.item == place.item


# --- the past ------------------------------------------------------------------------------------
def _past_faults(
    view: CatalogueView, new: Iterable[Place], effective_from: datetime, earliest: datetime
) -> Iterator[Fault]:
    local = effective_from.astimezone(SHANGHAI)
    midnight = (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
    for place in new:
        if isinstance(place.item, c.Tariff) and not midnight:
            yield Fault(place.path, place.key, f"a tariff takes effect at midnight in Shanghai, not at {local}")
        if effective_from < earliest and _priced_before(view, place):
            yield Fault(
                place.path,
                place.key,
                f"would change the past: known already, and {effective_from.isoformat()} is before the publication",
            )


def _trial_faults(view: CatalogueView, new: Iterable[Place]) -> Iterator[Fault]:
    """Who has taken a plan would come into a trial without asking for it, and have it a second time."""
    for place in new:
        if isinstance(place.item, c.Plan):
            was_trial = {version.item.kind == "trial" for version in view.versions(c.Plan, place.key)}
            if was_trial - {place.item.kind == "trial"}:
                yield Fault(f"{place.path}.kind", place.key, "a trial stays one, and no other plan becomes one")


def _priced_before(view: CatalogueView, place: Place) -> bool:
    """Whether something was, or may have been, priced or decided by what this would supersede.

    The first version of a key may take effect at any past instant, for nothing held there before; but a
    model's own tariff takes the place of the pair's tariff for all others.
    """
    if view.known(place.kind.item, place.key):
        return True
    return isinstance(place.item, c.Tariff) and view.known(c.Tariff, f"{place.item.home}/{place.item.serving}/*")
