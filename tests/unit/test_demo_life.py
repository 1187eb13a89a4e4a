"""The life of a call as its gateway lives it: what it asks, in which order, and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shared.contracts import quota as q
from shared.contracts import routing as r
from shared.contracts.base import Usage
from tokengrid.demo.life import End, Life, life
from tokengrid.demo.subscribers import Subscriber
from tokengrid.demo.traffic import Planned

AT = datetime(2026, 6, 18, 2, tzinfo=UTC)
WHO = Subscriber("shanghai-telecom", "000001", "shanghai", "payg", "payg", ("kimi-k2.5",), 1, 0, 250_000, ())
HELD = {"ok": {"amount": 9_000}}
ROUTED = {"ok": {"deployment": "kimi-a", "serving_operator": "shanghai-unicom"}}
ELSEWHERE = {"ok": {"deployment": "kimi-b", "serving_operator": "shanghai-telecom"}}
OK: dict[str, Any] = {"ok": {}}
DRY = {"error": {"code": "InsufficientQuota"}}


def a_call(**mishaps: Any) -> Planned:
    who = mishaps.pop("subscriber", WHO)
    return Planned("call-1", 1, who, AT, "kimi-k2.5", 1000, 24, 90, 300, 2000, **mishaps)


def debited(amount: int, name: str = "call-1/1") -> dict[str, Any]:
    return {"ok": {"amount": amount, "request_id": name}}


class Lived:
    """Answers a call step by step, and keeps what it asked."""

    def __init__(self, call: Planned) -> None:
        self.life: Life = life(call)
        self.asked = [ask.command for ask in next(self.life)]
        self.end: End | None = None

    def answer(self, *answers: dict[str, Any]) -> list[Any]:
        try:
            self.asked = [ask.command for ask in self.life.send(list(answers))]
        except StopIteration as stop:
            self.end, self.asked = stop.value, []
        return self.asked


def test_reserve_then_route_then_settle_and_report() -> None:
    lived = Lived(a_call())
    (reserve,) = lived.asked
    assert isinstance(reserve, q.Reserve)
    assert (reserve.request_id, reserve.occurred_at) == ("call-1", AT)
    assert reserve.max_usage == Usage(input=1000, cached_input=24, output=256)
    (route,) = lived.answer(HELD)
    assert isinstance(route, r.Route)
    assert (route.tokens, route.input_tokens) == (1114, 1024)
    settle, report = lived.answer(ROUTED)
    assert (settle.usage, settle.final) == (Usage(input=1000, cached_input=24, output=90), True)
    assert (settle.deployment, settle.serving_operator) == ("kimi-a", "shanghai-unicom")
    assert (report.outcome, report.usage) == ("ok", settle.usage)
    lived.answer(debited(5_000), OK)
    assert lived.end == End("settled", "", 1114, 5_000)


def test_a_refused_call_asks_nothing_more() -> None:
    lived = Lived(a_call())
    assert lived.answer(DRY) == []
    assert lived.end == End("refused", "InsufficientQuota")


def test_who_runs_dry_may_buy_more_and_reserve_under_another_name() -> None:
    lived = Lived(a_call(subscriber=WHO._replace(buys_more_fen=1_000)))
    buys, reserve = lived.answer(DRY)
    assert (buys.amount, buys.price_fen, buys.source) == (2_500_000_000, 1_000, "purchase")
    assert reserve.request_id == "call-1-again"
    lived.answer(OK, HELD)
    settle, _ = lived.answer(ROUTED)
    assert settle.reservation == "call-1-again"


def test_what_fails_is_reported_and_left_out_of_the_next_routing() -> None:
    lived = Lived(a_call(failures=1))
    lived.answer(HELD)
    (report,) = lived.answer(ROUTED)
    assert (report.deployment, report.outcome, report.usage) == ("kimi-a", "error", Usage())
    (route,) = lived.answer(OK)
    assert route.exclude == ("kimi-a",)
    settle, _ = lived.answer(ELSEWHERE)
    assert settle.deployment == "kimi-b"


def test_a_call_that_finds_no_place_releases_its_hold() -> None:
    lived = Lived(a_call(failures=1))
    lived.answer(HELD)
    lived.answer(ROUTED)
    lived.answer(OK)
    (release,) = lived.answer({"error": {"code": "NoDeployment"}})
    assert (type(release), release.reservation) == (q.Release, "call-1")
    lived.answer(OK)
    assert lived.end == End("released", "NoDeployment")


def test_a_stream_charges_in_parts_that_make_the_whole() -> None:
    lived = Lived(a_call(parts=3))
    lived.answer(HELD)
    parts = [lived.answer(ROUTED), lived.answer(debited(3), OK), lived.answer(debited(2), OK)]
    settles = [asked[0] for asked in parts]
    assert [s.final for s in settles] == [False, False, True]
    assert [s.usage for s in settles] == [
        Usage(input=1000, cached_input=24, output=30), Usage(output=30), Usage(output=30)
    ]  # fmt: skip
    assert [type(asked[1]) for asked in parts] == [q.Extend, q.Extend, r.Report]
    assert parts[2][1].usage == Usage(input=1000, cached_input=24, output=90)
    assert [s.occurred_at for s in settles] == sorted(s.occurred_at for s in settles)
    lived.answer(debited(2), OK)
    assert lived.end == End("settled", "", 1114, 7)


def test_what_only_a_part_was_held_for_ends_with_that_part() -> None:
    lived = Lived(a_call(accept_partial=True))
    lived.answer({"ok": {"amount": 900, "final": True, "max_output_tokens": 12}})
    settle, report = lived.answer(ROUTED)
    assert settle.usage.output == report.usage.output == 12


def test_a_caller_that_dies_settles_nothing() -> None:
    lived = Lived(a_call(crashes=True))
    lived.answer(HELD)
    assert lived.answer(ROUTED) == []
    assert lived.end == End("abandoned")


def test_where_a_stream_was_cut_off_what_was_served_is_reported() -> None:
    lived = Lived(a_call(crashes=True, parts=2))
    lived.answer(HELD)
    settle, _ = lived.answer(ROUTED)
    (report,) = lived.answer(debited(4), OK)
    assert (report.outcome, report.usage) == ("cancelled", settle.usage)
    lived.answer(OK)
    assert lived.end == End("abandoned", "", 1069, 4)


def test_a_debit_can_be_given_back_in_part() -> None:
    lived = Lived(a_call(reversed_percent=25))
    lived.answer(HELD)
    lived.answer(ROUTED)
    (reverse,) = lived.answer(debited(1_000), OK)
    assert (reverse.debit, reverse.amount) == ("call-1/1", 250)


@pytest.mark.parametrize(
    "mishaps", [{}, {"failures": 2, "throttled": True}, {"parts": 4}, {"late": True}, {"reversed_percent": 100}]
)
def test_no_request_id_is_used_twice_for_quota(mishaps: dict[str, Any]) -> None:
    lived = Lived(a_call(**mishaps))
    seen: list[str] = []
    excluded = 0
    while lived.end is None:
        seen += [c.request_id for c in lived.asked if isinstance(c, q.QuotaCommand)]
        excluded += sum(isinstance(c, r.Route) for c in lived.asked)
        place = {"ok": {"deployment": f"d{excluded}", "serving_operator": "shanghai-unicom"}}
        answers = [place if isinstance(c, r.Route) else debited(900, getattr(c, "request_id", "")) for c in lived.asked]
        lived.answer(*answers)
    assert len(seen) == len(set(seen))
