"""A small catalogue and an application over SQLite with a clock that tests move: what the catalog's tests stand on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.catalog.application import CatalogApplication
from shared.clock import FrozenClock
from shared.config import Settings
from shared.errors import CatalogueConflict

# Half past nine in the morning in Shanghai; the midnights around it, in UTC.
NOW = datetime(2026, 6, 18, 1, 30, tzinfo=UTC)
TODAY = "2026-06-17T16:00:00Z"
TOMORROW = "2026-06-18T16:00:00Z"
LAST_MONTH = "2026-05-01T00:00:00Z"

CARD: dict[str, Any] = {"operator": "east", "model": "m1", "rates": {"input": 1000, "output": 3000}}
TARIFF: dict[str, Any] = {"home": "east", "serving": "west", "model": "*", "retail_percent": 60}
DEPLOYMENT: dict[str, Any] = {
    "deployment": "m1-hub",
    "model": "m1",
    "data_centre": "hub",
    "operator": "west",
    "tokens_per_minute": 1_000_000,
    "concurrent_calls": 10,
}


def small() -> dict[str, Any]:
    """Two operators, one data centre, two models, and terms for one of them."""
    return {
        "regions": [{"region": "coast", "name": "Coast", "latency_ms": {"coast": 2}}],
        "operators": [
            {"operator": "east", "name": "East", "home_region": "coast"},
            {"operator": "west", "name": "West", "home_region": "coast"},
        ],
        "models": [
            {"model": "m1", "family": "m", "developer": "D"},
            {"model": "old", "family": "o", "developer": "D", "status": "retired"},
        ],
        "data_centres": [{"data_centre": "hub", "name": "Hub", "region": "coast", "operator": "west"}],
        "deployments": [DEPLOYMENT],
        "rate_cards": [CARD],
        "tariffs": [TARIFF],
        "plans": [{"operator": "east", "plan": "payg", "name": "Pay as you go", "kind": "payg"}],
    }


class World:
    """One catalog service's application. `again()` is another process on the same database."""

    def __init__(self, folder: Path, clock: FrozenClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or FrozenClock(NOW)
        self.app = CatalogApplication(Settings(var=folder), self.clock)
        self._requests = 0

    def again(self) -> World:
        return World(self.folder, self.clock)

    def publish(self, effective_from: str = TODAY, request_id: str = "", **items: Any) -> dict[str, Any]:
        """Publish lists of items by their field: `rate_cards=[…]`."""
        self._requests += 1
        return self.app.publish(
            {
                "request_id": request_id or f"r{self._requests}-{id(self)}",
                "effective_from": effective_from,
                "catalogue": items,
            }
        )

    def reasons(self, effective_from: str = TODAY, **items: Any) -> list[str]:
        """Why a publication is refused; that it is, and that nothing was published, is asserted here."""
        head = self.app.log.head()
        try:
            self.publish(effective_from, **items)
        except CatalogueConflict as refusal:
            assert self.app.log.head() == head
            reasons: list[str] = refusal.details["reasons"]
            return reasons
        raise AssertionError("was published")

    def input_rate(self, **query: Any) -> int:
        rate: int = self.app.rate_card({"operator": "east", "model": "m1", **query})["item"]["rates"]["input"]
        return rate
