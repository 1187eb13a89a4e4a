"""A whole market audited: untouched, everything agrees; each kind of tampering is found, and located.

The services are real and honest; somebody stands between them and the auditor and changes what is answered, as one
who rules over a database can. The canary of all these cases is the untouched market: it must pass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.audit.replay import run_audit
from services.audit.report import render_html
from tests.unit.audit_scene import Scene, flags, found
from tests.unit.audit_world import EAST, JULY, JUNE, Tampering, two_months


# --- what must pass ------------------------------------------------------------------------------
@pytest.mark.parametrize("period", [JUNE, JULY, "2026-05"])
def test_an_untouched_market_agrees(scene: Scene, period: str) -> None:
    told: list[tuple[str, int, int]] = []
    report = scene.audit(period, progress=lambda *step: told.append(step))
    assert report.differences == ()
    assert report.ok
    assert report.accounts == 8
    assert (report.bills, report.statements) == ((0, 0) if period == "2026-05" else (8, 1))
    logs = ("catalog", "quota", "routing", "billing", "audit")
    heads = {log: getattr(scene.market, log).shards[0].log.head() for log in logs}
    assert report.events == heads
    assert all(report.checkpoints[log]["size"] == head for log, head in heads.items() if log != "audit")
    (quota,) = scene.market.quota.shards
    debits = [json.loads(e.state) for e in quota.log.read(0, 10_000) if "TokensDebited" in e.topic]
    assert report.debited == sum(debit["amount"] for debit in debits) > 0
    assert ("quota", heads["quota"], heads["quota"]) in told


def test_any_market_agrees(tmp_path: Path, seed: int) -> None:
    """Whatever happens in it: the seed is the run's own."""
    market = two_months(tmp_path, seed, events=160)
    try:
        for period in (JUNE, JULY):
            assert run_audit(market.client, period, wait_s=1, calls_wait_s=0.1).differences == ()
    finally:
        market.close()


def test_an_audit_with_the_keys_from_elsewhere_agrees(scene: Scene) -> None:
    keys = scene.market.audit.status()["verifier_keys"]
    scene.tampering.answer("audit", "status", lambda _: {"verifier_keys": {}})
    assert scene.audit(verifier_keys=keys).ok


# --- quota's log ---------------------------------------------------------------------------------
def test_a_changed_amount(scene: Scene) -> None:
    debit = scene.first("quota", "TokensDebited", '"input"')
    scene.tampering.event("quota", debit.position, lambda e: e.update(amount=e["amount"] - 1))
    report = scene.audit()
    (difference,) = found(report, "invariants", "amount is not usage times rates")
    assert (difference.log, difference.position, difference.account) == ("quota", debit.position, debit.stream)
    assert int(difference.expected) == int(difference.found) + 1
    assert "log" in flags(report)


def test_a_changed_usage_that_is_consistent_in_itself(scene: Scene) -> None:
    """Less usage, the amount and the draws to match: the log no longer is what was signed, and no longer what
    the read model and the serving operator say."""
    debit = scene.first("quota", "TokensDebited", '"deployment"', "-west", '"input"', '"draws":[[')

    def cheaper(e: dict[str, Any]) -> None:
        e["usage"]["input"] -= 1
        less = e["rates"]["input"]
        e["amount"] -= less
        e["draws"][0][1] -= less

    scene.tampering.event("quota", debit.position, cheaper)
    report = scene.audit()
    assert {"log", "balances", "calls"} <= flags(report)
    assert found(report, "log", "root is not the signed one")
    assert {d.account for d in report.differences if d.area == "balances"} == {debit.stream}


def test_a_wrong_rate_with_a_matching_amount(scene: Scene) -> None:
    """The debit agrees with itself; only the published rate card says that the rate is wrong."""
    debit = scene.first("quota", "TokensDebited", '"input"', '"overdrawn"')

    def dearer(e: dict[str, Any]) -> None:
        e["rates"]["input"] += 1
        e["amount"] += e["usage"]["input"]
        e["overdrawn"] += e["usage"]["input"]

    scene.tampering.event("quota", debit.position, dearer)
    (difference,) = found(scene.audit(), "invariants", "rates are not those of the rate card")
    assert difference.position == debit.position


def test_a_missing_event(scene: Scene) -> None:
    gone = scene.first("quota", "TokensDebited")

    def without(answer: Any) -> Any:
        answer["events"] = [e for e in answer["events"] if e["position"] != gone.position]
        return answer

    scene.tampering.answer("quota", "events", without)
    report = scene.audit()
    assert [d.position for d in found(report, "invariants", "positions have a gap")] == [gone.position + 1]
    gaps = found(report, "invariants", "versions of a stream have a gap")
    assert [d.account for d in gaps] == [gone.stream]
    assert "log" in flags(report)


def test_a_missing_event_with_all_behind_it_moved_up(scene: Scene) -> None:
    """Positions and versions made gapless again: it is a shorter log than was signed, and another."""
    gone = scene.first("quota", "TokensDebited")
    head = scene.market.quota.shards[0].log.head()
    log = scene.market.client.call("quota", "events", after=0, limit=10_000)["events"]
    del log[gone.position - 1]
    for position, e in enumerate(log, start=1):
        e["position"] = position
        e["version"] -= e["stream"] == gone.stream and e["version"] > gone.version
    scene.tampering.answer("quota", "head", lambda _: head - 1)

    class Rewritten(Tampering):
        def call(self, service: str, method: str, /, **kwargs: Any) -> Any:
            if (service, method) == ("quota", "events"):
                return {"head": head - 1, "events": log[kwargs["after"] : kwargs["after"] + kwargs["limit"]]}
            return head - 1 if (service, method) == ("quota", "head") else super().call(service, method, **kwargs)

    scene.tampering = Rewritten(scene.market.client)
    report = scene.audit()
    assert found(report, "log", "log is shorter than its checkpoint")
    assert found(report, "log", "log is not the one that was signed")


def test_a_doubled_debit(scene: Scene) -> None:
    """A debit recorded again at the end, under the same request."""
    head = scene.market.quota.shards[0].log.head()
    debit = scene.first("quota", "TokensDebited", '"overdrawn"')
    versions = [e.version for e in scene.market.quota.shards[0].log.read(0, 10_000) if e.stream == debit.stream]
    extra = debit._replace(position=head + 1, version=versions[-1] + 1)._asdict()
    scene.tampering.answer("quota", "head", lambda _: head + 1)

    def longer(answer: Any) -> Any:
        events = answer["events"]
        if not events or events[-1]["position"] == head:
            events.append(extra)
        return answer

    scene.tampering.answer("quota", "events", longer)
    report = scene.audit()
    (difference,) = found(report, "invariants", "request has two effects")
    assert (difference.position, difference.account) == (head + 1, debit.stream)
    assert difference.expected == f"only that at {debit.position}"
    assert found(report, "log", "audit does not follow the log")


@pytest.mark.parametrize("log", ["catalog", "quota", "routing", "billing"])
def test_a_cut_tail(scene: Scene, log: str) -> None:
    """The last events are gone, and nothing in what is left says so: only the checkpoints do."""
    head = getattr(scene.market, log).shards[0].log.head()
    scene.tampering.shorten(log, head - 1)
    (difference, *_) = found(scene.audit(JULY), "log", "log is shorter than its checkpoint")
    assert (difference.log, difference.position) == (log, head - 1)


@pytest.mark.parametrize("log", ["catalog", "quota", "routing", "billing"])
def test_one_changed_letter_anywhere(scene: Scene, log: str) -> None:
    """An event that means the same, stored with one more space, is not the event that was signed."""
    middle = getattr(scene.market, log).shards[0].log.head() // 2

    def spaced(answer: Any) -> Any:
        for e in answer["events"]:
            if e["position"] == middle:
                e["state"] = e["state"].replace('":', '": ', 1)
        return answer

    scene.tampering.answer(log, "events", spaced)
    report = scene.audit()
    assert flags(report) == {"log"}
    assert {d.log for d in report.differences} == {log}


def test_an_event_that_is_no_json(scene: Scene) -> None:
    position = scene.first("quota", "TokensDebited").position

    def cut(answer: Any) -> Any:
        for e in answer["events"]:
            if e["position"] == position:
                e["state"] = e["state"][:-3]
        return answer

    scene.tampering.answer("quota", "events", cut)
    report = scene.audit()
    assert [d.position for d in found(report, "invariants", "event is not of its kind")] == [position]


# --- balances ------------------------------------------------------------------------------------
def test_a_balance_off_by_one(scene: Scene) -> None:
    def off(answer: Any) -> Any:
        for account in answer["accounts"]:
            if account["account"] == "e1":
                next(iter(account["grants"].values()))["debited"] += 1
        return answer

    scene.tampering.answer("quota", "balances", off)
    report = scene.audit()
    assert flags(report) == {"balances"}
    assert [d.account for d in report.differences] == [f"{EAST}/e1"]


def test_a_missing_and_an_invented_account(scene: Scene) -> None:
    def replaced(answer: Any) -> Any:
        for account in answer["accounts"]:
            if account["account"] == "e1":
                account["account"] = "e1x"
        return answer

    scene.tampering.answer("quota", "balances", replaced)
    report = scene.audit()
    assert flags(report) == {"balances"}
    assert {d.account for d in report.differences} == {f"{EAST}/e1", f"{EAST}/e1x"}


def test_a_read_model_that_does_not_follow(scene: Scene) -> None:
    scene.tampering.answer("quota", "balances", lambda answer: {**answer, "position": 1, "accounts": []})
    report = scene.audit()
    assert len(found(report, "balances", "account is missing from the balances")) == 8


# --- the report ------------------------------------------------------------------------------------
def test_the_report_is_bounded_and_can_be_written_down(scene: Scene) -> None:
    scene.tampering.answer("quota", "head", lambda head: head)

    def all_wrong(answer: Any) -> Any:
        for e in answer["events"]:
            e["version"] += 1
        return answer

    for log in ("quota", "routing", "billing", "catalog", "audit"):
        scene.tampering.answer(log, "events", all_wrong)
    report = scene.audit()
    assert report.differences_count >= len(report.differences) > 0
    assert len(report.differences) <= 1_000
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["ok"] is False
    assert plain["differences"][0]["log"]


def test_the_page_shows_the_verdict_and_escapes_what_it_shows(scene: Scene) -> None:
    assert "Everything agrees" in render_html(scene.audit())
    scene.tampering.answer("quota", "balances", lambda answer: _renamed(answer, "<script>"))
    page = render_html(scene.audit())
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "differences" in page


def _renamed(answer: Any, name: str) -> Any:
    answer["accounts"][0]["account"] = name
    return answer
