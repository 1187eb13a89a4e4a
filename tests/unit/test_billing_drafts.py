"""Drafts are the bills to come, but for their numbers; and how far a month's close says that it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.domain.canonical import plain
from services.billing.questions import CloseStatus, DraftBills
from shared.contracts.base import Usage
from shared.errors import MalformedCommand, NotCaughtUp, UnknownOperator
from shared.sharding import shard_of
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    accounts,
    billing,
    catalogue,
    follow,
    issue,
    issued,
    july,
    june,
    set_clock,
)

FEN = 2_500_000
OPERATOR = "sh-telecom"


@pytest.fixture
def quota() -> QuotaLog:
    """Three accounts that used 100 fen each."""
    made = accounts(QuotaLog(), "a", "b", "c")
    for account in "abc":
        made.grant("trial", 5000, account=account)
        made.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account=account)
    return made


@pytest.fixture
def app(tmp_path: Path, quota: QuotaLog) -> BillingApplication:
    made = billing(tmp_path)
    follow(made, quota, catalogue())
    return made


def drafts(app: BillingApplication, **fields: Any) -> dict[str, Any]:
    return app.draft_bills(DraftBills(**({"operator": OPERATOR, "period": JUNE} | fields)))


def named(answer: dict[str, Any]) -> list[str]:
    return [draft["bill"]["account"] for draft in answer["drafts"]]


class TestDrafts:
    def test_are_the_bills_that_are_issued_at_the_same_cut_off(self, app: BillingApplication, quota: QuotaLog) -> None:
        app.submit(
            "grant_credit", {"operator": OPERATOR, "account": "b", "request_id": "c", "fen": 30, "reason": "slow"}
        )
        cut_off = quota.head
        quota.debit(june(30), Usage(input=250_000), overdrawn=100 * FEN, account="a", recorded=july(1, 1))
        follow(app, quota)
        drafted = drafts(app, quota_position=cut_off)
        assert app.log.head() == 1, "nothing is changed"
        issue(app, quota, quota_position=cut_off)
        numbers = [f"sh-telecom-2026-06-{n:06d}" for n in (1, 2, 3)]
        expected = [draft["bill"] | {"number": n} for draft, n in zip(drafted["drafts"], numbers, strict=True)]
        assert [plain(bill) for bill in issued(app.log)] == expected
        assert drafts(app, quota_position=cut_off)["drafts"] == []

    def test_may_be_had_before_the_periods_end_as_of_now(self, app: BillingApplication, quota: QuotaLog) -> None:
        set_clock(app, june(4))
        answer = drafts(app)
        assert (answer["quota_position"], answer["quota_log"]) == (quota.head, "quota")
        assert [draft["bill"]["total_fen"] for draft in answer["drafts"]] == [100, 100, 100]

    def test_come_in_pages(self, app: BillingApplication) -> None:
        first = drafts(app, limit=2)
        second = drafts(app, limit=2, after=first["last"])
        assert [(named(page), page["more"]) for page in (first, second)] == [(["a", "b"], True), (["c"], False)]
        assert (drafts(app, after="c")["last"], drafts(app, after="c")["more"]) == ("c", False)

    def test_are_of_accounts_that_have_no_bill_or_a_void_one(self, app: BillingApplication, quota: QuotaLog) -> None:
        issue(app, quota, limit=2)
        assert named(drafts(app)) == ["c"]
        app.submit("void", {"request_id": "v", "number": "sh-telecom-2026-06-000001", "reason": ""})
        assert named(drafts(app)) == ["a", "c"]

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({"operator": "sh-telecon"}, UnknownOperator),
            ({"quota_position": 10}, NotCaughtUp),
            ({"quota_position": 1}, MalformedCommand),
            ({"quota_shard": 1}, MalformedCommand),
            ({"limit": 0}, MalformedCommand),
            ({"period": "9999-12"}, MalformedCommand),
        ],
    )
    def test_refusals(self, app: BillingApplication, fields: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            drafts(app, **fields)


class TestCloseStatus:
    def status(self, app: BillingApplication, period: str = JUNE, operator: str | None = OPERATOR) -> dict[str, Any]:
        answer = app.close_status(CloseStatus(period=period, operator=operator))
        (found,) = answer["operators"]
        return {**found, **found["shards"][0]}

    def test_before_during_and_after(self, app: BillingApplication, quota: QuotaLog) -> None:
        cut_off = quota.head
        shown = []
        for _ in range(3):
            shown.append(self.status(app))
            issue(app, quota, quota_position=cut_off, limit=2)
        assert [(s["cut_off"], s["accounts"], s["billed"], s["remaining"]) for s in shown] == [
            (0, 3, 0, 3),
            (cut_off, 3, 2, 1),
            (cut_off, 3, 3, 0),
        ]
        assert (shown[2]["bills"], shown[2]["total_fen"], shown[2]["vat_fen"], shown[2]["void"]) == (3, 300, 18, 0)

    def test_who_became_known_behind_the_cut_off_is_late(self, app: BillingApplication, quota: QuotaLog) -> None:
        issue(app, quota)
        cut_off = quota.head
        quota.open(june(30), account="of-june", recorded=july(2))
        quota.open(july(2), account="of-july")
        follow(app, quota)
        state = self.status(app)
        assert (state["cut_off"], state["remaining"], state["late"]) == (cut_off, 0, 1)
        assert state["followed"] == quota.head

    def test_void_bills_count_apart_and_their_accounts_are_to_be_billed(
        self, app: BillingApplication, quota: QuotaLog
    ) -> None:
        issue(app, quota)
        app.submit("void", {"request_id": "v", "number": "sh-telecom-2026-06-000003", "reason": ""})
        state = self.status(app)
        assert (state["bills"], state["void"], state["total_fen"], state["remaining"]) == (2, 1, 200, 1)

    def test_of_all_operators_that_have_accounts_by_then(self, app: BillingApplication, quota: QuotaLog) -> None:
        quota.open(june(30), operator="cm-gd", account="x", recorded=july(2))
        quota.open(july(3), operator="ct-sc", account="y")
        follow(app, quota)
        answer = app.close_status(CloseStatus(period=JUNE))
        assert [operator["operator"] for operator in answer["operators"]] == ["cm-gd", "sh-telecom"]

    def test_by_shard_of_quota(self, tmp_path: Path) -> None:
        app = billing(tmp_path, quota_shards=2)
        logs = [QuotaLog(), QuotaLog()]
        for name in "abcdef":
            logs[shard_of(OPERATOR, name, 2)].open(account=name)
        for shard, log in enumerate(logs):
            app.follow_quota(log.page(), shard)
        issue(app, logs[1], quota_shard=1, limit=1)
        first, second = app.close_status(CloseStatus(period=JUNE))["operators"][0]["shards"]
        assert (first["quota_log"], first["cut_off"], first["remaining"]) == ("quota-0", 0, logs[0].head)
        assert (second["cut_off"], second["billed"], second["remaining"]) == (logs[1].head, 1, logs[1].head - 1)

    def test_knows_the_cut_offs_of_the_statements(self, app: BillingApplication, quota: QuotaLog) -> None:
        assert app.close_status(CloseStatus(period=JUNE))["statement_cut_offs"] == []
        quota.debit(june(4), Usage(input=1), account="a", serving="cm-gd")
        follow(app, quota)
        app.submit("settle_period", {"period": JUNE, "quota_position": quota.head})
        answer = app.close_status(CloseStatus(period=JUNE))
        assert (answer["statements"], answer["statement_cut_offs"]) == (1, [quota.head])
        assert app.close_status(CloseStatus(period=JULY))["statements"] == 0

    def test_refuses_an_operator_nobody_knows(self, app: BillingApplication) -> None:
        with pytest.raises(UnknownOperator):
            self.status(app, operator="sh-telecon")
