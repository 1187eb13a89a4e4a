"""What happens to an issued bill: payments, refunds, credit notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.questions import BillOf, Bills
from shared.contracts.base import Usage
from shared.errors import IdempotencyConflict, LimitExceeded, MalformedCommand, UnknownBill
from tests.unit.billing_world import QuotaLog, billing, follow, issue, june

FEN = 2_500_000
FIRST, SECOND = "sh-telecom-2026-06-000001", "sh-telecom-2026-06-000002"


@pytest.fixture
def app(tmp_path: Path) -> BillingApplication:
    """Two bills of 100 fen."""
    made, quota = billing(tmp_path), QuotaLog()
    for account in ("a", "b"):
        quota.open(account=account)
        quota.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account=account)
    follow(made, quota)
    issue(made, quota)
    return made


def pay(app: BillingApplication, fen: int, request_id: str = "p1", number: str = FIRST, **more: Any) -> dict[str, Any]:
    return app.submit("pay", {"request_id": request_id, "number": number, "fen": fen} | more)


def credit(app: BillingApplication, fen: int, request_id: str = "c1", number: str = FIRST) -> dict[str, Any]:
    return app.submit("credit", {"request_id": request_id, "number": number, "fen": fen, "reason": "slow"})


def due(app: BillingApplication, number: str = FIRST) -> int:
    fen: int = app.bill(BillOf(number=number))["due_fen"]
    return fen


class TestPayments:
    def test_in_parts_until_nothing_is_due(self, app: BillingApplication) -> None:
        pay(app, 60)
        pay(app, 40, "p2")
        assert due(app) == 0

    def test_never_more_than_is_due(self, app: BillingApplication) -> None:
        pay(app, 60)
        with pytest.raises(LimitExceeded) as refused:
            pay(app, 41, "p2")
        assert refused.value.details["limit"] == 40
        assert due(app) == 40

    def test_two_in_one_batch_see_each_other(self, app: BillingApplication) -> None:
        payment = {"command": "pay", "number": FIRST, "fen": 60}
        answers = app.execute([payment | {"request_id": "p1"}, payment | {"request_id": "p2"}])
        assert answers[0]["ok"]["kind"] == "BillPaid"
        assert answers[1]["error"]["code"] == "LimitExceeded"

    def test_the_same_request_has_one_effect_and_one_answer(self, app: BillingApplication) -> None:
        first = pay(app, 60)
        assert pay(app, 60) == first | {"replayed": True}
        assert due(app) == 40

    def test_the_same_request_for_something_else_is_refused(self, app: BillingApplication) -> None:
        pay(app, 60)
        with pytest.raises(IdempotencyConflict):
            pay(app, 59)

    def test_a_refund_only_of_what_was_overpaid(self, app: BillingApplication) -> None:
        pay(app, 100)
        with pytest.raises(LimitExceeded):
            pay(app, -1, "refund")
        credit(app, 30)
        pay(app, -30, "refund")
        assert due(app) == 0

    @pytest.mark.parametrize("number", ["nothing", "", "sh-telecom-2026-06-000009"])
    def test_no_such_bill(self, app: BillingApplication, number: str) -> None:
        with pytest.raises(UnknownBill):
            pay(app, 1, number=number)
        with pytest.raises(UnknownBill):
            app.bill(BillOf(number=number))

    @pytest.mark.parametrize("fields", [{"fen": 0}, {"fen": 1.5}, {"fen": "1"}, {"fen": 2**63}, {"request_id": "a b"}])
    def test_malformed(self, app: BillingApplication, fields: dict[str, Any]) -> None:
        with pytest.raises(MalformedCommand):
            app.submit("pay", {"request_id": "p", "number": FIRST, "fen": 1} | fields)


class TestCreditNotes:
    def test_never_more_than_the_bill_over_all_notes(self, app: BillingApplication) -> None:
        credit(app, 70)
        with pytest.raises(LimitExceeded) as refused:
            credit(app, 31, "c2")
        assert refused.value.details["limit"] == 30
        credit(app, 30, "c3")
        assert due(app) == 0

    def test_are_numbered_per_operator_without_gaps(self, app: BillingApplication) -> None:
        batch = [
            {"command": "credit", "request_id": f"c{n}", "number": number, "fen": fen, "reason": ""}
            for n, (number, fen) in enumerate([(FIRST, 1), (SECOND, 101), (SECOND, 2), (FIRST, 3)])
        ]
        answers = app.execute(batch)
        assert [a["ok"]["number"] for a in answers if "ok" in a] == [
            "sh-telecom-2026-06-C000001",
            "sh-telecom-2026-06-C000002",
            "sh-telecom-2026-06-C000003",
        ]
        assert credit(app, 4, "next")["number"] == "sh-telecom-2026-06-C000004"

    def test_the_bill_itself_stays_as_it_was(self, app: BillingApplication) -> None:
        before = app.bill(BillOf(number=FIRST))
        credit(app, 70)
        after = app.bill(BillOf(number=FIRST))
        assert (after["bill"], after["bill_sha256"]) == (before["bill"], before["bill_sha256"])
        assert [note["fen"] for note in after["credit_notes"]] == [70]


class TestReadModel:
    def test_comes_back_identical_from_the_logs(self, app: BillingApplication) -> None:
        pay(app, 60)
        credit(app, 10)
        before = app.bills(Bills())
        with app.engine.begin() as connection:
            for table in ("bills", "credit_notes", "statements"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
            connection.exec_driver_sql("DELETE FROM followed WHERE projection = 'books'")
        assert app.bills(Bills()) == before

    def test_lists_in_pages(self, app: BillingApplication) -> None:
        first = app.bills(Bills(limit=1))
        second = app.bills(Bills(limit=1, after=first["bills"][-1]["number"]))
        assert [(p["bills"][0]["number"], p["more"]) for p in (first, second)] == [(FIRST, True), (SECOND, False)]
        assert app.bills(Bills(operator="cm-gd"))["bills"] == []
