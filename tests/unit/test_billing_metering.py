"""Metering reads of an event no more than it sums; what it makes of a page is what the whole events say."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.domain.metered import Debit, Readers
from services.billing.domain.metering import Metering, fold_log, on_time, wholesale
from shared.clock import SHANGHAI, day_of, period_bounds, period_of
from shared.contracts import base
from shared.contracts import quota as q
from shared.contracts.base import TOKEN_CLASSES, Usage
from shared.eventstore.log import LoggedEvent
from tests.unit.billing_world import QuotaLog, june

MINUTE_TO_JULY = june(30, 23, 59)
SUMS = ("calls", *TOKEN_CLASSES, "amount", "charged")


def closed_in_may(period: str) -> set[str]:
    """The bills of one of two operators for May are issued."""
    return {"sh-telecom"} if period == "2026-05" else set()


@pytest.mark.parametrize("zone", [UTC, SHANGHAI], ids=["utc", "shanghai"])
@pytest.mark.parametrize(
    ("recorded", "late"),
    [
        (MINUTE_TO_JULY - timedelta(microseconds=1), False),
        (MINUTE_TO_JULY, True),
        (MINUTE_TO_JULY + timedelta(microseconds=1), True),
        (MINUTE_TO_JULY + timedelta(days=40), True),
    ],
)
def test_what_is_recorded_a_minute_before_the_periods_end_has_a_row_of_its_own(
    recorded: datetime, late: bool, zone: Any
) -> None:
    quota = QuotaLog()
    quota.debit(june(3), Usage(input=1))
    quota.debit(june(3).astimezone(zone), Usage(input=2), recorded=recorded.astimezone(zone))
    rows = {row.segment: row.sums.input for row in fold_log(quota.events).usage()}
    assert rows == ({0: 1, 2: 2} if late else {0: 3})


def test_a_version_that_nobody_knows_stops_it_where_it_is_heard() -> None:
    debit = QuotaLog().debit(june(1), Usage(input=1))
    with pytest.raises(KeyError, match="TokensDebited:99"):
        fold_log([debit._replace(topic="quota.TokensDebited:99")])
    assert not fold_log([debit._replace(topic="quota.PointsReserved:99")]).usage()


def test_an_older_version_is_read_as_what_it_has_become(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = q.TokensDebited.TOPIC
    monkeypatch.setitem(base._UPCASTS, "quota.TokensDebited:0", (topic, lambda fields: fields | {"overdrawn": 7}))
    debit = QuotaLog().debit(june(1), Usage(input=5))
    read = Readers()["quota.TokensDebited:0"]
    assert read is not None
    event = read(debit.state)
    assert (type(event), event.usage.input, event.overdrawn) == (Debit, 5, 7)


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["sh-telecom", "gd-mobile"]),
            "account": st.sampled_from(["a", "b"]),
            "hours": st.integers(-24 * 10, 24 * 35),
            "late_min": st.sampled_from([0, 0, 0, 1, 60 * 24 * 30]),
            "zone": st.sampled_from([UTC, SHANGHAI]),
            "usage": st.builds(Usage, **{name: st.integers(0, 9) for name in TOKEN_CLASSES}),
            "credit": st.integers(0, 1),
            "overdrawn": st.integers(0, 1),
            "model": st.sampled_from(["kimi", "glm"]),
            "serving": st.sampled_from(["", "sh-telecom", "gd-mobile"]),
            "final": st.booleans(),
            "trace": st.sampled_from([None, "t1", "t2"]),
            "reversal": st.booleans(),
        }
    ),
    max_size=12,
)


def logged(drawn: list[dict[str, Any]]) -> list[LoggedEvent]:
    quota = QuotaLog()
    for one in drawn:
        at = (june(1, 0) + timedelta(hours=one["hours"])).astimezone(one["zone"])
        recorded = at + timedelta(minutes=one["late_min"])
        quota.operator, quota.account = one["operator"], one["account"]
        unpaid = {"credit": one["credit"], "overdrawn": one["overdrawn"]}
        if one["reversal"]:
            quota.reverse(at, grants=3, **unpaid, model=one["model"], recorded=recorded)
        else:
            usage = Usage(input=one["usage"].input + 1, output=one["usage"].output)
            more = {name: one[name] for name in ("model", "serving", "final", "trace")}
            quota.debit(at, usage, **unpaid, recorded=recorded, **more)
    return quota.events


def by_the_rules(events: list[LoggedEvent]) -> tuple[dict[Any, list[Any]], dict[Any, list[int]], dict[Any, int]]:
    """Usage, wholesale and what was on time, of whole events, as plainly as it can be written."""
    usage: dict[Any, list[Any]] = defaultdict(lambda: [0] * len(SUMS) + [None])
    wholesale: dict[Any, list[int]] = defaultdict(lambda: [0] * (len(SUMS) - 1))
    on_time: dict[Any, int] = {}
    for each in events:
        event: Any = each.event
        operator, account = each.stream.split("/")
        period, day = period_of(event.at), day_of(event.at)
        late = event.recorded_at >= period_bounds(period)[1] - timedelta(minutes=1)
        segment = each.position if late or operator in closed_in_may(period) else 0
        if not segment:
            on_time[operator, period] = each.position
        debit = isinstance(event, q.TokensDebited)
        serving = event.serving_operator if debit else ""
        row = usage[operator, account, period, event.model, event.rate_card, serving, day, segment]
        tokens = [getattr(event.usage, name) for name in TOKEN_CLASSES] if debit else [0] * 4
        unpaid = sum(draw.amount for draw in event.draws if draw.grant == q.CREDIT) + event.overdrawn
        sign = 1 if debit else -1
        sums = [int(debit and event.final), *tokens, sign * event.amount, sign * unpaid]
        row[:-1] = [a + b for a, b in zip(row[:-1], sums, strict=True)]
        row[-1] = each.trace or row[-1]
        if serving not in ("", operator):
            pair = wholesale[operator, serving, period, event.model, day, segment]
            pair[:] = [a + b for a, b in zip(pair, sums[:-1], strict=True)]
    return usage, wholesale, on_time


def held(folded: Metering) -> tuple[dict[Any, list[Any]], dict[Any, list[int]], dict[Any, int]]:
    rows = folded.usage()
    assert [row.stream for row in rows] == sorted(row.stream for row in rows)
    usage = {
        (*row.stream.split("/"), *row.kind, row.segment): [getattr(row.sums, n) for n in (*SUMS, "trace")]
        for row in rows
    }
    assert len(usage) == len(rows), "two rows with one key"
    pairs = {tuple(key): [getattr(sums, n) for n in SUMS[:-1]] for key, sums in wholesale(rows).items()}
    return usage, pairs, on_time(rows)


@settings(max_examples=50)
@given(drawn=EVENTS)
def test_a_page_becomes_what_its_whole_events_say(drawn: list[dict[str, Any]]) -> None:
    events = logged(drawn)
    assert held(fold_log(events, closed_in_may)) == by_the_rules(events)


@settings(max_examples=50)
@given(drawn=EVENTS, cuts=st.lists(st.integers(0, 12), max_size=3))
def test_a_fold_is_the_sum_of_the_folds_of_its_parts(drawn: list[dict[str, Any]], cuts: list[int]) -> None:
    events = logged(drawn)
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    sums: dict[Any, list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for start, end in pairwise(edges):
        for key, row in held(fold_log(events[start:end], closed_in_may))[0].items():
            sums[key] = [a + b for a, b in zip(sums[key], row[:-1], strict=True)]
    whole = held(fold_log(events, closed_in_may))[0]
    assert sums == {key: row[:-1] for key, row in whole.items()}
