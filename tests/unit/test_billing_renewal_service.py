"""Billing has the points of its subscriptions granted by quota, by itself, as often as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.billing.service import BillingService
from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from shared.config import Settings
from shared.errors import UnknownAccount
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.waiting import eventually

WALLET = {"operator": "shanghai-telecom", "account": "a1"}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path, subscriptions_interval_s=0.1, follow_poll_s=0.1)
    inproc.reset()


def subscribed(client: Client) -> bool:
    try:
        client.call("billing", "subscribe", **WALLET, request_id="s", plan="token-9.9")
    except UnknownAccount:
        return False  # billing has not heard of it yet
    return True


def test_who_subscribes_has_points(settings: Settings) -> None:
    with serving([CatalogService, QuotaService, BillingService], settings), Client(settings) as client:
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == client.call("catalog", "head"))
        client.call("quota", "open_account", **WALLET, request_id="o")
        eventually(lambda: subscribed(client))
        eventually(lambda: client.call("quota", "balance", **WALLET)["available"] > 0)
        (grant,) = client.call("quota", "balance", **WALLET)["grants"]
        assert (grant["grant"], grant["plan"]) == ("plan/s/1", "token-9.9")
        (row,) = client.call("billing", "subscriptions", **WALLET)["subscriptions"]
        assert (row["status"], row["period"]) == ("active", 1)
