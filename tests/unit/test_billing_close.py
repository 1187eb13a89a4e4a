"""The month's close: who gets a bill, with which number, as of which cut-off, exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.domain.canonical import sha256_of
from services.billing.domain.late import Earlier, carried
from shared.contracts.base import Usage
from shared.contracts.billing import BillIssued, DryRun
from shared.errors import MalformedCommand, NotCaughtUp, PeriodOpen, UnknownAccount, UnknownOperator
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
    kinds,
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

    def test_the_event_stands_in_the_bills_stream_under_the_accounts_key(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), accounts(QuotaLog(), "a1")
        follow(app, quota)
        issue(app, quota)
        (logged,) = app.log.read(0, 10)
        assert (logged.stream, logged.version) == ("bill:sh-telecom-2026-06-000001", 1)
        assert list(app.log.known(["bill:sh-telecom/a1/2026-06"])) == ["bill:sh-telecom/a1/2026-06"]

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
        append = one.log.append
        raced: list[Any] = []

        def overtaken(*arguments: Any) -> Any:
            """The other replica commits between this one's decision and its commit."""
            if not raced:
                raced.append(issue(other, quota, limit=3))
            return append(*arguments)

        monkeypatch.setattr(one.log, "append", overtaken)
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
