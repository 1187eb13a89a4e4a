"""A void bill carries nothing and counts nowhere: the account is billed anew, and nothing is billed twice or lost."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.questions import BillOf, BillPage, Bills, ChargeFile
from shared.contracts.base import Usage
from shared.errors import BillSettled, Conflict, MalformedCommand
from shared.eventstore.log import NewEvent
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    accounts,
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
REASON = "the <new> price list"
FIRST, SECOND, THIRD = (f"sh-telecom-2026-06-00000{n}" for n in (1, 2, 3))


def void(app: BillingApplication, number: str = FIRST, request_id: str = "v1") -> dict[str, Any]:
    return app.submit("void", {"request_id": request_id, "number": number, "reason": REASON})


def command(name: str, number: str = FIRST, **fields: Any) -> dict[str, Any]:
    return {"command": name, "number": number, "request_id": name, **fields}


VOID = command("void", reason="wrong")
PAY = command("pay", fen=60)
CREDIT = command("credit", fen=60, reason="slow")


@pytest.fixture
def quota() -> QuotaLog:
    """Two accounts with 100 fen of usage each."""
    made = accounts(QuotaLog(), "a", "b")
    for account in "ab":
        made.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account=account)
    return made


@pytest.fixture
def app(tmp_path: Path, quota: QuotaLog) -> BillingApplication:
    """June is billed: a has FIRST, b has SECOND."""
    made = billing(tmp_path)
    follow(made, quota)
    issue(made, quota)
    return made


def next_month(app: BillingApplication, quota: QuotaLog, period: str = JULY, month: int = 8) -> Any:
    set_clock(app, july(1, 3).replace(month=month))
    follow(app, quota)
    return issue(app, quota, period)


class TestWhatBecomesOfTheBill:
    def test_nothing_is_due_on_it(self, app: BillingApplication) -> None:
        assert void(app)["kind"] == "BillVoided"
        bill = app.bill(BillOf(number=FIRST))
        assert (bill["status"], bill["due_fen"], bill["void"]["reason"]) == ("void", 0, REASON)
        assert bill["bill"]["total_fen"] == 100

    def test_its_page_says_so(self, app: BillingApplication) -> None:
        void(app)
        html = app.bill_page(BillPage(number=FIRST))["html"]
        assert "This bill is void" in html
        assert "the &lt;new&gt; price list" in html

    def test_the_same_request_has_one_answer(self, app: BillingApplication) -> None:
        first = void(app)
        assert void(app) == first | {"replayed": True}

    @pytest.mark.parametrize(
        ("commands", "codes"),
        [
            ([VOID, PAY], ["", "BillVoid"]),
            ([VOID, CREDIT], ["", "BillVoid"]),
            ([VOID, VOID | {"request_id": "another"}], ["", "BillVoid"]),
            ([PAY, VOID], ["", "BillSettled"]),
            ([CREDIT, VOID], ["", "BillSettled"]),
            ([VOID, VOID | {"reason": "another"}], ["", "IdempotencyConflict"]),
            ([command("void", "nothing", reason="")], ["UnknownBill"]),
        ],
    )
    @pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
    def test_refusals(self, app: BillingApplication, commands: list[Any], codes: list[str], together: bool) -> None:
        batches = [commands] if together else [[each] for each in commands]
        answers = [answer for batch in batches for answer in app.execute(batch)]
        assert [answer.get("error", {"code": ""})["code"] for answer in answers] == codes

    def test_an_empty_bill_is_paid_from_the_start_and_may_be_void_all_the_same(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a")
        follow(app, quota)
        issue(app, quota)
        assert app.bill(BillOf(number=FIRST))["status"] == "paid"
        void(app)
        assert app.bill(BillOf(number=FIRST))["status"] == "void"

    def test_a_bill_is_paid_when_nothing_is_due_any_more(self, app: BillingApplication) -> None:
        states = []
        for fen in (60, 40):
            app.execute([command("pay", fen=fen, request_id=str(fen))])
            states += [row["status"] for row in app.bills(Bills(account="a"))["bills"]]
        assert states == ["issued", "paid"]


class TestTheNextBill:
    def test_takes_its_place_under_the_next_number(self, app: BillingApplication, quota: QuotaLog) -> None:
        void(app)
        answer = issue(app, quota)
        assert (answer["issued"], answer["numbers"], answer["remaining"]) == (1, [THIRD, THIRD], 0)
        assert bill_of(app, "a")["number"] == THIRD
        assert issue(app, quota)["issued"] == 0
        keys = [f"bill:sh-telecom/a/{JUNE}", f"bill:sh-telecom/a/{JUNE}/2"]
        assert sorted(app.log.known(keys)) == keys

    def test_and_again(self, app: BillingApplication, quota: QuotaLog) -> None:
        for n, number in enumerate([FIRST, THIRD, "sh-telecom-2026-06-000004"]):
            void(app, number, f"v{n}")
            issue(app, quota)
        assert [row["status"] for row in app.bills(Bills(account="a"))["bills"]] == ["void"] * 3 + ["issued"]

    def test_is_cut_off_where_it_is_asked_to_be(self, app: BillingApplication, quota: QuotaLog) -> None:
        quota.debit(june(30), Usage(input=2_500), overdrawn=FEN, account="a", recorded=july(1, 1))
        follow(app, quota)
        void(app)
        issue(app, quota)
        assert kinds(bill_of(app, "a")) == [("usage", 101)]

    def test_cannot_be_made_twice_by_writers_that_do_not_see_each_other(
        self, app: BillingApplication, quota: QuotaLog
    ) -> None:
        void(app)
        issue(app, quota)
        stored = app.log.read(0, 100)[-1]
        again = NewEvent("bill:another", 1, stored.event, f"bill:sh-telecom/a/{JUNE}/2")
        with pytest.raises(Conflict):
            app.log.append([again], app.log.head())

    def test_of_a_close_that_is_remembered_as_done_is_issued_all_the_same(
        self, tmp_path: Path, quota: QuotaLog
    ) -> None:
        """Another replica made the bill void; both had closed the month piece by piece."""
        accounts(quota, "c", "d")
        one, other = billing(tmp_path), billing(tmp_path)
        follow(one, quota)
        while issue(one, quota, limit=1)["remaining"]:
            pass
        void(other)
        assert issue(one, quota, limit=1)["numbers"] == ["sh-telecom-2026-06-000005"] * 2

    def test_waits_for_the_next_commit_if_the_bill_becomes_void_in_this_one(
        self, app: BillingApplication, quota: QuotaLog
    ) -> None:
        quota.open(account="c")
        follow(app, quota)
        run = {"command": "issue_bills", "operator": "sh-telecom", "period": JUNE, "quota_position": quota.head}
        voided, run_answer = app.execute([VOID, run])
        assert voided["ok"]["kind"] == "BillVoided"
        assert (run_answer["ok"]["issued"], run_answer["ok"]["remaining"]) == (0, 2)
        assert issue(app, quota)["issued"] == 2

    def test_read_models_come_back_identical_from_the_log(self, app: BillingApplication, quota: QuotaLog) -> None:
        void(app)
        issue(app, quota)
        void(app, THIRD, "v2")
        before = app.bills(Bills())
        with app.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM bills")
            connection.exec_driver_sql("DELETE FROM followed WHERE projection = 'books'")
        assert app.bills(Bills()) == before
        assert issue(app, quota)["numbers"] == ["sh-telecom-2026-06-000004"] * 2


class TestLateUsage:
    """What came late for June is on July's bill; if that one is void, on its successor."""

    def test_that_the_void_bill_carried_is_carried_by_the_next(self, app: BillingApplication, quota: QuotaLog) -> None:
        quota.debit(june(29), Usage(input=2_500), overdrawn=FEN, account="a", recorded=july(2))
        next_month(app, quota)
        carried = bill_of(app, "a", JULY)
        assert kinds(carried) == [("late_usage", 1)]
        void(app, carried["number"])
        issue(app, quota, JULY)
        assert kinds(bill_of(app, "a", JULY)) == [("late_usage", 1)]

    def test_only_an_accounts_last_bill_can_be_void_for_it_carries_what_came_late_for_the_others(
        self, app: BillingApplication, quota: QuotaLog
    ) -> None:
        quota.debit(june(29), Usage(input=2_500), overdrawn=FEN, account="a", recorded=july(2))
        next_month(app, quota)
        later = bill_of(app, "a", JULY)["number"]
        with pytest.raises(BillSettled) as refused:
            void(app)
        assert refused.value.details["later"] == [later]
        void(app, later, "v2")
        void(app)
        assert issue(app, quota)["issued"] == issue(app, quota, JULY)["issued"] == 1
        assert (kinds(bill_of(app, "a")), kinds(bill_of(app, "a", JULY))) == ([("usage", 101)], [])

    def test_the_last_first_also_in_one_batch(self, app: BillingApplication, quota: QuotaLog) -> None:
        next_month(app, quota)
        later = bill_of(app, "a", JULY)["number"]
        pay = command("pay", later, fen=1)
        answers = app.execute([VOID, command("void", later, reason=""), VOID | {"request_id": "2"}, PAY, pay])
        assert ["ok" in answer for answer in answers] == [False, True, True, False, False]

    def test_not_before_a_later_bill_that_the_same_batch_issues(self, app: BillingApplication, quota: QuotaLog) -> None:
        set_clock(app, july(1, 3).replace(month=8))
        run = {"command": "issue_bills", "operator": "sh-telecom", "period": JULY, "quota_position": quota.head}
        ran, voided = app.execute([run, VOID])
        assert (ran["ok"]["issued"], voided["error"]["code"]) == (2, "BillSettled")

    def test_whatever_is_made_void_all_usage_is_on_one_bill_in_the_end(self, tmp_path: Path, seed: int) -> None:
        """Months closed in any order, bills void and made anew, usage late by up to four months."""
        rng, app, quota = random.Random(seed), billing(tmp_path), accounts(QuotaLog(), "a", "b")
        months = [f"2026-0{n}" for n in (6, 7, 8)]
        set_clock(app, july(2).replace(month=12))
        follow(app, quota)
        for n in range(60):
            what = rng.random()
            if what < 0.6:
                at, recorded = june(2).replace(month=rng.choice((6, 7, 8))), july(1).replace(month=10)
                quota.debit(at, Usage(input=2_500), overdrawn=FEN, account=rng.choice("ab"), recorded=recorded)
                follow(app, quota)
            elif what < 0.8:
                issue(app, quota, rng.choice(months))
            elif bills := [r["number"] for r in app.bills(Bills())["bills"] if r["status"] != "void"]:
                with contextlib.suppress(BillSettled):  # it is not the account's last
                    void(app, rng.choice(bills), f"v{n}")
        for period in (*months, "2026-09"):
            issue(app, quota, period)
        used = sum(event.topic == "quota.TokensDebited:1" for event in quota.events)
        stand = [row["total_fen"] for row in app.bills(Bills())["bills"] if row["status"] != "void"]
        assert sum(stand) == used
        assert [int(bill.number[-6:]) for bill in issued(app.log)] == list(range(1, len(issued(app.log)) + 1))


class TestChargeFile:
    """A bill that is void is not charged; where it may have been charged, it is taken back, once."""

    def charge_file(self, app: BillingApplication, **fields: Any) -> Any:
        answer = app.charge_file(ChargeFile(operator="sh-telecom", period=JUNE, **fields))
        return answer, [line.split(",")[:4] for line in answer["csv"].splitlines()]

    def test_void_before_the_file_it_is_in_none(self, app: BillingApplication) -> None:
        void(app)
        answer, (header, charge, trailer) = self.charge_file(app)
        assert (header[2], charge[1], trailer[:3]) == ("1", SECOND, ["T", "1", "100"])
        assert (answer["voids"], answer["voids_last"]) == (0, 0)

    def test_void_after_the_file_the_next_one_takes_it_back(self, app: BillingApplication, quota: QuotaLog) -> None:
        sent, _ = self.charge_file(app)
        void(app)
        issue(app, quota)
        answer, lines = self.charge_file(app, after=sent["last"], voids_after=sent["voids_last"])
        assert answer["csv"].splitlines()[0] == f"H,tokengrid-charges,2,sh-telecom,{JUNE},CNY,{SECOND},0"
        assert lines[1:3] == [["C", THIRD, "a", "100"], ["V", FIRST, "a", "100"]]
        assert answer["csv"].splitlines()[-1].startswith("T,1,100,6,1,100,6,")
        assert (answer["voids"], answer["voids_sum_fen"]) == (1, 100)
        assert answer["voids_last"] == app.log.known([f"{FIRST}/v1"])[f"{FIRST}/v1"].position
        again, _ = self.charge_file(app, after=answer["last"], voids_after=answer["voids_last"])
        assert (again["count"], again["voids"]) == (0, 0)

    def test_in_files_of_bounded_length(self, app: BillingApplication, quota: QuotaLog) -> None:
        sent, _ = self.charge_file(app)
        void(app, SECOND, "v1")
        void(app, FIRST, "v2")
        issue(app, quota)
        told: list[str] = []
        position = {"after": sent["last"], "voids_after": 0}
        more = True
        while more:
            answer, lines = self.charge_file(app, **position, limit=1)
            told += [line[0] + line[1][-1] for line in lines[1:-1]]
            position = {"after": answer["last"], "voids_after": answer["voids_last"]}
            more = answer["more"] or answer["voids_more"]
        assert told == ["C3", "V2", "C4", "V1"]

    def test_goes_on_behind_the_millionth_number(self, app: BillingApplication) -> None:
        app.bills(Bills())
        with app.engine.begin() as connection:
            for old, new in ((FIRST, 999_999), (SECOND, 1_000_000)):
                number = f"sh-telecom-2026-06-{new:06d}"
                connection.exec_driver_sql(
                    f"UPDATE bills SET number = '{number}', serial = {new} WHERE number = '{old}'"
                )
        first, _ = self.charge_file(app, limit=1)
        second, _ = self.charge_file(app, limit=1, after=first["last"])
        assert (first["last"][-7:], second["last"][-7:], second["more"]) == ("-999999", "1000000", False)

    @pytest.mark.parametrize("after", ["x", "sh-telecom-2026-06-", "sh-telecom-2026-06-" + "9" * 30])
    def test_refuses_to_begin_behind_what_is_no_number(self, app: BillingApplication, after: str) -> None:
        with pytest.raises(MalformedCommand) as refused:
            self.charge_file(app, after=after)
        assert list(refused.value.details["fields"]) == ["after"]
