"""Two months of subscribers audited: planted defects in their bills, and in bills that became void, are found."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from services.audit.replay.billed import sha256_of
from shared.eventstore.log import LoggedEvent
from tests.unit.audit_plans import Subscribers, audit, of_bills, period
from tests.unit.audit_scene import Scene
from tests.unit.audit_world import EAST, JULY, JUNE


@pytest.fixture
def scene(subscribers: Subscribers) -> Scene:
    return Scene(subscribers)


# --- bills ---------------------------------------------------------------------------------------------
def bill(scene: Scene, account: str, month: str = JULY) -> LoggedEvent:
    return scene.first("billing", "BillIssued", f'"account":"{account}"', f'"period":"{month}"')


LINES = {
    JUNE: [
        ("changing", "plan_fee"),
        ("changing", "discount"),
        ("changing", "plan_credit"),
        ("bundled", "bundle"),
        ("trying", "trial"),
        ("committed", "discount"),
        ("committed", "commitment"),
        ("capped", "cap"),
        ("credited", "credit"),
    ],
    JULY: [("credited", "credit"), ("changing", "discount")],
}


@pytest.mark.parametrize("month", LINES)
def test_a_line_that_is_too_high(scene: Scene, month: str) -> None:
    planted = set()
    for account, kind in LINES[month]:
        issued = bill(scene, account, month)
        lines = json.loads(issued.state)["bill"]["lines"]
        n = next(n for n, line in enumerate(lines) if line["kind"] == kind)
        scene.tampering.event("billing", issued.position, partial(_more, n))
        planted.add((f"lines[{n}].fen is not what was computed", account))
    assert planted <= of_bills(audit(scene, month))


def _more(n: int, e: dict[str, Any]) -> None:
    e["bill"]["lines"][n]["fen"] += 1
    e["bill"]["total_fen"] += 1


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


def test_no_commitment_of_a_month_that_began_after_the_account_was_closed(scene: Scene) -> None:
    commitment = {"kind": "commitment", "fen": 500, "text": "Commitment of 5.00 yuan a month"}
    made = [json.loads(bill(scene, "leaving", month).state)["bill"]["lines"] for month in (JUNE, JULY)]
    assert made == [[commitment], []]

    def charge(e: dict[str, Any]) -> None:
        e["bill"]["lines"], e["bill"]["total_fen"] = [commitment], 500

    scene.tampering.event("billing", bill(scene, "leaving").position, charge)
    assert ("number of lines is not what was computed", "leaving") in of_bills(audit(scene, JULY))


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
