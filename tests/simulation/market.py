"""The market of the simulation, twice: as the service gets it from the catalog, and as the auditor reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from services.audit.replay.prices import Prices
from shared.contracts import catalog as c
from shared.contracts.base import Rates, encode_event
from shared.eventstore.log import LoggedEvent
from tests.unit.quota_world import CATALOGUE, OPERATOR, START, catalogue_page

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RISE = START + timedelta(minutes=5)  # while the simulation lives, deepseek becomes dearer


def catalogue() -> list[LoggedEvent]:
    """The catalog's log as a follower gets it."""
    page = catalogue_page(CATALOGUE, LONG_AGO)
    card = c.RateCard(operator=OPERATOR, model="deepseek-chat", rates=Rates(input=700, cached_input=70, output=3000))
    rise = c.RateCardPublished(
        at=LONG_AGO, recorded_at=LONG_AGO, request_id="rise", version=2, effective_from=RISE, item=card
    )
    state = encode_event(rise).decode()
    return [*page, LoggedEvent(len(page) + 1, f"rate_card:{card.key}", 2, rise.TOPIC, state)]


def prices() -> Prices:
    """What the auditor reads in it."""
    known = Prices()
    for event in catalogue():
        known.apply(event.position, event.stream, event.topic, msgspec.json.decode(event.state))
    return known
