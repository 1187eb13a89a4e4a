"""Two months of subscribers audited: untouched, everything agrees; each planted defect is found and located."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.audit.replay import AuditReport
from services.audit.replay.billed import sha256_of
from services.audit.replay.calendar import instant
from shared.eventstore.log import LoggedEvent
from tests.unit.audit_plans import Subscribers, subscribed_months
from tests.unit.audit_scene import Scene
from tests.unit.audit_world import EAST, JULY, JUNE

Plant = Callable[[Scene], LoggedEvent]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subscribers]:
    made = subscribed_months(tmp_path_factory.mktemp("subscribers"))
    yield made
    made.close()


@pytest.fixture
def scene(market: Subscribers) -> Scene:
    return Scene(market)


def audit(scene: Scene, period: str = JULY) -> AuditReport:
    return scene.audit(period, wait_s=0, calls_wait_s=0)


def of_bills(report: AuditReport) -> set[tuple[str, str]]:
    """What was found in the area of bills, and of whom."""
    return {(d.what, d.account.partition("/")[2]) for d in report.differences if d.area == "bills"}


@pytest.mark.parametrize("period", [JUNE, JULY, "2026-08"])
def test_untouched_everything_agrees(scene: Scene, period: str) -> None:
    report = audit(scene, period)
    assert report.differences == ()
    assert report.bills == (0 if period == "2026-08" else 11)


# --- periods ---------------------------------------------------------------------------------------
def period(scene: Scene, account: str, number: int = 1) -> LoggedEvent:
    return scene.first("billing", "PlanPeriodStarted", f'"subscription":"{account}-', f'"number":{number},')


def changed(account: str, nth: int = 1, **fields: Any) -> Plant:
    """The period has other values."""

    def plant(scene: Scene) -> LoggedEvent:
        event = period(scene, account, nth)
        scene.change(event, **fields)
        return event

    return plant


def moved(account: str, number: int, days: int) -> Plant:
    """The period begins so many days later."""

    def plant(scene: Scene) -> LoggedEvent:
        event = period(scene, account, number)
        starts_at = instant(json.loads(event.state)["starts_at"]) + timedelta(days=days)
        scene.change(event, starts_at=starts_at.isoformat())
        return event

    return plant


@pytest.mark.parametrize(
    ("plant", "what"),
    [
        (changed("changing", fee_fen=3100), "fee_fen of the period is not what was computed"),
        (changed("changing", 2, price_fen=1791), "price_fen of the period is not what was computed"),
        (changed("changing", 2, discount_percent=10), "discount_percent of the period is not what was computed"),
        (changed("changing", 2, part_days=12), "part_days of the period is not what was computed"),
        (changed("changing", 2, whole_days=31), "whole_days of the period is not what was computed"),
        (changed("changing", 2, allowance=22_366_666), "allowance of the period is not what was computed"),
        (changed("pausing", ends_at="2026-07-05T16:00:00Z"), "ends_at of the period is not what was computed"),
        (changed("welcome", 2, phase=1), "phase of the period is not what was computed"),
        (changed("welcome", 3, phase=0, fee_fen=3000), "phase of the period is not what was computed"),
        (changed("changing", 3, plan="small"), "plan of the period is not what was computed"),
        (changed("welcome", plan_version=2), "plan_version of the period is not what was computed"),
        (changed("bundled", source="plan"), "source of the period is not what was computed"),
        (changed("rolling", scope={}), "scope of the period is not what was computed"),
        (changed("rolling", priority=49), "priority of the period is not what was computed"),
        (changed("rolling", 2, rollover_max=5_000_001), "rollover_max of the period is not what was computed"),
        (changed("welcome", grant="plan/another/1"), "grant of the period is not what was computed"),
        (changed("welcome", 3, number=2), "number of the period is not what was computed"),
        (moved("welcome", 2, -30), "period begins where none does"),  # once more what the first one was for
        (moved("welcome", 2, 1), "period begins where none does"),  # a day for which there is no period
        (moved("pausing", 2, -10), "period begins where none does"),  # while it was paused
    ],
)
def test_a_period_that_is_not_what_its_plan_says(scene: Scene, plant: Plant, what: str) -> None:
    event = plant(scene)
    found = [d for d in audit(scene).differences if (d.area, d.what) == ("bills", what)]
    assert event.position in {d.position for d in found}
    assert {f"subscriptions:{d.account}" for d in found} == {event.stream}


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
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"subscription": ""}, "ordered grant is not made"),
        ({"request_id": "plan/x/1"}, "grant for a subscription that nobody ordered"),
        ({"amount": 1}, "amount of the grant is not as ordered"),
        ({"source": "promotion"}, "source of the grant is not as ordered"),
        ({"price_fen": 7}, "price_fen of the grant is not as ordered"),
        ({"priority": 3}, "priority of the grant is not as ordered"),
        ({"plan": "small"}, "plan of the grant is not as ordered"),
        ({"expires_at": "2026-12-31T16:00:00Z"}, "expires_at of the grant is not as ordered"),
        ({"effective_at": "2026-06-01T00:00:00Z"}, "effective_at of the grant is not as ordered"),
    ],
)
def test_a_grant_that_is_not_as_ordered(scene: Scene, grant: str, fields: dict[str, Any], what: str) -> None:
    granted = scene.first("quota", "PointsGranted", f'"request_id":"{grant}"')
    scene.change(granted, "quota", **fields)
    assert (what, granted.stream.partition("/")[2]) in of_bills(audit(scene))


def test_a_grant_that_was_made_twice(scene: Scene) -> None:
    first, second = (scene.first("quota", "PointsGranted", f'"plan/welcome-welcome/{n}"') for n in (1, 2))
    scene.change(second, "quota", request_id=json.loads(first.state)["request_id"])
    assert ("ordered grant is made twice", "welcome") in of_bills(audit(scene))


def test_a_grant_of_a_cancelled_period_that_stays(scene: Scene) -> None:
    withdrawn = scene.first("quota", "GrantVoided", "cancelling")
    scene.change(withdrawn, "quota", grant="another")
    assert ("grant of a cancelled period is not withdrawn", "cancelling") in of_bills(audit(scene))


def test_an_order_of_the_last_minute_is_not_judged(scene: Scene) -> None:
    """Billing has recorded the period, and the auditor has come before quota's next event."""
    last = period(scene, "rolling", 3)
    recorded = json.loads(last.state)["recorded_at"]
    quota = scene.market.quota.shards[0].log
    before = next(e.position for e in quota.read(0, 10_000) if json.loads(e.state)["recorded_at"] >= recorded) - 1
    scene.tampering.shorten("quota", before)
    scene.tampering.shorten("billing", period(scene, "welcome", 3).position)
    assert not {what for what, _ in of_bills(audit(scene, JUNE)) if "grant" in what}


# --- bills ---------------------------------------------------------------------------------------------
def bill(scene: Scene, account: str, month: str = JULY) -> LoggedEvent:
    return scene.first("billing", "BillIssued", f'"account":"{account}"', f'"period":"{month}"')


@pytest.mark.parametrize(
    ("account", "month", "kind"),
    [
        ("changing", JUNE, "plan_fee"),
        ("changing", JUNE, "discount"),
        ("changing", JUNE, "plan_credit"),
        ("bundled", JUNE, "bundle"),
        ("trying", JUNE, "trial"),
        ("committed", JUNE, "discount"),
        ("capped", JUNE, "cap"),
        ("committed", JUNE, "commitment"),
        ("credited", JUNE, "credit"),
        ("credited", JULY, "credit"),
    ],
)
def test_a_line_that_is_too_high(scene: Scene, account: str, month: str, kind: str) -> None:
    issued = bill(scene, account, month)
    lines = json.loads(issued.state)["bill"]["lines"]
    n = next(n for n, line in enumerate(lines) if line["kind"] == kind)
    scene.tampering.event("billing", issued.position, lambda e: _more(e["bill"], n))
    assert (f"lines[{n}].fen is not what was computed", account) in of_bills(audit(scene, month))


def _more(bill: dict[str, Any], n: int) -> None:
    bill["lines"][n]["fen"] += 1
    bill["total_fen"] += 1


@pytest.mark.parametrize(
    ("plan", "month", "terms"),
    [
        ("capped", JUNE, {"cap_fen": 701}),
        ("committed", JUNE, {"commitment_fen": 901}),
        ("committed", JUNE, {"usage_discount_percent": 16}),
        ("rolling", JULY, {"points_per_yuan": 100_000}),
        ("rolling", JULY, {"overage": "refuse"}),
    ],
)
def test_terms_as_you_go_that_are_not_the_plans(scene: Scene, plan: str, month: str, terms: dict[str, Any]) -> None:
    """The bill is as it was: the plan that it must follow, which the account is named after, has other terms."""
    published = scene.first("catalog", "PlanPublished", f'"plan":"{plan}"')
    scene.tampering.event("catalog", published.position, lambda e: e["item"].update(terms))
    assert {found for _, found in of_bills(audit(scene, month))} == {plan}


def test_a_credit_that_is_used_twice(scene: Scene) -> None:
    """The second bill takes off what the first has used."""
    june, july = (bill(scene, "credited", month) for month in (JUNE, JULY))
    used = next(line for line in json.loads(june.state)["bill"]["lines"] if line["kind"] == "credit")

    def again(e: dict[str, Any]) -> None:
        *others, last = e["bill"]["lines"]
        e["bill"].update(
            lines=[*others, {**used, "fen": -300}], total_fen=e["bill"]["total_fen"] + last["fen"] * -1 - 300
        )
        e["bill_sha256"] = sha256_of(e["bill"])

    scene.tampering.event("billing", july.position, again)
    found = of_bills(audit(scene))
    assert {
        ("lines[1].fen is not what was computed", "credited"),
        ("total_fen is not what was computed", "credited"),
    } <= found


def test_a_credit_that_nobody_gave(scene: Scene) -> None:
    scene.change(scene.first("billing", "AccountCredited"), fen=599)
    assert ("lines[1].fen is not what was computed", "credited") in of_bills(audit(scene))


def test_a_bill_that_knows_what_came_later(scene: Scene) -> None:
    issued = bill(scene, "welcome")
    scene.tampering.event("billing", issued.position, lambda e: e["bill"].update(billing_position=issued.position))
    assert ("bill knows of what came later", "welcome") in of_bills(audit(scene))


def test_a_bill_that_knows_less_than_was_recorded_carries_less(scene: Scene) -> None:
    issued = bill(scene, "welcome")
    before = period(scene, "welcome", 2).position - 1
    scene.tampering.event("billing", issued.position, lambda e: e["bill"].update(billing_position=before))
    assert ("number of lines is not what was computed", "welcome") in of_bills(audit(scene))


# --- void bills --------------------------------------------------------------------------------------------
def test_a_void_bill_that_is_paid(scene: Scene) -> None:
    void, paid = scene.first("billing", "BillVoided"), scene.first("billing", "BillPaid")
    scene.change(paid, number=json.loads(void.state)["number"])
    assert ("payment of a void bill", "voided") in of_bills(audit(scene, JUNE))


def test_a_paid_bill_that_becomes_void(scene: Scene) -> None:
    paid, void = scene.first("billing", "BillPaid"), scene.first("billing", "BillVoided", f"{EAST}-{JULY}")
    scene.change(void, number=json.loads(paid.state)["number"])
    found = of_bills(audit(scene, JUNE))
    assert {("void bill was paid or credited", "voided"), ("void bill is not the account's last", "voided")} <= found


def test_a_bill_that_is_missing_after_another_became_void(scene: Scene) -> None:
    void = scene.first("billing", "BillVoided", f"{EAST}-{JUNE}")
    scene.change(void, number=json.loads(bill(scene, "welcome", JUNE).state)["bill"]["number"])
    found = of_bills(audit(scene, JUNE))
    assert {("bill is missing", "welcome"), ("account billed twice", "voided")} <= found


def test_a_void_bill_that_is_answered_as_due(scene: Scene) -> None:
    def due(answer: Any) -> Any:
        for row in answer["bills"]:
            row["status"] = "issued"
        return answer

    scene.tampering.answer("billing", "bills", due)
    assert of_bills(audit(scene, JUNE)) == {("void of the answered bill differs", "voided")}
