"""The catalog called as a service: every method it promises, its refusals with their details, its log in pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.catalog.sample import sample_publication
from services.catalog.schemas import METHODS
from services.catalog.service import CatalogService
from shared.catalogue.view import CatalogueView
from shared.config import Settings
from shared.contracts.base import decode_event
from shared.errors import CatalogueConflict, MalformedCommand, NoRateInForce
from shared.messaging.client import Client
from shared.messaging.runner import serving

START = datetime(2026, 6, 1, tzinfo=UTC)
LIST_COUNTS = {
    "models": 39,
    "rate_cards": 117,
    "plans": 24,
    "operators": 3,
    "regions": 9,
    "data_centres": 8,
    "deployments": 147,
    "tariffs": 18,
    "policies": 3,
    "imports": 1,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a catalog service that has published the sample."""
    settings = Settings(var=Path(tmp_path_factory.mktemp("var")))
    with serving([CatalogService], settings), Client(settings) as client:
        assert client.call("catalog", "publish", **sample_publication(START))["published"] > 300
        yield client


@pytest.mark.parametrize(("method", "count"), LIST_COUNTS.items())
def test_lists(client: Client, method: str, count: int) -> None:
    assert len(client.call("catalog", method)) == count


def test_single_things(client: Client) -> None:
    assert client.call("catalog", "model", model="glm-5")["item"]["family"] == "glm"
    card = client.call("catalog", "rate_card", operator="shanghai-telecom", model="kimi-k2.5")
    assert card["reference"] == "shanghai-telecom/kimi-k2.5@1"
    plan = client.call("catalog", "plan", operator="shanghai-telecom", plan="monthly-9.9")
    assert plan["item"]["allowance"] == 10_000_000_000
    assert len(client.call("catalog", "history", kind="model", key="glm-5")) == 1


def test_every_promised_method_is_there() -> None:
    promised = {method.name for method in METHODS}
    assert promised == {*LIST_COUNTS, "publish", "check", "compare", "model", "rate_card", "plan", "history"}
    assert all(callable(getattr(CatalogService, name)) for name in promised)


def test_refusals_keep_their_details(client: Client) -> None:
    with pytest.raises(CatalogueConflict) as conflict:
        client.call(
            "catalog",
            "publish",
            request_id="bad",
            effective_from="2026-07-01T00:00:00Z",
            catalogue={"policies": [{"operator": "nobody"}]},
        )
    assert conflict.value.details["reasons"] == ["policies.0.operator (nobody): no operator 'nobody' is in force then"]
    with pytest.raises(NoRateInForce):
        client.call("catalog", "rate_card", operator="shanghai-telecom", model="glm-5", known_at="2020-01-01T00:00:00Z")
    with pytest.raises(MalformedCommand) as malformed:
        client.call("catalog", "models", status="gone", page=1)
    assert set(malformed.value.details["fields"]) == {"status", "page"}


def test_a_follower_can_rebuild_the_catalogue_from_its_pages(client: Client) -> None:
    view = CatalogueView()
    while events := client.call("catalog", "events", after=view.position, limit=100)["events"]:
        for event in events:
            view.apply(event["position"], decode_event(event["topic"], event["state"]))
    assert view.position == client.call("catalog", "head")
    _, card = view.rate_card("shanghai-mobile", "qwen-plus", START)
    assert card.tiers[0].above_input_tokens == 256_000
    assert client.call("catalog", "ping") == {"service": "catalog"}
