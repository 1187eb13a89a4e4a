"""A month's close and what came late: the cut-off, late usage carried by later bills, and reversals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.domain.late import Earlier, carried
from services.billing.questions import CloseStatus
from shared.contracts.base import Usage
from shared.errors import MalformedCommand, NotCaughtUp
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    bill_of,
    billing,
    follow,
    issue,
    july,
    june,
    kinds,
    set_clock,
)

FEN = 2_500_000  # millipoints at list price
ONE_FEN = Usage(input=2_500)  # 2,500 tokens at 1,000 points per 1,000


class TestCutOff:
    def world(self, tmp_path: Path) -> tuple[BillingApplication, QuotaLog]:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), ONE_FEN, overdrawn=FEN)
        return app, quota

    def test_not_before_billing_has_followed_to_it(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        follow(app, quota)
        with pytest.raises(NotCaughtUp) as refused:
            issue(app, quota, quota_position=quota.head + 3)
        assert refused.value.details == {"log": "quota", "position": 2, "head": 5}
        assert app.log.head() == 0

    def test_what_was_followed_beyond_it_does_not_count(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        cut_off = quota.head
        quota.debit(june(30), ONE_FEN, overdrawn=FEN, recorded=july(1, 1))
        quota.grant("purchase", 1000, june(30), price_fen=70, recorded=july(1, 1))
        follow(app, quota)
        issue(app, quota, quota_position=cut_off)
        bill = bill_of(app)
        assert (bill["total_fen"], bill["quota_position"]) == (1, cut_off)

    def test_not_before_usage_that_was_recorded_while_the_period_ran(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        follow(app, quota)
        with pytest.raises(MalformedCommand) as refused:
            issue(app, quota, quota_position=1)
        assert list(refused.value.details["fields"]) == ["quota_position"]

    def test_it_may_fall_among_the_last_minutes_of_the_period(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        cut_off = quota.head
        quota.debit(june(30, 23, 59), ONE_FEN, overdrawn=FEN)
        follow(app, quota)
        issue(app, quota, quota_position=cut_off)
        assert bill_of(app)["total_fen"] == 1

    def test_days_and_months_are_shanghais(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        quota.debit(june(30, 23, 59), ONE_FEN, overdrawn=FEN)
        quota.debit(july(1, 0, 0), ONE_FEN, overdrawn=FEN)  # still June in UTC
        follow(app, quota)
        issue(app, quota)
        assert bill_of(app)["total_fen"] == 2


class TestLateUsage:
    """June was billed at its cut-off; what happened in June and came later is on July's bill, once."""

    def closed_june(self, tmp_path: Path) -> tuple[BillingApplication, QuotaLog]:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), ONE_FEN, overdrawn=FEN)
        follow(app, quota)
        issue(app, quota)
        return app, quota

    def close(self, app: BillingApplication, quota: QuotaLog, period: str, month: int) -> dict[str, Any]:
        set_clock(app, july(1, 3).replace(month=month))
        follow(app, quota)
        issue(app, quota, period)
        return bill_of(app, period=period)

    def test_it_is_on_the_next_bill_as_such(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        quota.debit(june(29), ONE_FEN, overdrawn=FEN, recorded=july(2))
        quota.debit(july(3), ONE_FEN, overdrawn=FEN)
        july_bill = self.close(app, quota, JULY, 8)
        assert kinds(july_bill) == [("usage", 1), ("late_usage", 1)]
        assert kinds(bill_of(app)) == [("usage", 1)]

    def test_it_is_carried_once(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        quota.debit(june(29), ONE_FEN, overdrawn=FEN, recorded=july(2))
        self.close(app, quota, JULY, 8)
        quota.debit(june(30), ONE_FEN, overdrawn=FEN, recorded=july(2).replace(month=8))
        assert kinds(self.close(app, quota, "2026-08", 9)) == [("late_usage", 1)]

    def test_late_of_several_months_is_one_line_per_model_and_rate_card(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        self.close(app, quota, JULY, 8)
        august = july(2).replace(month=8)
        quota.debit(june(29), ONE_FEN, overdrawn=FEN, recorded=august)
        quota.debit(july(29), ONE_FEN, overdrawn=FEN, recorded=august)
        quota.debit(july(29), ONE_FEN, overdrawn=FEN, recorded=august, model="glm-5")
        bill = self.close(app, quota, "2026-08", 9)
        assert [(line["kind"], line["model"], line["fen"]) for line in bill["lines"]] == [
            ("late_usage", "glm-5", 1),
            ("late_usage", "kimi-k2.5", 2),
        ]

    def test_a_late_reversal_gives_back(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        quota.reverse(june(30), overdrawn=FEN, recorded=july(2))
        bill = self.close(app, quota, JULY, 8)
        assert kinds(bill) == [("late_usage", -1)]
        assert (bill["debited"], bill["calls"]) == (-FEN, 0)

    def test_a_late_grant_is_a_line_of_its_own_kind(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        quota.grant("purchase", 1000, june(28), price_fen=70, recorded=july(2))
        assert kinds(self.close(app, quota, JULY, 8)) == [("purchase", 70)]

    def test_recorded_with_a_clock_that_stands_still_it_is_late_all_the_same(self, tmp_path: Path) -> None:
        app, quota = self.closed_june(tmp_path)
        quota.debit(june(29), ONE_FEN, overdrawn=FEN)
        assert kinds(self.close(app, quota, JULY, 8)) == [("late_usage", 1)]

    def test_of_a_month_that_has_no_bill_it_waits_for_that_bill(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), ONE_FEN, overdrawn=FEN)
        assert kinds(self.close(app, quota, JULY, 8)) == []
        set_clock(app, july(5))
        issue(app, quota)
        assert kinds(bill_of(app)) == [("usage", 1)]

    def test_with_months_billed_out_of_order_it_is_carried_once_all_the_same(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        self.close(app, quota, JULY, 8)
        august = july(2).replace(month=8)
        quota.debit(june(29), ONE_FEN, overdrawn=FEN, recorded=august)
        quota.debit(july(29), ONE_FEN, overdrawn=FEN, recorded=august, model="glm-5")
        follow(app, quota)
        set_clock(app, july(4).replace(month=8))
        issue(app, quota)
        assert kinds(bill_of(app)) == [("usage", 1)]
        (line,) = self.close(app, quota, "2026-08", 9)["lines"]
        assert (line["kind"], line["model"]) == ("late_usage", "glm-5")


@pytest.mark.parametrize(
    ("bills", "expected"),
    [
        ([], {}),
        ([Earlier(JUNE, 10, 1)], {JUNE: 10}),
        ([Earlier(JUNE, 10, 1), Earlier(JULY, 20, 2)], {JUNE: 20, JULY: 20}),
        # July's bill was there before June's: it carries nothing of June.
        ([Earlier(JULY, 20, 1), Earlier(JUNE, 10, 2)], {JUNE: 10, JULY: 20}),
        # September's bill comes after, and is not of an earlier period.
        ([Earlier(JUNE, 10, 1), Earlier("2026-09", 30, 2)], {JUNE: 30}),
        # August was billed already: as it was then.
        ([Earlier(JUNE, 10, 1), Earlier("2026-08", 20, 2), Earlier(JULY, 30, 3)], {JUNE: 10}),
    ],
)
def test_up_to_where_earlier_bills_of_august_carry(bills: list[Earlier], expected: dict[str, int]) -> None:
    assert carried(bills, "2026-08") == expected


class TestDatedBackBeforeTheOpening:
    @pytest.fixture
    def quota(self) -> QuotaLog:
        quota = QuotaLog(account="young")
        quota.open(account="old")
        quota.open(july(1, 0, 30))
        return quota

    def test_it_is_on_a_bill_of_its_month(self, tmp_path: Path, quota: QuotaLog) -> None:
        quota.grant("purchase", 1000, june(30), price_fen=70, recorded=july(1, 1))
        quota.debit(june(30), ONE_FEN, overdrawn=FEN, recorded=july(1, 1))
        quota.open(july(1, 1), account="of-july")
        app = billing(tmp_path)
        follow(app, quota)
        assert issue(app, quota)["issued"] == 2
        assert kinds(bill_of(app, "young")) == [("purchase", 70), ("usage", 1)]

    def test_behind_the_cut_off_it_is_told_of(self, tmp_path: Path, quota: QuotaLog) -> None:
        app = billing(tmp_path)
        follow(app, quota)
        assert issue(app, quota)["issued"] == 1
        quota.debit(june(30), ONE_FEN, overdrawn=FEN, recorded=july(1, 2))
        follow(app, quota)
        ((shard,),) = (o["shards"] for o in app.close_status(CloseStatus(period=JUNE))["operators"])
        assert (shard["remaining"], shard["late"]) == (0, 1)
        assert issue(app, quota)["issued"] == 1
        assert kinds(bill_of(app, "young")) == [("usage", 1)]


class TestReversals:
    def test_what_went_back_to_credit_is_not_paid(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open(credit_limit=10 * FEN)
        # 10 fen of usage: 4 from a grant, 6 from credit; 5 given back, of it 3 to credit.
        quota.debit(june(3), Usage(input=25_000), credit=6 * FEN)
        quota.reverse(june(4), grants=2 * FEN, credit=3 * FEN)
        follow(app, quota)
        issue(app, quota)
        (line,) = bill_of(app)["lines"]
        assert (line["fen"], line["charged"], line["amount"]) == (3, 3 * FEN, 5 * FEN)

    def test_parts_of_a_streamed_call_count_as_one_call(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), Usage(input=100), final=False)
        quota.debit(june(3), Usage(output=50), final=True)
        follow(app, quota)
        issue(app, quota)
        bill = bill_of(app)
        assert (bill["calls"], bill["tokens"]) == (1, 150)
