"""Credits in a subscriber's favour: the next bills use them up, never more than there is, never twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.questions import Bills
from shared.contracts.base import Usage
from shared.contracts.billing import DryRun
from shared.errors import IdempotencyConflict, LimitExceeded, MalformedCommand, UnknownAccount
from shared.units import AMOUNT_MAX
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    bill_of,
    billing,
    follow,
    issue,
    issued,
    july,
    june,
    kinds,
    set_clock,
)

FEN = 2_500_000
AUGUST = july(1, 3).replace(month=8)


@pytest.fixture
def quota() -> QuotaLog:
    """100 fen of usage in June, 40 in July."""
    made = QuotaLog()
    made.open()
    made.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN)
    made.debit(july(3), Usage(input=100_000), overdrawn=40 * FEN)
    return made


@pytest.fixture
def app(tmp_path: Path, quota: QuotaLog) -> BillingApplication:
    """Billing in August, nothing billed yet."""
    made = billing(tmp_path, now=AUGUST)
    follow(made, quota)
    return made


def grant(app: BillingApplication, fen: int, request_id: str = "c1", account: str = "a1") -> dict[str, Any]:
    return app.submit("grant_credit", credit(fen, request_id, account))


def credit(fen: int, request_id: str = "c1", account: str = "a1") -> dict[str, Any]:
    return {
        "operator": "sh-telecom",
        "account": account,
        "request_id": request_id,
        "fen": fen,
        "reason": "a slow week",
    }


def run(quota: QuotaLog, period: str) -> dict[str, Any]:
    return {"command": "issue_bills", "operator": "sh-telecom", "period": period, "quota_position": quota.head}


class TestGranting:
    def test_is_an_event_in_the_accounts_stream(self, app: BillingApplication) -> None:
        receipt = grant(app, 30)
        assert (receipt["kind"], receipt["fen"], receipt["replayed"]) == ("AccountCredited", 30, False)
        assert grant(app, 5, "c2")["version"] == 2
        assert [e.stream for e in app.log.read(0, 10)] == ["credits:sh-telecom/a1"] * 2

    def test_the_same_request_has_one_effect_and_one_answer(self, app: BillingApplication) -> None:
        first = grant(app, 30)
        assert grant(app, 30) == first | {"replayed": True}
        with pytest.raises(IdempotencyConflict):
            grant(app, 31)
        assert app.log.head() == 1

    def test_only_to_an_account_that_is_known(self, app: BillingApplication) -> None:
        with pytest.raises(UnknownAccount):
            grant(app, 30, account="nobody")

    @pytest.mark.parametrize("fen", [0, -1, 1.5, AMOUNT_MAX + 1])
    def test_at_least_one_fen(self, app: BillingApplication, fen: Any) -> None:
        with pytest.raises(MalformedCommand) as refused:
            grant(app, fen)
        assert list(refused.value.details["fields"]) == ["fen"]

    def test_never_more_than_can_be_added_up(self, app: BillingApplication) -> None:
        most = {"command": "grant_credit", **credit(AMOUNT_MAX - 1, "c1")}
        answers = app.execute([most, most | credit(2, "c2"), most | credit(1, "c3")])
        assert [answer.get("error", {"code": ""})["code"] for answer in answers] == ["", "LimitExceeded", ""]
        with pytest.raises(LimitExceeded) as refused:
            grant(app, 1, "c4")
        assert refused.value.details["limit"] == 0


class TestUsing:
    def test_the_next_bills_use_it_up_and_say_what_they_knew(self, app: BillingApplication, quota: QuotaLog) -> None:
        grant(app, 110)
        issue(app, quota)
        issue(app, quota, JULY)
        june_bill, july_bill = issued(app.log)
        assert [(line.kind, line.fen, line.text) for line in june_bill.lines][1:] == [("credit", -100, "Credit")]
        assert (june_bill.total_fen, june_bill.vat_fen, june_bill.billing_position) == (0, 0, 1)
        assert kinds(bill_of(app, period=JULY)) == [("usage", 40), ("credit", -10)]
        assert (july_bill.total_fen, july_bill.billing_position) == (30, 2)

    def test_a_bill_that_comes_to_nothing_uses_nothing(self, app: BillingApplication, quota: QuotaLog) -> None:
        grant(app, 110)
        set_clock(app, AUGUST.replace(month=9))
        issue(app, quota, "2026-08")
        assert kinds(bill_of(app, period="2026-08")) == []
        issue(app, quota)
        assert kinds(bill_of(app)) == [("usage", 100), ("credit", -100)]

    def test_what_is_granted_later_is_for_later_bills(self, app: BillingApplication, quota: QuotaLog) -> None:
        credit_too_late = {"command": "grant_credit", **credit(20, "c2")}
        answers = app.execute([credit_too_late, run(quota, JUNE)])
        assert answers[1]["ok"]["issued"] == 1
        (bill,) = issued(app.log)
        assert (bill.total_fen, bill.billing_position) == (100, 0)
        issue(app, quota, JULY)
        assert kinds(bill_of(app, period=JULY)) == [("usage", 40), ("credit", -20)]

    def test_a_void_bill_gives_it_back(self, app: BillingApplication, quota: QuotaLog) -> None:
        grant(app, 110)
        issue(app, quota)
        number = bill_of(app)["number"]
        app.submit("void", {"request_id": "v", "number": number, "reason": ""})
        issue(app, quota, JULY)
        assert kinds(bill_of(app, period=JULY)) == [("usage", 40), ("credit", -40)]
        issue(app, quota)
        assert kinds(bill_of(app)) == [("usage", 100), ("credit", -70)]


class TestNeverTwice:
    def test_by_two_periods_in_one_batch(self, app: BillingApplication, quota: QuotaLog) -> None:
        grant(app, 50)
        answers = app.execute([run(quota, JUNE), run(quota, JULY)])
        assert [(a["ok"]["issued"], a["ok"]["remaining"]) for a in answers] == [(1, 0), (0, 1)]
        issue(app, quota, JULY)
        assert [bill.total_fen for bill in issued(app.log)] == [50, 40]

    def test_by_two_replicas_at_the_same_instant(
        self, tmp_path: Path, app: BillingApplication, quota: QuotaLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grant(app, 50)
        other = billing(tmp_path, now=AUGUST)
        append = app.log.append
        raced: list[Any] = []

        def overtaken(*arguments: Any) -> Any:
            """The other replica bills July between this one's decision on June and its commit."""
            if not raced:
                raced.append(issue(other, quota, JULY))
            return append(*arguments)

        monkeypatch.setattr(app.log, "append", overtaken)
        issue(app, quota)
        assert [(bill.period, bill.total_fen) for bill in issued(app.log)] == [(JULY, 0), (JUNE, 90)]

    def test_not_by_a_replica_whose_read_model_was_dropped(self, app: BillingApplication, quota: QuotaLog) -> None:
        grant(app, 110)
        issue(app, quota)
        with app.engine.begin() as connection:
            for table in ("bills", "credits"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
            connection.exec_driver_sql("DELETE FROM followed WHERE projection = 'books'")
        issue(app, quota, JULY)
        assert kinds(bill_of(app, period=JULY)) == [("usage", 40), ("credit", -10)]


class TestDryRun:
    def dry(self, app: BillingApplication, period: str = JUNE) -> dict[str, Any]:
        bill: dict[str, Any] = app.dry_run(DryRun(operator="sh-telecom", account="a1", period=period))["bill"]
        return bill

    def test_knows_the_credit_that_is_left(self, app: BillingApplication) -> None:
        grant(app, 30)
        assert (kinds(self.dry(app)), self.dry(app)["billing_position"]) == ([("usage", 100), ("credit", -30)], 1)

    def test_of_a_billed_period_is_the_bill_whatever_was_credited_and_billed_since(
        self, app: BillingApplication, quota: QuotaLog
    ) -> None:
        grant(app, 30)
        app.execute([{"command": "grant_credit", **credit(15, "c2")}, run(quota, JUNE)])
        issue(app, quota, JULY)
        number = app.bills(Bills(period=JUNE))["bills"][0]["number"]
        assert self.dry(app) | {"number": number} == bill_of(app)
        assert kinds(bill_of(app, period=JULY)) == [("usage", 40), ("credit", -15)]
