"""The quota service expires what is due by itself, at the interval that the settings give."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from shared.config import Settings
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.waiting import eventually

WALLET = {"operator": "shanghai-telecom", "account": "a1"}


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(var=tmp_path, sweep_interval_s=0.1, follow_poll_s=0.1)
    inproc.reset()


def test_a_hold_nobody_settles_comes_back_by_itself(settings: Settings) -> None:
    with serving([CatalogService, QuotaService], settings), Client(settings) as client:
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == client.call("catalog", "head"))
        client.call("quota", "open_account", **WALLET, request_id="o")
        client.call("quota", "grant", **WALLET, request_id="g", amount=10**6, source="purchase")
        client.call("quota", "reserve", **WALLET, request_id="h", model="kimi-k2.5", amount=10**6, ttl_s=1)
        assert client.call("quota", "balance", **WALLET)["available"] == 0
        eventually(lambda: client.call("quota", "balance", **WALLET)["available"] == 10**6)


def test_the_sweep_can_be_turned_off(settings: Settings) -> None:
    still = settings.model_copy(update={"sweep_interval_s": 0.0})
    with serving([QuotaService], still) as runner:
        (timer,) = [e for e in runner.containers[0].entrypoints if getattr(e, "setting", "") == "sweep_interval_s"]
        assert timer.gt is None
