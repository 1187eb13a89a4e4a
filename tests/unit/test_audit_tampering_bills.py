"""A market audited whose bills, statements, calls or checkpoints were tampered with: each is found, and located."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.audit.keys import key_of
from services.audit.replay.billed import sha256_of
from shared.transparency.checkpoint import Checkpoint, sign_checkpoint
from shared.transparency.keys import SigningKey
from tests.unit.audit_scene import Scene, flags, found
from tests.unit.audit_world import EAST, JULY, JUNE


# --- bills and statements --------------------------------------------------------------------------
def wrong_total(e: dict[str, Any]) -> None:
    """One fen more, and the hash made anew."""
    e["bill"]["total_fen"] += 1
    e["bill_sha256"] = sha256_of(e["bill"])


def test_a_wrong_total(scene: Scene) -> None:
    bill = scene.first("billing", "BillIssued", '"usage"')
    scene.tampering.event("billing", bill.position, wrong_total)
    report = scene.audit()
    (difference,) = found(report, "bills", "total_fen is not what was computed")
    content = json.loads(bill.state)["bill"]
    assert (difference.position, difference.account) == (bill.position, f"{content['operator']}/{content['account']}")
    assert int(difference.found) == int(difference.expected) + 1
    assert found(report, "bills", "sha256 of the answered bill differs")


@pytest.mark.parametrize("name", ["fen", "charged", "amount", "calls", "rate_card", "residual"])
def test_a_wrong_line(scene: Scene, name: str) -> None:
    bill = scene.first("billing", "BillIssued", '"kind":"usage"', '"charged"')
    lines = json.loads(bill.state)["bill"]["lines"]
    n = next(n for n, line in enumerate(lines) if line.get("charged"))

    def change(e: dict[str, Any]) -> None:
        line = e["bill"]["lines"][n]
        line[name] = line[name] + "0" if isinstance(line[name], str) else line[name] + 1

    scene.tampering.event("billing", bill.position, change)
    report = scene.audit()
    assert [d.position for d in found(report, "bills", f"lines[{n}].{name} is not what was computed")] == [
        bill.position
    ]
    assert found(report, "bills", "hash is not the bill's")


def test_late_usage_left_out(scene: Scene) -> None:
    bill = scene.first("billing", "BillIssued", '"late_usage"', JULY)

    def without(e: dict[str, Any]) -> None:
        e["bill"]["lines"] = [line for line in e["bill"]["lines"] if line["kind"] != "late_usage"]

    scene.tampering.event("billing", bill.position, without)
    assert found(scene.audit(JULY), "bills", "number of lines is not what was computed")


def test_a_missing_bill(scene: Scene) -> None:
    """The bill's event became that of another account: one bill is missing, one is too many."""
    bill = scene.first("billing", "BillIssued", f'"{EAST}"', '"account":"e2"', JUNE)

    def other(e: dict[str, Any]) -> None:
        e["bill"]["account"] = "e1"
        e["bill_sha256"] = sha256_of(e["bill"])

    scene.tampering.event("billing", bill.position, other)
    report = scene.audit()
    assert [d.account for d in found(report, "bills", "bill is missing")] == [f"{EAST}/e2"]
    assert [d.position for d in found(report, "bills", "account billed twice")] == [bill.position]


def test_a_bill_that_is_not_answered_and_one_that_is_invented(scene: Scene) -> None:
    def changed(answer: Any) -> Any:
        answer["bills"][0]["number"] += "x"
        return answer

    scene.tampering.answer("billing", "bills", changed)
    report = scene.audit()
    assert flags(report) == {"bills"}
    assert {d.what for d in report.differences} == {"bill is not answered", "bill is not in the log"}


def test_a_gap_in_the_numbers(scene: Scene) -> None:
    bill = scene.first("billing", "BillIssued", JULY)

    def skipped(e: dict[str, Any]) -> None:
        e["bill"]["number"] = e["bill"]["number"][:-1] + "9"
        e["bill_sha256"] = sha256_of(e["bill"])

    scene.tampering.event("billing", bill.position, skipped)
    assert [d.position for d in found(scene.audit(), "bills", "bill numbers have a gap")] == [bill.position]


def test_two_bills_of_one_number(scene: Scene) -> None:
    """The first keeps it, and what was paid on it; the second account has no bill."""
    first, second = (scene.first("billing", "BillIssued", f'"{EAST}"', f'"account":"{a}"', JUNE) for a in ("e0", "e2"))
    one = json.loads(first.state)["bill"]["number"]

    def same(e: dict[str, Any]) -> None:
        e["bill"]["number"] = one
        e["bill_sha256"] = sha256_of(e["bill"])

    scene.tampering.event("billing", second.position, same)
    report = scene.audit()
    (difference,) = found(report, "bills", "two bills of one number")
    assert (difference.position, difference.account, difference.found) == (second.position, f"{EAST}/e2", one)
    assert [d.account for d in found(report, "bills", "bill is missing")] == [f"{EAST}/e2"]


def test_a_wrong_statement(scene: Scene) -> None:
    statement = scene.first("billing", "StatementIssued", JUNE)

    def less(e: dict[str, Any]) -> None:
        e["statement"]["lines"][0]["net_fen"] -= 1
        e["statement"]["net_fen"] -= 1
        e["statement_sha256"] = sha256_of(e["statement"])

    scene.tampering.event("billing", statement.position, less)
    report = scene.audit()
    assert flags(report) == {"statements", "log"}
    located = {d.position for d in report.differences if d.area == "statements"}
    assert located == {statement.position}


def test_a_wrong_tariff_in_the_catalogue(scene: Scene) -> None:
    """The statement is as it was; the tariff it must follow is another."""
    tariff = scene.first("catalog", "TariffPublished", '"beta"')
    scene.tampering.event("catalog", tariff.position, lambda e: e["item"]["rates"].update(input=4001))
    assert {"statements", "log"} == flags(scene.audit())


# --- calls -----------------------------------------------------------------------------------------
def test_more_charged_than_was_served(scene: Scene) -> None:
    served = scene.first("routing", "CallServed", '"usage":{"input"')
    scene.tampering.event("routing", served.position, lambda e: e["usage"].update(input=e["usage"]["input"] - 1))
    report = scene.audit()
    assert flags(report) == {"calls", "log"}
    (difference,) = found(report, "calls", "served is not charged")
    assert "'input': -1" in difference.found
    routed = scene.first("routing", "CallRouted", f'"request_id":"{json.loads(served.state)["request_id"]}"')
    assert (difference.log, difference.position) == ("routing", routed.position)


def test_a_charge_for_another_deployment(scene: Scene) -> None:
    debit = scene.first("quota", "TokensDebited", '"deployment":"beta-west"')
    scene.tampering.event("quota", debit.position, lambda e: e.update(deployment="alpha-west"))
    report = scene.audit()
    assert [d.position for d in found(report, "calls", "charged but not routed there")] == [debit.position]


# --- checkpoints -----------------------------------------------------------------------------------
def test_a_forged_signature(scene: Scene) -> None:
    """A checkpoint of the right log and size, signed by somebody else under the same name."""
    forger = key_of(SigningKey.generate("tokengrid"), "quota")

    def forged(answer: Any) -> Any:
        if answer["log"] == "quota":
            checkpoint = Checkpoint(forger.name, answer["size"], bytes.fromhex(answer["root_sha256"]))
            answer["note"] = str(sign_checkpoint(checkpoint, forger))
        return answer

    scene.tampering.answer("audit", "seal", forged)
    report = scene.audit()
    assert flags(report) == {"log"}
    assert [d.log for d in found(report, "log", "checkpoint does not verify")] == ["quota"]


def test_a_changed_checkpoint_in_audits_log(scene: Scene) -> None:
    signed = scene.first("audit", "CheckpointSigned", '"quota"')
    scene.tampering.event("audit", signed.position, lambda e: e.update(note=e["note"].replace("\n", "\n1", 1)))
    report = scene.audit()
    assert [d.position for d in found(report, "log", "checkpoint does not verify")] == [signed.position]


def test_keys_from_elsewhere_unmask_a_service_with_keys_of_its_own(scene: Scene) -> None:
    keys = scene.market.audit.status()["verifier_keys"]
    other = SigningKey.generate("tokengrid")
    report = scene.audit(verifier_keys={log: str(key_of(other, log).verifier) for log in keys})
    assert flags(report) == {"log"}


def test_a_wrong_inclusion_and_consistency_proof(scene: Scene) -> None:
    def bent(answer: Any) -> Any:
        answer["proof"] = ["00" * 32, *answer["proof"][1:]]
        return answer

    scene.tampering.answer("audit", "inclusion", bent)
    scene.tampering.answer("audit", "consistency", bent)
    report = scene.audit()
    assert found(report, "log", "event is not proved to be in the log")
    assert found(report, "log", "log is not proved to extend its past")
