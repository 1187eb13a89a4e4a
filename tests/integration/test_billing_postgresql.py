"""Billing on PostgreSQL: the same bills as on SQLite, with two replicas on one database."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from services.billing import reading
from services.billing.application import BillingApplication
from services.billing.questions import Bills, Settlement, UsageOf
from shared.contracts.base import Usage
from shared.contracts.billing import BillIssued
from tests.unit.billing_world import (
    JULY,
    JUNE,
    QuotaLog,
    billing,
    catalogue,
    follow,
    issue,
    july,
    june,
    overtake,
    set_clock,
)

pytestmark = pytest.mark.servers


def summer(seed: int) -> tuple[QuotaLog, int]:
    """A June with some late July in it; the log, and its head at June's end. Names whose order depends on who sorts."""
    rng, quota = random.Random(seed), QuotaLog("sh")
    names = ["a", "B", "a-1", "a.1", "a_1", "Z9", "z", "9"]
    for name in names:
        quota.open(account=name)

    def call(at: Any, recorded: Any = None) -> None:
        unpaid = rng.randrange(1000)
        usage = Usage(input=rng.randrange(1, 9000), output=rng.randrange(99))
        where, trace = rng.choice(["", "sh", "gd"]), rng.choice([None, "00-" + "a" * 32 + "-" + "b" * 16 + "-01"])
        quota.debit(
            at, usage, overdrawn=unpaid, account=rng.choice(names), serving=where, recorded=recorded, trace=trace
        )

    for _ in range(300):
        call(june(rng.randrange(1, 31)))
    quota.grant("purchase", 1000, account="z", price_fen=5)
    cut_off = quota.head
    for _ in range(100):
        call(june(rng.randrange(1, 31)), july(1, 1))
    return quota, cut_off


def closed(apps: list[BillingApplication], quota: QuotaLog, cut_off: int) -> list[tuple[str, str, str]]:
    """Close June and July, the replicas taking turns; number, account and hash of every bill."""
    turn = 0
    for period, position, now in ((JUNE, cut_off, july(1, 2)), (JULY, quota.head, july(1, 2).replace(month=8))):
        left = 1
        while left:
            app, turn = apps[turn % len(apps)], turn + 1
            set_clock(app, now)
            follow(app, quota, page=97)
            left = issue(app, quota, period, operator="sh", quota_position=position, limit=3)["remaining"]
        apps[0].submit("settle_period", {"period": period, "quota_position": position})
    bills = [e.event for e in apps[0].log.read(0, 1000) if isinstance(e.event, BillIssued)]
    return [(e.bill.number, e.bill.account, e.bill_sha256) for e in bills]


def test_gives_the_same_bills_as_sqlite(
    tmp_path: Path, postgres_database: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.billing.usage.PARTED", 50)  # events: every page is taken in parts
    quota, cut_off = summer(seed)
    here = billing(tmp_path)
    there = [billing(tmp_path, database=postgres_database) for _ in range(2)]
    try:
        for app in (here, *there):
            app.follow_catalog(catalogue().page())
        assert closed(there, quota, cut_off) == closed([here], quota, cut_off)
        assert there[1].bills(Bills(period=JULY)) == here.bills(Bills(period=JULY))
        asked = UsageOf(operator="sh", account="z", period=JUNE)
        assert there[0].usage(asked) == here.usage(asked)
        assert there[0].settlement(Settlement(period=JUNE)) == here.settlement(Settlement(period=JUNE))
    finally:
        for app in (here, *there):
            app.close()


def test_the_slower_of_two_replicas_issues_what_is_left(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (billing(tmp_path, now, postgres_database) for now in (july(1, 2), july(1, 3)))
    quota = QuotaLog()
    for name in "abcdef":
        quota.open(account=name)
    follow(one, quota)
    overtake(monkeypatch, one, lambda: issue(other, quota, limit=3))
    issue(one, quota, limit=2)
    bills = [e.event.bill for e in one.log.read(0, 100) if isinstance(e.event, BillIssued)]
    assert [(bill.account, bill.number[-1]) for bill in bills] == list(zip("abcde", "12345", strict=True))
    one.close()
    other.close()


def test_a_page_in_parts_is_taken_whole_or_not_at_all(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.billing.usage.PARTED", 2)
    quota = QuotaLog("sh")
    for number in range(20):
        quota.open(account=f"a{number}")
        quota.debit(june(3), Usage(input=5), overdrawn=7, account=f"a{number}")
    page = quota.page()
    with closing(billing(tmp_path, database=postgres_database)) as app:
        for at in (1, len(page) // 2, len(page) - 1):
            for damaged in ({"state": "{"}, {"topic": "quota.TokensDebited:99"}, {"state": page[1]["state"] * 2}):
                with pytest.raises((KeyError, msgspec.DecodeError)):
                    app.follow_quota([*page[:at], page[at] | damaged, *page[at + 1 :]])
                assert app.follow_quota([]) == 0
        assert app.follow_quota(page) == quota.head
        days = [app.usage(UsageOf(operator="sh", account=f"a{n}", period=JUNE))["days"] for n in range(20)]
        assert [day["usage"]["input"] for (day,) in days] == [5] * 20


def test_what_some_bills_are_made_of_is_looked_up_before_there_are_statistics(
    tmp_path: Path, postgres_database: str
) -> None:
    quota, names = QuotaLog("sh"), [f"a{number:04d}" for number in range(1500)]
    for name in names:
        quota.open(account=name)
        quota.grant("purchase", 1000, account=name, price_fen=5)
        quota.debit(june(3), Usage(input=5), overdrawn=7, account=name)
    with closing(billing(tmp_path, database=postgres_database)) as app:
        follow(app, quota, page=quota.head)
        with reading.snapshot(app.engine) as connection:
            some = reading.accounts(connection, "sh", names[::10])
            assert len(reading.inputs(connection, "sh", JUNE, quota.head, some)) == len(some) == 150
            met = connection.execute(
                sa.text("SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables")
            )
            rows = {table: count for table, count in met if table in ("accounts", "usage", "grants")}
    assert rows == {"accounts": 150, "usage": 150, "grants": 150}, "rows that PostgreSQL looked at"
