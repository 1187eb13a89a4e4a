"""The market of the simulation, twice: as the service gets it from the catalog, and as the model knows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.contracts import catalog as c
from shared.contracts.base import Rates, encode_event
from shared.eventstore.log import LoggedEvent
from tests.simulation.books import Card, Market
from tests.unit.quota_world import CATALOGUE, OPERATOR, START, catalogue_page

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RISE = START + timedelta(minutes=5)  # while the simulation lives, deepseek becomes dearer

MARKET = Market(
    families={"kimi-k2.5": "kimi", "deepseek-chat": "deepseek", "unpriced": "other"},
    cards={
        "kimi-k2.5": (
            Card(
                f"{OPERATOR}/kimi-k2.5@1",
                LONG_AGO,
                {"input": 1000, "cached_input": 200, "cache_write": 1000, "output": 5000},
                ((100_000, {"input": 2000, "output": 10_000}),),
            ),
        ),
        "deepseek-chat": (
            Card(f"{OPERATOR}/deepseek-chat@1", LONG_AGO, {"input": 500, "output": 2000}),
            Card(f"{OPERATOR}/deepseek-chat@2", RISE, {"input": 700, "cached_input": 70, "output": 3000}),
        ),
    },
)


def catalogue() -> list[LoggedEvent]:
    """The catalog's log as a follower gets it."""
    page = catalogue_page(CATALOGUE, LONG_AGO)
    card = c.RateCard(operator=OPERATOR, model="deepseek-chat", rates=Rates(input=700, cached_input=70, output=3000))
    rise = c.RateCardPublished(
        at=LONG_AGO, recorded_at=LONG_AGO, request_id="rise", version=2, effective_from=RISE, item=card
    )
    state = encode_event(rise).decode()
    return [*page, LoggedEvent(len(page) + 1, f"rate_card:{card.key}", 2, rise.TOPIC, state)]
