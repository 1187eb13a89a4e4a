"""The service takes snapshots by itself, while it works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from services.quota.shards import QuotaShards
from shared.config import Settings
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.runner import serving
from tests.unit.quota_histories import whole_state
from tests.unit.quota_world import OPERATOR
from tests.waiting import eventually

WALLET = {"operator": OPERATOR, "account": "a1"}
STREAM = f"{OPERATOR}/a1"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    inproc.reset()
    yield Settings(var=tmp_path, snapshot_every=5, snapshot_interval_s=0.1, follow_poll_s=0.1)
    inproc.reset()


def test_an_account_that_grows_is_kept_by_itself(settings: Settings) -> None:
    with serving([CatalogService, QuotaService], settings), Client(settings) as client:
        client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
        eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == client.call("catalog", "head"))
        client.call("quota", "open_account", **WALLET, request_id="o")
        for n in range(9):
            client.call("quota", "grant", **WALLET, request_id=f"g{n}", amount=10**6, source="purchase")
        other = QuotaShards(settings).shards[0]
        eventually(lambda: other.snapshots.load(STREAM).kept >= 5)
        assert whole_state(other.snapshots.load(STREAM).account) == whole_state(other.accounts.account(STREAM))
        assert client.call("quota", "statement", **WALLET, newest_first=True, limit=1)["next"] == 10
        other.close()
