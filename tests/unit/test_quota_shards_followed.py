"""Several shards of quota, and what follows them: bills, statements and the audit agree over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.audit.replay import run_audit
from shared.errors import MalformedCommand
from shared.sharding import log_of, shard_of
from tests.unit.audit_world import EAST, JULY, JUNE, Market, two_months

SHARDS = 4


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """For those who only ask: two shards."""
    made = two_months(tmp_path_factory.mktemp("market"), seed=1, events=20, shards=2)
    yield made
    made.close()


def test_bills_statements_and_the_audit_agree_over_shards(tmp_path: Path, seed: int) -> None:
    market = two_months(tmp_path, seed=1, events=80, shards=SHARDS)
    for period in (JUNE, JULY):
        report = run_audit(market.client, period, wait_s=1, calls_wait_s=0.2)
        assert report.differences == ()
        assert (report.accounts, report.bills) == (8, 8)
        assert {f"quota-{n}" for n in range(SHARDS)} < set(report.events)
        assert {f"quota-{n}" for n in range(SHARDS)} < set(report.checkpoints)
    bill = next(e.event.bill for e in market.billing.log.read(0, 10) if hasattr(e.event, "bill"))
    assert bill.quota_log == log_of(bill.operator, bill.account, SHARDS)
    market.close()


def test_the_audit_finds_an_account_in_a_log_that_is_not_its_own(tmp_path: Path) -> None:
    market = two_months(tmp_path, seed=1, events=20, shards=2)
    stray = next(f"x{n}" for n in range(100) if shard_of(EAST, f"x{n}", 2) == 1)
    wrong = market.quota.shards[0]
    wrong.shard = 1  # it takes itself for the other
    wrong.submit("open_account", {"operator": EAST, "account": stray, "request_id": "open"})
    market.follow()
    report = run_audit(market.client, JULY, wait_s=1, calls_wait_s=0.2)
    assert {(d.what, d.log, d.account) for d in report.differences if d.area == "invariants"} == {
        ("account of another shard", "quota-0", f"{EAST}/{stray}")
    }
    market.close()


def test_the_audit_finds_a_shard_that_nobody_follows(market: Market) -> None:
    keys = market.audit.status()["verifier_keys"]
    del keys["quota-1"]
    report = run_audit(market.client, JULY, verifier_keys=keys, wait_s=0.1, calls_wait_s=0.1)
    assert "quota has more shards than are followed" in {d.what for d in report.differences}


class TestBilling:
    """The close of a month over shards."""

    @pytest.mark.parametrize(
        ("method", "fields", "complaint"),
        [
            ("issue_bills", {"operator": EAST, "quota_position": 1, "quota_shard": 2}, "quota_shard"),
            ("settle_period", {"quota_position": 1}, "quota_positions"),
            ("settle_period", {"quota_positions": [1]}, "quota_positions"),
            ("settle_period", {}, "quota_positions"),
            ("settle_period", {"quota_positions": [1, 1], "quota_position": 2}, "quota_position"),
        ],
    )
    def test_a_cut_off_names_every_shard_it_is_about(
        self, market: Any, method: str, fields: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(MalformedCommand) as refused:
            market.billing.submit(method, {"period": JUNE, **fields})
        assert set(refused.value.details["fields"]) == {complaint}

    def test_its_position_is_kept_by_log(self, market: Any) -> None:
        heads = [shard.log.head() for shard in market.quota.shards]
        assert market.billing.status()["followed"]["quota_shards"] == heads
        positions = partial(market.billing.follow_quota, [])
        assert [positions(shard=0), positions(shard=1)] == heads
