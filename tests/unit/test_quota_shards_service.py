"""The services with several shards of quota, as they run: each log is followed by itself, a service's own without
the broker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from services.audit.service import AuditService
from services.billing.service import BillingService
from services.catalog.sample import sample_publication
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from shared.config import Settings
from shared.errors import MalformedCommand
from shared.eventstore.log import LoggedEvent
from shared.messaging import inproc
from shared.messaging.client import Client
from shared.messaging.follower import BrokenLog, check_page
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.runner import serving
from tests.waiting import eventually

SHARDS = 3
OPERATOR = "shanghai-telecom"
NAMES = [f"a{n}" for n in range(20)]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    # So rarely polled that what is followed in time was prompted.
    yield Settings(var=tmp_path, quota_shards=SHARDS, follow_poll_s=60, seal_interval_s=0.1, sweep_interval_s=0)
    inproc.reset()


def open_accounts(client: Client) -> list[int]:
    """Accounts in every shard; the heads of the shards' logs."""
    client.call("catalog", "publish", **sample_publication(datetime(2026, 5, 1, tzinfo=UTC)))
    eventually(lambda: client.call("quota", "status")["followed"]["catalog"] == client.call("catalog", "head"))
    for name in NAMES:
        client.call("quota", "open_account", operator=OPERATOR, account=name, request_id="open")
    return [client.call("quota", "head", shard=shard) for shard in range(SHARDS)]


def test_every_shards_log_is_followed_by_all_who_follow_quota(settings: Settings) -> None:
    services = [CatalogService, QuotaService, BillingService, AuditService]
    with serving(services, settings), Client(settings) as client:
        heads = open_accounts(client)
        assert sum(heads) == len(NAMES)
        assert all(heads)
        eventually(lambda: client.call("billing", "status")["followed"]["quota_shards"] == heads)
        eventually(lambda: client.call("quota", "status")["followed"]["quota"] == sum(heads))

        def sealed() -> list[int]:
            found: dict[str, int] = client.call("audit", "status")["sealed"]
            return [found[f"quota-{shard}"] for shard in range(SHARDS)]

        eventually(lambda: sealed() == heads)


def test_a_log_is_asked_for_by_its_shard(settings: Settings) -> None:
    with serving([CatalogService, QuotaService], settings), Client(settings) as client:
        heads = open_accounts(client)
        pages = [client.call("quota", "events", shard=shard) for shard in range(SHARDS)]
        assert [page["log"] for page in pages] == [f"quota-{shard}" for shard in range(SHARDS)]
        assert [len(page["events"]) for page in pages] == [page["head"] for page in pages] == heads
        assert client.call("quota", "events") == pages[0]
        for wrong in (SHARDS, -1, "1", True):
            for method in ("events", "head"):
                with pytest.raises(MalformedCommand):
                    client.call("quota", method, shard=wrong)
        with pytest.raises(MalformedCommand):
            client.call("catalog", "head", shard=1)


def test_its_own_log_is_read_without_the_broker(settings: Settings) -> None:
    asked: list[int] = []

    class Watched(QuotaService):
        @rpc
        def events(self, after: int = 0, limit: int = 1000, shard: int = 0) -> dict[str, Any]:
            asked.append(shard)
            return {}

    with serving([CatalogService, Watched], settings), Client(settings) as client:
        heads = open_accounts(client)
        eventually(lambda: client.call("quota", "status")["followed"]["quota"] == sum(heads))
        assert asked == []


class Growing:
    """A log to which something is appended after every question."""

    def __init__(self) -> None:
        self.count = 0

    def head(self) -> int:
        self.count += 1
        return self.count - 1

    def read(self, after: int, limit: int) -> list[Any]:
        self.count += 1
        return [LoggedEvent(n, "s", n, "t", "{}") for n in range(after + 1, min(self.count - 1, after + limit) + 1)]


@pytest.mark.parametrize("limit", [1, 5])
def test_what_is_appended_while_a_page_is_read_is_no_break_in_the_log(limit: int) -> None:
    class Ledger(LogService):
        name = "ledger"
        app = SimpleNamespace(shards=[SimpleNamespace(log=Growing())])
        config: ClassVar[dict[str, Any]] = {"AMQP_URI": "inproc://localhost"}

    ledger, position = Ledger(), 0
    for _ in range(10):
        events, head = check_page(ledger.events(position, limit), position, "ledger")
        position += len(events)
        assert head >= position


def test_one_who_counts_other_shards_does_not_follow(settings: Settings) -> None:
    one = settings.model_copy(update={"quota_shards": 1, "var": settings.var / "one"})
    with serving([CatalogService, QuotaService], settings), Client(settings) as client:
        open_accounts(client)
        with serving([BillingService], one) as runner:
            app = next(e.application for e in runner.containers[0].dependencies if hasattr(e, "application"))
            eventually(lambda: app.status()["followed"]["catalog"] == client.call("catalog", "head"))
            assert app.status()["followed"]["quota"] == 0


def test_a_page_of_another_log_is_refused() -> None:
    page = {"log": "quota-1", "head": 0, "events": []}
    assert check_page(page, 0, "quota-1") == ([], 0)
    with pytest.raises(BrokenLog, match="quota-1, not quota"):
        check_page(page, 0, "quota")
