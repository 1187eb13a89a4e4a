"""Two months of subscribers audited: untouched, everything agrees; each planted defect is found and located."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.audit.replay.account import Account
from services.audit.replay.calendar import instant
from services.audit.replay.findings import Findings
from services.audit.replay.orders import Orders
from services.audit.replay.subscription import Period
from shared.eventstore.log import LoggedEvent
from tests.unit.audit_plans import PLANS, Subscribers, audit, of_bills, period
from tests.unit.audit_scene import Scene
from tests.unit.audit_world import CATALOGUE, EAST, JULY, JUNE, LONG_AGO


@pytest.fixture
def scene(subscribers: Subscribers) -> Scene:
    return Scene(subscribers)


@pytest.mark.parametrize("period", [JUNE, JULY, "2026-08"])
def test_untouched_everything_agrees(scene: Scene, period: str) -> None:
    report = audit(scene, period)
    assert report.differences == ()
    assert report.bills == (0 if period == "2026-08" else 12)


# --- periods ---------------------------------------------------------------------------------------
CHANGED: list[tuple[str, int, str, Any]] = [
    ("changing", 1, "fee_fen", 3100),
    ("changing", 2, "price_fen", 1791),
    ("changing", 2, "discount_percent", 10),
    ("changing", 2, "part_days", 12),
    ("changing", 2, "whole_days", 31),
    ("changing", 2, "allowance", 22_366_666),
    ("changing", 3, "plan", "small"),
    ("pausing", 1, "ends_at", "2026-07-05T16:00:00Z"),
    ("welcome", 1, "plan_version", 2),
    ("welcome", 1, "grant", "plan/another/1"),
    ("welcome", 2, "phase", 1),
    ("welcome", 3, "phase", 0),
    ("bundled", 1, "source", "plan"),
    ("bundled", 3, "number", 2),
    ("rolling", 1, "scope", {}),
    ("rolling", 1, "priority", 49),
    ("rolling", 2, "rollover_max", 5_000_001),
]


def test_a_period_that_is_not_what_its_plan_says(scene: Scene) -> None:
    planted = set()
    for account, number, field, value in CHANGED:
        event = period(scene, account, number)
        scene.change(event, **{field: value})
        planted.add((f"{field} of the period is not what was computed", event.position, f"{EAST}/{account}"))
    assert planted <= {(d.what, d.position, d.account) for d in audit(scene).differences}


@pytest.mark.parametrize(
    ("account", "days"),
    [("welcome", -30), ("welcome", 1), ("pausing", -10)],
    ids=["once more what the first was for", "a day is left out", "while it was paused"],
)
def test_a_period_where_none_begins(scene: Scene, account: str, days: int) -> None:
    event = period(scene, account, 2)
    starts_at = instant(json.loads(event.state)["starts_at"]) + timedelta(days=days)
    scene.change(event, starts_at=starts_at.isoformat())
    found = [d for d in audit(scene).differences if d.what == "period begins where none does"]
    assert event.position in {d.position for d in found}


def test_a_period_of_a_subscription_that_was_ended_or_paused(scene: Scene) -> None:
    asked = scene.first("billing", "SubscriptionChanged")
    for kind in ("SubscriptionEnded", "SubscriptionPaused"):
        again = Scene(scene.market)
        about = {"request_id": "x", "subscription": "changing-small", "effective_at": "2026-06-20T04:00:00Z"}
        again.replace(asked, kind, **about, at_once=True)
        assert ("period begins where none does", "changing") in of_bills(audit(again))


def test_a_period_that_goes_on_although_it_was_to_end_at_once(scene: Scene) -> None:
    pause = scene.first("billing", "SubscriptionPaused")
    scene.change(pause, effective_at="2026-06-19T04:00:00Z")
    found = of_bills(audit(scene))
    assert {("period was not cut", "pausing"), ("period is cut and nobody asked for it", "pausing")} <= found


def test_a_period_that_is_missing(scene: Scene) -> None:
    """Its subscription was never paused, and nothing begins any more."""
    scene.replace(scene.first("billing", "SubscriptionEnded"), "SubscriptionResumed", **_ENDED)
    assert ("period is missing", "cancelling") in of_bills(audit(scene))


_ENDED = {"request_id": "x", "subscription": "cancelling-small", "effective_at": "2026-06-30T16:00:00Z"}


def test_a_period_that_was_cancelled_after_it_had_begun(scene: Scene) -> None:
    gone = scene.first("billing", "PlanPeriodCancelled")
    scene.change(gone, recorded_at="2026-07-03T00:00:00Z")
    assert ("period is cancelled after its beginning", "cancelling") in of_bills(audit(scene))


def test_a_period_that_was_cancelled_after_it_was_cut(scene: Scene) -> None:
    cut = scene.first("billing", "PlanPeriodCut", '"subscription":"pausing-yearly"')
    credited = scene.first("billing", "PlanPeriodCredited", '"subscription":"pausing-yearly"')
    at = json.loads(period(scene, "pausing").state)["starts_at"]
    gone = {"at": at, "subscription": "pausing-yearly", "number": 1, "reason": "refused"}
    scene.replace(credited, "PlanPeriodCancelled", **gone)
    assert credited.position > cut.position
    assert ("period was cut before it was cancelled", "pausing") in of_bills(audit(scene))


def test_a_cut_period_whose_points_were_refused_agrees(tmp_path: Path) -> None:
    market = Subscribers(tmp_path, 1)
    market.publish(LONG_AGO, **CATALOGUE | {"plans": PLANS})
    market.follow()
    market.open(EAST, "a", "", 0)
    market.work()
    market.take("small", "a")
    market.ask("change_subscription", "a", subscription="a-small", plan="large", at_once=True)
    market.do("close_account", (EAST, "a"))
    market.at("07-02")
    market.close_period(JUNE)
    market.follow_all()
    assert audit(Scene(market), JUNE).differences == ()
    market.close()


@pytest.mark.parametrize("who", ["account:welcome", "subscriber:trying"])
def test_a_trial_that_is_marked_as_anothers(scene: Scene, who: str) -> None:
    mark = scene.first("billing", "TrialTaken")

    def of_page(answer: Any) -> Any:
        for e in answer["events"]:
            if e["position"] == mark.position:
                e["stream"] = f"trial:{EAST}/taste/{who}"
        return answer

    scene.tampering.answer("billing", "events", of_page)
    assert ("trial is not marked as taken", "trying") in of_bills(audit(scene))


def test_a_trial_that_is_taken_twice(scene: Scene) -> None:
    """Both accounts are of one subscriber."""
    opened = [scene.first("quota", "AccountOpened", f'"request_id":"r{n}"') for n in range(2, 13)]
    for event in opened:
        if event.stream.endswith(("/trying", "/welcome")):
            scene.change(event, "quota", subscriber="li")
    other = period(scene, "welcome")
    scene.change(other, source="trial", plan="taste", plan_version=1)
    assert ("trial is taken twice", "trying") in of_bills(audit(scene))


# --- what is given back, what rolls over --------------------------------------------------------------
def test_a_credit_that_is_too_high(scene: Scene) -> None:
    credited = scene.first("billing", "PlanPeriodCredited", "changing")
    scene.change(credited, fen=1200)
    assert ("fen of the credit is not what was computed", "changing") in of_bills(audit(scene))


def test_a_credit_for_more_points_than_quota_withdrew(scene: Scene) -> None:
    """It agrees with itself: only quota's log says that less was left."""
    withdrawn = scene.first("quota", "GrantVoided", "changing")
    scene.change(withdrawn, "quota", amount=10_000_000)
    assert ("unused is not what quota says", "changing") in of_bills(audit(scene))


def test_a_credit_that_was_given_before_anything_was_withdrawn(scene: Scene) -> None:
    withdrawn = scene.first("quota", "GrantVoided", "changing")
    scene.change(withdrawn, "quota", grant="another")
    assert ("unused is not what quota says", "changing") in of_bills(audit(scene))


def test_a_cut_for_which_nothing_is_given_back(scene: Scene) -> None:
    credited = scene.first("billing", "PlanPeriodCredited", "changing")
    scene.change(credited, subscription="changing-small", number=2)
    found = of_bills(audit(scene))
    assert {("cut period is not credited", "changing"), ("credit for a period that was not cut", "changing")} <= found


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"amount": 5_000_001}, "amount of what rolls over is not what was computed"),
        ({"amount": 0, "grant": ""}, "amount of what rolls over is not what was computed"),
        ({"unused": 22_500_001}, "unused is not what quota says"),
        ({"unused": 4_999_999, "amount": 4_999_999}, "unused is not what quota says"),
        ({"ends_at": "2026-08-31T16:00:00Z"}, "ends_at of what rolls over is not what was computed"),
        ({"number": 2}, "rest of a period does not roll over"),
    ],
)
def test_points_that_roll_over_and_must_not(scene: Scene, fields: dict[str, Any], what: str) -> None:
    scene.change(scene.first("billing", "PointsRolledOver", '"number":1,'), **fields)
    assert (what, "rolling") in of_bills(audit(scene))


# --- what quota granted --------------------------------------------------------------------------------
@pytest.mark.parametrize("grant", ["plan/welcome-welcome/1", "plan/rolling-rolling/1/rollover"])
def test_a_grant_that_is_not_as_ordered(scene: Scene, grant: str) -> None:
    granted = scene.first("quota", "PointsGranted", f'"request_id":"{grant}"')
    other = {"amount": 1, "source": "promotion", "price_fen": 7, "priority": 3, "plan": "small", "plan_version": 9}
    span = {"effective_at": "2026-06-01T00:00:00Z", "expires_at": "2026-12-31T16:00:00Z"}
    scope = {"scope": {"families": ["a"]}}
    scene.change(granted, "quota", **other, **span, **scope)
    planted = {(f"{field} of the grant is not as ordered", _account(granted)) for field in (*other, *span, *scope)}
    assert planted <= of_bills(audit(scene))


@pytest.mark.parametrize("grant", ["plan/welcome-welcome/1", "plan/rolling-rolling/1/rollover"])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"subscription": ""}, "ordered grant is not made"),
        ({"request_id": "plan/x/1"}, "grant for a subscription that nobody ordered"),
    ],
)
def test_a_grant_that_is_missing_or_foreign(scene: Scene, grant: str, fields: dict[str, Any], what: str) -> None:
    granted = scene.first("quota", "PointsGranted", f'"request_id":"{grant}"')
    scene.change(granted, "quota", **fields)
    assert (what, _account(granted)) in of_bills(audit(scene))


def _account(event: LoggedEvent) -> str:
    return event.stream.partition("/")[2]


def test_a_grant_that_was_made_twice(scene: Scene) -> None:
    first, second = (scene.first("quota", "PointsGranted", f'"plan/welcome-welcome/{n}"') for n in (1, 2))
    scene.change(second, "quota", request_id=json.loads(first.state)["request_id"])
    assert ("ordered grant is made twice", "welcome") in of_bills(audit(scene))


def test_a_grant_of_a_cancelled_period_that_stays(scene: Scene) -> None:
    withdrawn = scene.first("quota", "GrantVoided", "cancelling")
    scene.change(withdrawn, "quota", grant="another")
    assert ("grant of a cancelled period is not withdrawn", "cancelling") in of_bills(audit(scene))


@pytest.mark.parametrize(("seconds", "found"), [(60, 0), (61, 1)])
def test_an_order_of_the_last_minute_is_not_judged(scene: Scene, seconds: int, found: int) -> None:
    started = json.loads(period(scene, "welcome").state)
    findings = Findings()
    orders = Orders(findings)
    orders.ordered("east/welcome", Period(1, started), None)
    orders.finish(instant(started["recorded_at"]) + timedelta(seconds=seconds), {}, {})
    assert [d.what for d in findings.differences] == ["ordered grant is not made"] * found


@pytest.mark.parametrize(("head", "found"), [(6, 0), (7, 1)])
def test_a_grant_that_may_have_been_ordered_later_is_not_judged(head: int, found: int) -> None:
    """`head`: of quota's log, before billing's was read."""
    findings = Findings()
    orders = Orders(findings)
    granted = {"request_id": "plan/s/1", "subscription": "s"}
    orders.heard(7, Account("east/a"), "quota.PointsGranted:1", granted)
    orders.finish(instant("2026-06-01T00:00:00Z"), {"quota": head}, {})
    assert findings.count == found
