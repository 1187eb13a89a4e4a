"""Subscriptions, once and only once: downtime, lost answers, two processes, repeated requests; and what is refused."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.billing import renewal
from shared.contracts import subscriptions as s
from shared.errors import (
    AccountClosed,
    AlreadySubscribed,
    IdempotencyConflict,
    MalformedCommand,
    SubscriptionNotActive,
    Unavailable,
    UnknownAccount,
    UnknownPlan,
    UnknownSubscription,
)
from tests.unit.subscription_world import OPERATOR, World, opened, shanghai


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path)


class TestOnce:
    def test_days_of_downtime_change_nothing_but_when_it_is_done(self, tmp_path: Path) -> None:
        def year(folder: Path, steps: int) -> list[Any]:
            world = World(folder)
            world.open()
            for each in ("small", "yearly", "rolling", "welcome"):
                world.take(each)
            world.until("2026-11-05", hours=steps)
            found = [
                (e.subscription, e.number, e.starts_at, e.ends_at, e.plan_version, e.price_fen, e.allowance)
                for e in world.events(s.PlanPeriodStarted)
            ]
            world.close()
            return sorted(found)

        assert year(tmp_path / "daily", 24) == year(tmp_path / "rarely", 24 * 47)

    def test_an_answer_of_quota_that_is_lost_is_asked_for_again(self, world: World) -> None:
        asked: list[Any] = []

        def deaf(commands: list[dict[str, Any]]) -> Any:
            asked.append(commands)
            world.quota.execute(commands)
            raise Unavailable("the answer is lost")

        world.billing.submit("subscribe", {"operator": OPERATOR, "account": "a", "request_id": "s", "plan": "small"})
        with pytest.raises(Unavailable):
            world.billing.renew(deaf)
        world.restart()
        world.work()
        assert (len(asked), world.grants()) == (1, ["plan/s/1 30000"])

    def test_two_processes_do_it_once(self, world: World) -> None:
        other = world.another()
        world.take("small")
        world.at("2026-07-01")
        for app in (world.billing, other):
            app.renew(lambda commands: [{"error": {"code": "Unavailable"}} for _ in commands])
        for app in (other, world.billing):
            app.renew(world.quota.execute)
        world.work()
        assert len(world.periods()) == len(world.grants()) == 2
        other.close()

    def test_another_batch_may_be_prepared_before_one_is_answered(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def yields(_seconds: float) -> None:
            """A writer that has stored lets others go first."""
            monkeypatch.undo()
            world.billing.submit(
                "subscribe", {"operator": OPERATOR, "account": "b", "request_id": "s", "plan": "small"}
            )

        world.open("b")
        name = world.take("small")
        about = {"operator": OPERATOR, "account": "a", "request_id": "p"}
        world.billing.submit("pause_subscription", about | {"subscription": name})
        monkeypatch.setattr("shared.eventstore.writer.time.sleep", yields)
        world.billing.renew(world.quota.execute)  # looks at the subscription, and has nothing to do for it
        world.work()
        assert len(world.grants("b")) == 1

    def test_another_process_that_writes_is_waited_for(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        rival = sqlite3.connect(str(world.billing.engine.url.database), timeout=0, isolation_level=None)
        read = world.billing.books.projector.position_in

        def meanwhile(connection: sa.Connection) -> int:
            position = read(connection)
            with contextlib.suppress(sqlite3.OperationalError):  # it is the one that waits
                rival.execute("BEGIN IMMEDIATE")
            return position

        world.billing.submit("subscribe", {"operator": OPERATOR, "account": "a", "request_id": "s", "plan": "small"})
        page = world.billing.log.read(0, 10)
        monkeypatch.setattr(world.billing.books.projector, "position_in", meanwhile)
        assert world.billing.books.projector.apply(page) == len(page)
        rival.close()

    def test_the_same_request_has_one_effect(self, world: World) -> None:
        asked = {"operator": OPERATOR, "account": "a", "request_id": "s", "plan": "small"}
        first = world.billing.submit("subscribe", asked)
        again = world.billing.submit("subscribe", asked)
        assert again == first | {"replayed": True}
        with pytest.raises(IdempotencyConflict):
            world.billing.submit("subscribe", asked | {"plan": "large"})

    def test_what_quota_refuses_for_good_is_not_charged_nor_asked_for_ever(self, world: World) -> None:
        def refuse(commands: list[dict[str, Any]]) -> Any:
            return [{"error": {"code": "LimitExceeded", "message": "", "details": {}}} for _ in commands]

        world.billing.submit("subscribe", {"operator": OPERATOR, "account": "a", "request_id": "s", "plan": "small"})
        while world.billing.renew(refuse).anything:
            pass
        assert (world.periods(), world.status()[0]["status"]) == ([], "paused")
        world.ask("resume_subscription", subscription="s")
        assert world.available() == 30_000

    def test_what_was_paid_for_does_not_begin_again_where_all_that_follow_are_refused(self, world: World) -> None:
        world.take("small", request_id="s")
        paid, granted = world.periods(), world.grants()
        world.at("2026-12-20")  # after half a year of downtime
        while world.billing.renew(lambda commands: [{"error": {"code": "LimitExceeded"}} for _ in commands]).anything:
            pass
        assert (world.periods(), world.status()[0]["status"]) == (paid, "paused")
        assert [e.effective_at for e in world.events(s.SubscriptionPaused)][-1] == shanghai("2026-07-01")
        world.work()
        assert (len(world.events(s.PlanPeriodStarted)), granted) == (7, ["plan/s/1 30000"])

    def test_of_months_that_are_refused_none_counts(self, world: World) -> None:
        world.take("welcome", request_id="w")
        world.at("2026-09-08")
        while world.billing.renew(lambda commands: [{"error": {"code": "LimitExceeded"}} for _ in commands]).anything:
            pass
        world.ask("resume_subscription", subscription="w")
        assert [e.phase for e in world.events(s.PlanPeriodStarted)] == [1, 2, 2, 0, 2]

    def test_what_follows_a_period_that_is_refused_stays_on_its_plan(self, world: World) -> None:
        for command, fields in (("subscribe", {"plan": "large"}), ("change_subscription", {"plan": "small"})):
            about = {"operator": OPERATOR, "account": "a", "request_id": command, **fields}
            at_once = {"subscription": "subscribe", "at_once": True} if command != "subscribe" else {}
            world.billing.submit(command, about | at_once)

        def too_much(commands: list[dict[str, Any]]) -> Any:
            given = world.quota.execute(commands[1:])
            return [{"error": {"code": "LimitExceeded"}}, *given]

        world.billing.renew(too_much)
        world.ask("resume_subscription", subscription="subscribe")
        world.until("2026-07-02")
        assert [period[:5] for period in world.periods()] == ["small", "small"]

    def test_of_a_period_that_was_ended_and_is_then_refused_nothing_is_due(self, world: World) -> None:
        for command, fields in (("subscribe", {"plan": "small"}), ("change_subscription", {"plan": "large"})):
            about = {"operator": OPERATOR, "account": "a", "request_id": command, **fields}
            at_once = {"subscription": "subscribe", "at_once": True} if command != "subscribe" else {}
            world.billing.submit(command, about | at_once)
        world.of_quota("close_account")
        world.work()
        assert (world.periods(), world.events(s.PlanPeriodCredited)) == ([], [])

    def test_points_are_not_withdrawn_before_they_are_granted(self, world: World) -> None:
        def behind(commands: list[dict[str, Any]]) -> Any:
            """Quota has not heard of the plan yet."""
            given = world.quota.execute([c for c in commands if c["command"] == "void_grant"])
            return [{"error": {"code": "UnknownPlan"}}, *given]

        for command, fields in (("subscribe", {"plan": "small"}), ("end_subscription", {"at_once": True})):
            about = {"subscription": "subscribe"} if command != "subscribe" else {}
            world.billing.submit(
                command, {"operator": OPERATOR, "account": "a", "request_id": command, **about, **fields}
            )
        world.billing.renew(behind)
        world.work()
        assert (world.available(), [e.fen for e in world.events(s.PlanPeriodCredited)]) == (0, [3000])

    def test_a_part_of_quota_that_is_down_does_not_keep_the_others_waiting(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def halved(commands: list[dict[str, Any]]) -> Any:
            """Account `a` is of a shard that is down."""
            up = [command for command in commands if command["account"] != "a"]
            if up:
                world.quota.execute(up)
            if len(up) < len(commands):
                raise Unavailable("a shard is down")
            return world.quota.execute(up)

        monkeypatch.setattr(renewal, "ORDERS_AT_ONCE", 2)
        world.open("b")
        ask = world.billing.submit
        for account, plan in (("a", "small"), ("a", "large"), ("b", "small")):
            ask("subscribe", {"operator": OPERATOR, "account": account, "request_id": plan, "plan": plan})
        ended = {"operator": OPERATOR, "account": "a", "request_id": "e", "subscription": "small", "at_once": True}
        ask("end_subscription", ended)
        for _ in range(3):
            with contextlib.suppress(Unavailable):
                world.billing.renew(halved)
        assert world.available("b") == 30_000
        world.work()
        assert (world.available(), [e.fen for e in world.events(s.PlanPeriodCredited)]) == (62_000, [3000])

    def test_orders_behind_a_grant_that_waits_know_of_it(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def behind(commands: list[dict[str, Any]]) -> Any:
            return [
                {"error": {"code": "UnknownPlan"}} if each["command"] == "grant" else world.quota.execute([each])[0]
                for each in commands
            ]

        monkeypatch.setattr(renewal, "ORDERS_AT_ONCE", 1)
        ask = world.billing.submit
        ask("subscribe", {"operator": OPERATOR, "account": "a", "request_id": "s", "plan": "small"})
        ask(
            "end_subscription",
            {"operator": OPERATOR, "account": "a", "request_id": "e", "subscription": "s", "at_once": True},
        )
        for _ in range(3):
            world.billing.renew(behind)
        for _ in range(2):
            world.work()
        assert (world.available(), [e.fen for e in world.events(s.PlanPeriodCredited)]) == (0, [3000])

    def test_the_read_model_can_be_dropped(self, world: World) -> None:
        world.take("rolling")
        world.until("2026-07-15")
        before = (world.periods(), world.grants())
        with world.billing.engine.begin() as connection:
            for table in (
                "subscriptions",
                "charges",
                "orders",
                "unsettled",
                "endings",
                "grants",
                "accounts",
                "followed",
            ):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        world.restart()
        world.work()
        assert (world.periods(), world.grants()) == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("command", "fields", "refusal"),
        [
            ("subscribe", {"plan": "none"}, UnknownPlan),
            ("subscribe", {"plan": "small", "account": "nobody"}, UnknownAccount),
            ("subscribe", {"plan": "small", "starts_at": "2026-05-30T00:00:00Z"}, MalformedCommand),
            ("subscribe", {"plan": "small", "starts_at": "2028-05-30T00:00:00Z"}, MalformedCommand),
            ("subscribe", {"plan": "small", "request_id": "r" * 101}, MalformedCommand),
            ("subscribe", {"plan": "small", "at_once": True}, MalformedCommand),
            ("subscribe", {"plan": "taken"}, UnknownPlan),
            ("change_subscription", {"subscription": "s", "plan": "none"}, UnknownPlan),
            ("change_subscription", {"subscription": "s", "plan": "small"}, AlreadySubscribed),
            ("change_subscription", {"subscription": "other", "plan": "large"}, UnknownSubscription),
            ("pause_subscription", {"subscription": "other"}, UnknownSubscription),
            ("resume_subscription", {"subscription": "s"}, SubscriptionNotActive),
            ("end_subscription", {"subscription": "s", "occurred_at": "2026-05-30T00:00:00Z"}, MalformedCommand),
            ("end_subscription", {"subscription": ""}, MalformedCommand),
        ],
    )
    def test_nothing_is_changed(self, world: World, command: str, fields: Any, refusal: type[Exception]) -> None:
        world.take("small", request_id="s")
        head = world.billing.log.head()
        with pytest.raises(refusal):
            world.ask(command, **fields)
        assert world.billing.log.head() == head

    @pytest.mark.parametrize("command", ["change_subscription", "pause_subscription", "end_subscription"])
    def test_a_period_is_not_ended_a_second_time_before_it_was(self, world: World, command: str) -> None:
        name = world.take("small")
        world.at("2026-06-10")
        world.ask("pause_subscription", subscription=name, at_once=True)
        fields = {"plan": "large"} if command == "change_subscription" else {}
        with pytest.raises(MalformedCommand):
            world.ask(command, subscription=name, at_once=True, occurred_at="2026-06-05T00:00:00Z", **fields)
        assert len(world.events(s.PlanPeriodCut)) == 1

    def test_a_plan_runs_once_on_an_account(self, world: World) -> None:
        world.take("small")
        with pytest.raises(AlreadySubscribed):
            world.take("small")

    def test_one_that_is_to_end_runs_until_then(self, world: World) -> None:
        world.ask("end_subscription", subscription=world.take("small"))
        with pytest.raises(AlreadySubscribed):
            world.take("small")
        world.take("small", starts_at=shanghai("2026-07-01").isoformat())
        world.until("2026-07-02")
        assert len(world.periods()) == 2

    def test_what_is_over_stays_over(self, world: World) -> None:
        name = world.take("small")
        world.ask("end_subscription", subscription=name, at_once=True)
        for command in ("end_subscription", "pause_subscription", "resume_subscription"):
            with pytest.raises(SubscriptionNotActive):
                world.ask(command, subscription=name)

    def test_nothing_is_taken_before_the_account_is_opened(self, world: World) -> None:
        world.at("2026-07-02")
        world.open("b")
        for field in ("occurred_at", "starts_at"):
            with pytest.raises(MalformedCommand, match=field):
                world.take("small", "b", **{field: "2026-06-20T00:00:00Z"})

    def test_on_a_closed_account_nothing_is_taken(self, world: World) -> None:
        world.of_quota("close_account")
        world.follow()
        with pytest.raises(AccountClosed):
            world.take("small")
