"""Subscriptions: taking, changing, pausing and ending plans; what is granted and charged, each once and on time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from shared.contracts import subscriptions as s
from shared.errors import (
    TrialUsed,
)
from tests.unit.subscription_world import OPERATOR, POINT, World, opened, plan, shanghai


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path)


class TestTaking:
    def test_on_a_months_first_day_the_whole_month_is_paid_and_granted(self, world: World) -> None:
        world.take("small")
        assert world.periods() == ["small 06-01..07-01 3000 fen 30000 points"]
        assert world.available() == 30_000

    def test_inside_a_month_its_days_with_the_first_one_are(self, world: World) -> None:
        world.at("2026-06-16 15:00")
        world.take("small")
        assert world.periods() == ["small 06-16..07-01 1500 fen 15000 points"]

    def test_periods_follow_one_another_and_what_is_unused_is_cleared(self, world: World) -> None:
        world.take("small")
        world.use(12_000)
        world.until("2026-08-02")
        assert world.periods() == [
            "small 06-01..07-01 3000 fen 30000 points",
            "small 07-01..08-01 3000 fen 30000 points",
            "small 08-01..09-01 3000 fen 30000 points",
        ]
        assert world.available() == 30_000
        assert [g["expired"] // POINT for g in world.balance()["grants"]] == [18_000, 30_000, 0]

    def test_an_anniversary_counts_from_its_day_and_a_day_that_is_missing_is_the_last(self, world: World) -> None:
        world.at("2026-08-31 09:00")
        world.take("yearly")
        world.until("2027-03-31 01:00")
        assert [p.split()[1] for p in world.periods()] == [
            "08-31..09-30", "09-30..10-31", "10-31..11-30", "11-30..12-31",
            "12-31..01-31", "01-31..02-28", "02-28..03-31", "03-31..04-30",
        ]  # fmt: skip
        assert {p.split(" ", 2)[2] for p in world.periods()} == {"3000 fen 30000 points"}

    def test_a_leap_day_is_a_day_like_any_other(self, world: World) -> None:
        world.at("2028-02-29")
        world.take("small")
        world.ask("subscribe", plan="yearly")
        world.until("2028-03-31 01:00")
        assert world.periods() == [
            "small 02-29..03-01 103 fen 1034 points",
            "yearly 02-29..03-29 3000 fen 30000 points",
            "small 03-01..04-01 3000 fen 30000 points",
            "yearly 03-29..04-29 3000 fen 30000 points",
        ]

    def test_its_first_months_have_their_own_terms(self, world: World) -> None:
        world.take("welcome")
        world.until("2026-09-02")
        assert [p.split(" ", 2)[2] for p in world.periods()] == [
            "0 fen 10000 points",
            "1500 fen 20000 points",
            "1500 fen 20000 points",
            "3000 fen 30000 points",
        ]

    def test_a_discount_is_off_the_price(self, world: World) -> None:
        world.take("reduced")
        assert world.periods() == ["reduced 06-01..07-01 2400 fen 30000 points"]

    def test_a_bundles_points_are_of_their_source(self, world: World) -> None:
        world.take("home")
        (grant,) = world.balance()["grants"]
        assert (grant["source"], grant["plan"], world.periods()) == (
            "bundle", "home", ["home 06-01..07-01 1000 fen 30000 points"],
        )  # fmt: skip

    def test_it_may_begin_later(self, world: World) -> None:
        world.take("small", starts_at="2026-06-20T16:00:00Z")
        assert (world.periods(), world.status()[0]["status"]) == ([], "waiting")
        world.until("2026-06-22")
        assert world.periods() == ["small 06-21..07-01 1000 fen 10000 points"]

    def test_a_new_price_holds_from_the_next_period_on(self, world: World) -> None:
        world.take("small")
        world.at("2026-06-10")
        world.publish("2026-06-20T00:00:00Z", plans=[plan("small", fee_fen=3300)])
        world.until("2026-07-02")
        assert [e.plan_version for e in world.events(s.PlanPeriodStarted)] == [1, 2]
        assert world.periods()[1] == "small 07-01..08-01 3300 fen 30000 points"


class TestTrials:
    def test_it_is_one_period_of_its_days(self, world: World) -> None:
        world.take("taste")
        world.until("2026-07-15")
        assert world.periods() == ["taste 06-01..06-11 0 fen 1000 points"]
        assert world.status()[0]["status"] == "ended"

    def test_a_subscriber_has_it_once_on_whichever_account(self, world: World) -> None:
        for account in ("b", "c"):
            world.open(account, subscriber="li")
        world.take("taste", "b")
        with pytest.raises(TrialUsed):
            world.take("taste", "c")
        world.take("taste")
        world.until("2026-06-20")
        with pytest.raises(TrialUsed):
            world.take("taste", "b")

    def test_two_that_ask_in_one_commit_get_it_once(self, world: World) -> None:
        for account in ("b", "c"):
            world.open(account, subscriber="li")
        asked = [
            {"command": "subscribe", "operator": OPERATOR, "account": account, "request_id": "t", "plan": "taste"}
            for account in ("b", "c")
        ]
        answers = world.billing.execute(asked)
        assert ["ok" in answer for answer in answers] == [True, False]
        assert answers[1]["error"]["code"] == "TrialUsed"

    def test_one_may_go_over_into_a_plan(self, world: World) -> None:
        name = world.take("taste")
        world.ask("change_subscription", subscription=name, plan="small")
        world.until("2026-06-12")
        assert world.periods()[1] == "small 06-11..07-01 2000 fen 20000 points"


class TestChanging:
    def test_at_the_periods_end(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-10")
        world.ask("change_subscription", subscription=name, plan="large")
        assert (world.available(), world.status()[0]["next_plan"]) == (30_000, "large")
        world.until("2026-07-02")
        assert world.periods()[1] == "large 07-01..08-01 6200 fen 62000 points"
        assert world.events(s.PlanPeriodCut) == []

    def test_at_once_both_are_paid_by_their_days(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-21 18:00")
        world.ask("change_subscription", subscription=name, plan="large", at_once=True)
        assert world.periods()[1] == "large 06-21..07-01 2067 fen 20666 points"
        (credited,) = world.events(s.PlanPeriodCredited)
        assert (credited.left_days, credited.unused, credited.fen) == (10, 30_000 * POINT, 1000)
        assert world.available() == 20_666

    def test_who_has_used_the_points_has_used_the_plan(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-02")
        world.use(27_000)
        world.ask("change_subscription", subscription=name, plan="large", at_once=True)
        (credited,) = world.events(s.PlanPeriodCredited)
        assert (credited.left_days, credited.unused, credited.fen) == (29, 3_000 * POINT, 300)

    def test_a_change_can_be_taken_back_before_it_holds(self, world: World) -> None:
        name = world.take("small")
        world.ask("change_subscription", subscription=name, plan="large")
        world.ask("change_subscription", subscription=name, plan="small")
        world.until("2026-07-02")
        assert [p.split()[0] for p in world.periods()] == ["small", "small"]

    def test_the_other_plans_first_months_are_its_own(self, world: World) -> None:
        name = world.take("small")
        world.ask("change_subscription", subscription=name, plan="welcome")
        world.until("2026-08-02")
        assert [e.phase for e in world.events(s.PlanPeriodStarted)] == [0, 1, 2]

    def test_a_change_that_was_worked_out_and_taken_back_leaves_the_first_months_as_they_were(
        self, tmp_path: Path
    ) -> None:
        world = World(tmp_path / "ahead", subscribe_ahead_s=7200)
        world.open()
        name = world.take("welcome")
        world.at("2026-06-30 22:10")
        world.ask("change_subscription", subscription=name, plan="large")
        world.at("2026-06-30 23:00")
        world.ask("change_subscription", subscription=name, plan="welcome")
        world.until("2026-08-02")
        assert [p.split(" ", 2)[2] for p in world.periods()] == ["0 fen 10000 points"] + ["1500 fen 20000 points"] * 2
        world.close()

    def test_one_that_was_to_hold_before_is_not_lost_to_a_later_one(self, world: World) -> None:
        name = world.take("small")
        world.ask("change_subscription", subscription=name, plan="large")
        world.at("2026-07-03")  # July has not been worked out yet
        world.ask("change_subscription", subscription=name, plan="reduced")
        world.until("2026-08-02")
        assert [p.split()[0] for p in world.periods()] == ["small", "large", "reduced"]

    def test_a_pause_in_the_last_hour_does_not_forget_what_was_to_come(self, tmp_path: Path) -> None:
        world = World(tmp_path / "ahead", subscribe_ahead_s=7200)
        world.open()
        name = world.take("small")
        world.at("2026-06-30 22:10")
        world.ask("change_subscription", subscription=name, plan="large")
        world.ask("pause_subscription", subscription=name)
        world.until("2026-07-11")
        world.ask("resume_subscription", subscription=name)
        assert [p.split()[0] for p in world.periods()] == ["small", "large"]
        world.close()


class TestPausing:
    def test_from_the_periods_end_no_other_begins_until_it_is_resumed(self, world: World) -> None:
        name = world.take("small")
        world.ask("pause_subscription", subscription=name)
        world.until("2026-08-11")
        assert (len(world.periods()), world.status()[0]["status"], world.available()) == (1, "paused", 0)
        world.ask("resume_subscription", subscription=name)
        assert world.periods()[1] == "small 08-11..09-01 2032 fen 20322 points"

    def test_an_anniversary_counts_anew_from_its_resuming(self, world: World) -> None:
        name = world.take("yearly")
        world.at("2026-06-11")
        world.ask("pause_subscription", subscription=name, at_once=True)
        world.until("2026-06-20")
        world.ask("resume_subscription", subscription=name)
        world.until("2026-07-21")
        assert [p.split()[1] for p in world.periods()] == ["06-01..07-01", "06-20..07-20", "07-20..08-20"]
        assert [e.fen for e in world.events(s.PlanPeriodCredited)] == [2000]

    def test_resumed_before_the_plan_has_begun_nothing_has_happened(self, world: World) -> None:
        name = world.take("small", starts_at="2026-06-15T16:00:00Z")
        world.ask("pause_subscription", subscription=name)
        world.ask("resume_subscription", subscription=name)
        world.until("2026-06-17")
        assert world.periods() == ["small 06-16..07-01 1500 fen 15000 points"]

    def test_resumed_before_it_has_begun_nothing_has_happened(self, world: World) -> None:
        name = world.take("small")
        world.ask("pause_subscription", subscription=name)
        world.at("2026-06-20")
        world.ask("resume_subscription", subscription=name)
        world.until("2026-07-02")
        assert [p.split()[1] for p in world.periods()] == ["06-01..07-01", "07-01..08-01"]


class TestEnding:
    def test_at_the_periods_end_the_points_stay_until_then(self, world: World) -> None:
        name = world.take("small")
        world.ask("end_subscription", subscription=name)
        assert world.available() == 30_000
        world.until("2026-07-15")
        assert (len(world.periods()), world.available(), world.status()[0]["status"]) == (1, 0, "ended")

    def test_at_once_they_are_withdrawn_and_part_of_the_fee_is_given_back(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-16")
        world.ask("end_subscription", subscription=name, at_once=True)
        assert (world.available(), [e.fen for e in world.events(s.PlanPeriodCredited)]) == (0, [1500])

    def test_before_it_has_begun_it_never_begins(self, world: World) -> None:
        name = world.take("small", starts_at="2026-06-20T16:00:00Z")
        world.ask("end_subscription", subscription=name)
        world.until("2026-07-02")
        assert world.periods() == []

    def test_it_can_be_taken_anew(self, world: World) -> None:
        name = world.take("small")
        world.ask("end_subscription", subscription=name, at_once=True)
        assert world.take("small") != name
        assert len(world.periods()) == 2

    def test_of_what_is_to_end_the_end_stays_where_its_account_is_closed(self, world: World) -> None:
        name = world.take("small")
        for command in ("pause_subscription", "end_subscription"):
            world.billing.submit(
                command, {"operator": OPERATOR, "account": "a", "request_id": command, "subscription": name}
            )
        world.of_quota("close_account")
        world.until("2026-07-02")
        assert [e.effective_at for e in world.events(s.SubscriptionEnded)] == [shanghai("2026-07-01")]

    def test_with_its_account(self, world: World) -> None:
        world.take("small")
        world.of_quota("close_account")
        world.until("2026-08-02")
        assert (len(world.periods()), world.status()[0]["status"]) == (1, "ended")


class TestRollover:
    def test_what_is_left_is_used_first_in_one_more_period_up_to_its_limit(self, world: World) -> None:
        name = world.take("rolling")
        world.use(23_000)
        world.at("2026-06-30 23:00")
        world.until("2026-07-01 01:00", hours=1)
        assert world.available() == 35_000
        world.use(6_000)
        left = {g["grant"]: g["available"] // POINT for g in world.balance()["grants"]}
        assert left[f"plan/{name}/1/rollover"] == 0
        world.until("2026-08-01 01:00")
        # Of the 29,000 that are left of July's own points 5,000 roll over; of what rolled over, nothing does again.
        assert world.available() == 35_000

    def test_into_a_period_that_is_cut_as_it_begins(self, world: World) -> None:
        name = world.take("rolling")
        world.at("2026-07-01")
        world.ask("change_subscription", subscription=name, plan="large", at_once=True)
        assert (world.available(), world.grants()[-1]) == (67_000, f"plan/{name}/1/rollover 5000")

    def test_nothing_rolls_over_into_no_period(self, world: World) -> None:
        name = world.take("rolling")
        world.ask("end_subscription", subscription=name)
        world.until("2026-07-02")
        (rolled,) = world.events(s.PointsRolledOver)
        assert (rolled.unused, rolled.amount, world.available()) == (30_000 * POINT, 0, 0)


class TestAhead:
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        yield from opened(tmp_path, subscribe_ahead_s=7200)

    def test_the_next_periods_points_are_there_at_midnight_and_not_before(self, world: World) -> None:
        world.take("small")
        world.use(30_000)
        world.at("2026-06-30 23:00")
        world.work()
        assert (len(world.periods()), world.available()) == (2, 0)
        world.at("2026-07-01")
        assert world.available() == 30_000, "before anybody has done anything"

    def test_a_period_that_was_cut_by_a_clock_ahead_of_ours_is_not_cancelled_too(self, world: World) -> None:
        def soon(seconds: int) -> str:
            return (world.clock.now + timedelta(seconds=seconds)).isoformat()

        name = world.take("small")
        world.ask("pause_subscription", subscription=name, at_once=True)
        world.ask("resume_subscription", subscription=name, occurred_at=soon(20))
        world.ask("change_subscription", subscription=name, plan="large", at_once=True, occurred_at=soon(40))
        world.ask("pause_subscription", subscription=name)
        assert [e.number for e in world.events(s.PlanPeriodCut)] == [1, 2]
        assert [e.number for e in world.events(s.PlanPeriodCancelled)] == [3]

    def test_what_was_worked_out_is_cancelled_if_it_is_not_to_be(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-30 23:00")
        world.work()
        world.ask("end_subscription", subscription=name)
        world.until("2026-07-02")
        assert world.periods() == ["small 06-01..07-01 3000 fen 30000 points"]
        assert world.available() == 0

    def test_a_change_in_the_last_hour_still_holds(self, world: World) -> None:
        name = world.take("small")
        world.at("2026-06-30 23:00")
        world.work()
        world.ask("change_subscription", subscription=name, plan="large")
        world.until("2026-07-02")
        assert world.periods()[1:] == ["large 07-01..08-01 6200 fen 62000 points"]
        assert world.available() == 62_000
