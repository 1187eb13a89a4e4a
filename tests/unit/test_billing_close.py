"""The month's close: who gets a bill, with which number, as of which cut-off, exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.canonical import sha256_of
from shared.contracts.base import Usage
from shared.contracts.billing import BillIssued, DryRun
from shared.errors import MalformedCommand, PeriodOpen, UnknownAccount, UnknownOperator
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    accounts,
    bill_of,
    billing,
    catalogue,
    follow,
    issue,
    issued,
    july,
    june,
    overtake,
    set_clock,
)

FEN = 2_500_000  # millipoints at list price
ONE_FEN = Usage(input=2_500)  # 2,500 tokens at 1,000 points per 1,000


class TestWhoGetsABill:
    def test_every_account_opened_before_the_periods_end_and_up_to_the_cut_off(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "used", "idle")
        quota.debit(june(3), ONE_FEN, overdrawn=FEN, account="used")
        quota.open(july(1, 0), account="of-july")
        cut_off = quota.head
        quota.open(june(30), account="behind-the-cut-off", recorded=july(2))
        follow(app, quota)
        assert issue(app, quota, quota_position=cut_off)["issued"] == 2
        assert [bill.account for bill in issued(app.log)] == ["idle", "used"]

    def test_numbers_run_without_gaps_per_operator_over_all_periods(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path, now=july(31, 23, 59)), accounts(QuotaLog(), "b", "a")
        quota.open(operator="cm-gd", account="x")
        follow(app, quota)
        issue(app, quota)
        issue(app, quota, operator="cm-gd")
        set_clock(app, july(31, 23, 59).replace(day=1, month=8))
        quota.open(july(3), account="Z")
        follow(app, quota)
        answer = issue(app, quota, JULY)
        assert answer["numbers"] == ["sh-telecom-2026-07-000003", "sh-telecom-2026-07-000005"]
        assert [(bill.number, bill.account) for bill in issued(app.log)] == [
            ("sh-telecom-2026-06-000001", "a"),
            ("sh-telecom-2026-06-000002", "b"),
            ("cm-gd-2026-06-000001", "x"),
            ("sh-telecom-2026-07-000003", "Z"),
            ("sh-telecom-2026-07-000004", "a"),
            ("sh-telecom-2026-07-000005", "b"),
        ]

    def test_what_is_asked_before_it_is_answered_does_not_change_its_answer(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a", "b")
        follow(app, quota)

        def meanwhile(_head: int) -> None:
            app.on_commit = lambda _head: None
            about = {"operator": "sh-telecom", "account": "a", "request_id": "c"}
            app.submit("grant_credit", about | {"fen": 1, "reason": "an outage"})

        app.on_commit = meanwhile
        answer = issue(app, quota, limit=1)
        assert (answer["issued"], answer["remaining"]) == (1, 1)

    def test_the_event_stands_in_the_bills_stream_under_the_accounts_key(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a1")
        follow(app, quota)
        issue(app, quota)
        (logged,) = app.log.read(0, 10)
        assert (logged.stream, logged.version) == ("bill:sh-telecom-2026-06-000001", 1)
        assert list(app.log.known(["bill:sh-telecom/a1/2026-06"])) == ["bill:sh-telecom/a1/2026-06"]

    def test_what_was_folded_as_it_was_issued_is_what_the_log_folds_to(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), *"abcdefg")
        for name in "aceg":
            quota.debit(june(3), ONE_FEN, overdrawn=FEN, account=name)
        follow(app, quota)
        while issue(app, quota, limit=2)["remaining"]:
            pass
        app.books.catch_up()
        with app.engine.begin() as connection:
            bills = sa.select(t.bills).order_by(t.bills.c.number)
            folded = connection.execute(bills).all()
            connection.execute(sa.delete(t.bills))
            connection.execute(sa.text("DELETE FROM followed WHERE projection = 'books'"))
        assert app.books.catch_up() == app.log.head()
        with app.engine.connect() as connection:
            assert connection.execute(bills).all() == folded
        assert [row.total_fen for row in folded] == [1, 0, 1, 0, 1, 0, 1]

    def test_the_hash_is_that_of_the_canonical_bill(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), Usage(output=777), overdrawn=777 * 4000)
        follow(app, quota)
        issue(app, quota)
        event = app.log.read(0, 1)[0].event
        assert isinstance(event, BillIssued)
        assert event.bill_sha256 == sha256_of(event.bill)


class TestPieces:
    def test_a_call_issues_at_most_limit_and_says_what_is_left(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), *"abcde")
        follow(app, quota)
        answers = [issue(app, quota, limit=2) for _ in range(4)]
        assert [(a["issued"], a["remaining"]) for a in answers] == [(2, 3), (2, 1), (1, 0), (0, 0)]
        assert answers[3]["numbers"] == []

    def test_a_late_opened_account_is_billed_by_a_later_call_of_the_same_period(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "b", "c")
        follow(app, quota)
        issue(app, quota)
        quota.open(june(30), account="a", recorded=july(1, 1))
        follow(app, quota)
        assert issue(app, quota)["numbers"] == ["sh-telecom-2026-06-000003"] * 2
        assert issued(app.log)[2].account == "a"

    @pytest.mark.parametrize("stored", [False, True], ids=["before the commit", "after the commit"])
    def test_killed_in_the_middle_none_is_missing_and_none_is_double(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
    ) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), *"abcde")
        follow(app, quota)
        issue(app, quota, limit=2)
        append = app.log.append

        def dies(*arguments: Any) -> None:
            if stored:
                append(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(app.log, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            issue(app, quota, limit=2)
        app.close()
        app = billing(tmp_path)
        while issue(app, quota, limit=2)["remaining"]:
            pass
        assert [(bill.account, bill.number[-6:]) for bill in issued(app.log)] == [
            ("a", "000001"),
            ("b", "000002"),
            ("c", "000003"),
            ("d", "000004"),
            ("e", "000005"),
        ]

    def test_a_failed_append_leaves_the_running_process_able_to_go_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), *"abc")
        follow(app, quota)
        with monkeypatch.context() as patched:
            patched.setattr(app.log, "append", lambda *a: (_ for _ in ()).throw(OSError("disk")))
            with pytest.raises(OSError, match="disk"):
                issue(app, quota)
        assert issue(app, quota)["issued"] == 3

    def test_the_same_run_twice_in_one_batch_issues_once(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), *"abc")
        follow(app, quota)
        run = {"command": "issue_bills", "operator": "sh-telecom", "period": JUNE, "quota_position": quota.head}
        answers = app.execute([run, run | {"limit": 2}, run])
        assert [answer["ok"]["issued"] for answer in answers] == [3, 0, 0]
        assert len(issued(app.log)) == 3


class TestTwoReplicas:
    def test_taking_turns_they_share_one_numbering(self, tmp_path: Path) -> None:
        one, other = billing(tmp_path), billing(tmp_path)
        quota = accounts(QuotaLog(), *"abcdef")
        follow(one, quota)
        while sum(issue(app, quota, limit=1)["remaining"] for app in (one, other)):
            pass
        assert [bill.number[-6:] for bill in issued(one.log)] == [f"{n:06d}" for n in range(1, 7)]
        assert [bill.account for bill in issued(one.log)] == list("abcdef")

    def test_at_the_same_instant_the_slower_one_issues_what_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = billing(tmp_path), billing(tmp_path, now=july(1, 3))
        quota = accounts(QuotaLog(), *"abcdef")
        follow(one, quota)
        raced = overtake(monkeypatch, one, lambda: issue(other, quota, limit=3))
        answer = issue(one, quota, limit=2)
        assert raced[0]["numbers"] == ["sh-telecom-2026-06-000001", "sh-telecom-2026-06-000003"]
        assert answer["numbers"] == ["sh-telecom-2026-06-000004", "sh-telecom-2026-06-000005"]
        assert [bill.account for bill in issued(one.log)] == list("abcde")

    def test_a_page_that_both_follow_counts_once(self, tmp_path: Path) -> None:
        one, other = billing(tmp_path), billing(tmp_path)
        quota = QuotaLog()
        quota.open()
        quota.debit(june(3), ONE_FEN, overdrawn=FEN)
        assert one.follow_quota(quota.page()) == 2
        assert other.follow_quota(quota.page()) == 2
        issue(other, quota)
        assert bill_of(one)["total_fen"] == 1


class TestRefusals:
    def test_a_period_that_still_runs(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path, now=june(30, 23, 58)), accounts(QuotaLog(), "a1")
        follow(app, quota)
        with pytest.raises(PeriodOpen):
            issue(app, quota)

    def test_an_operator_nobody_knows(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a1")
        follow(app, quota)
        with pytest.raises(UnknownOperator):
            issue(app, quota, operator="sh-telecon")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("period", "2026-13"),
            ("period", "0000-01"),
            ("period", "9999-12"),
            ("period", "2026-06\n"),
            ("operator", "../../etc"),
            ("quota_position", -1),
            ("quota_position", "1"),
            ("limit", 0),
            ("limit", True),
            ("occurred_at", "2031-01-01T00:00:00Z"),
            ("occurred_at", "yesterday"),
            ("surprise", 1),
        ],
    )
    def test_malformed_commands_name_their_field(self, tmp_path: Path, field: str, value: Any) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a1")
        follow(app, quota)
        with pytest.raises(MalformedCommand) as refused:
            issue(app, quota, **{field: value})
        assert list(refused.value.details["fields"]) in ([field], ["_"])
        assert app.log.head() == 0

    def test_one_refusal_does_not_touch_the_rest_of_its_batch(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a1")
        follow(app, quota)
        run = {"command": "issue_bills", "operator": "sh-telecom", "period": JUNE, "quota_position": quota.head}
        refusals = [run | {"quota_position": 99}, {"command": "drop_tables"}, "x", {}, {"command": ["pay"]}]
        answers = app.execute([*refusals, run])
        codes = [answer["error"]["code"] for answer in answers[:-1]]
        assert codes == ["NotCaughtUp", *["MalformedCommand"] * 4]
        assert answers[-1]["ok"]["issued"] == 1


class TestDryRun:
    def test_is_what_the_bill_will_be_but_for_its_number(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path, now=june(20)), QuotaLog()
        quota.open(credit_limit=100)
        quota.grant("trial", 5000)
        quota.debit(june(3), Usage(input=1234, output=999), overdrawn=FEN)
        follow(app, quota, catalogue())
        dry = app.dry_run(DryRun(operator="sh-telecom", account="a1", period=JUNE))
        assert app.log.head() == 0
        set_clock(app, july(1, 1))
        issue(app, quota)
        assert bill_of(app) == dry["bill"] | {"number": "sh-telecom-2026-06-000001"}

    def test_of_a_billed_period_it_rates_again_without_the_bills_after_it(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        quota.open()
        quota.debit(june(3), ONE_FEN, overdrawn=FEN)
        follow(app, quota)
        issue(app, quota)
        dry = app.dry_run(DryRun(operator="sh-telecom", account="a1", period=JUNE))
        assert bill_of(app) == dry["bill"] | {"number": "sh-telecom-2026-06-000001"}

    def test_refuses_an_unknown_account(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownAccount):
            billing(tmp_path).dry_run(DryRun(operator="sh-telecom", account="nobody", period=JUNE))
