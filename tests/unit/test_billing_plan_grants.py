"""What billing keeps of accounts and plan grants besides money: whose they are, their names, how they ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.metering import microseconds
from tests.unit.billing_world import QuotaLog, billing, follow, june

ENDING = ("grant", "kind", "position", "at_us", "amount")


def rows(folder: Path, quota: QuotaLog, table: sa.Table, columns: tuple[str, ...], page: int) -> list[tuple[Any, ...]]:
    """These columns of a table in the order of its key, once `quota` was followed in pages of `page` events."""
    app = billing(folder)
    follow(app, quota, page=page)
    with app.engine.connect() as connection:
        asked = sa.select(*(table.c[name] for name in columns)).order_by(*table.primary_key)
        found = [tuple(row) for row in connection.execute(asked)]
    app.close()
    return found


@pytest.mark.parametrize("page", [1, 100], ids=["by-single-events", "at-once"])
def test_an_account_has_its_subscriber_and_is_open_until_it_is_closed(tmp_path: Path, page: int) -> None:
    quota = QuotaLog()
    quota.open(subscriber="13800000001")
    quota.open(account="a2")
    quota.close(june(9))
    columns = ("account", "subscriber", "closed")
    assert rows(tmp_path, quota, t.accounts, columns, page) == [("a1", "13800000001", 3), ("a2", "", 0)]


def test_a_grant_is_called_as_its_request_was(tmp_path: Path) -> None:
    quota = QuotaLog()
    quota.open()
    quota.grant("plan", 1000, name="plan/sub-1/2026-06")
    quota.grant("purchase", 1000, name="order-7")
    assert rows(tmp_path, quota, t.grants, ("name",), 100) == [("plan/sub-1/2026-06",), ("order-7",)]


@pytest.mark.parametrize("page", [1, 100], ids=["by-single-events", "at-once"])
def test_how_the_grants_of_subscriptions_ended_is_kept_with_what_was_left(tmp_path: Path, page: int) -> None:
    quota = QuotaLog()
    quota.open()
    for name in ("plan/sub-1/2026-05", "plan/sub-1/2026-06"):
        quota.grant("plan", 1000, name=name)
    quota.expire("plan/sub-1/2026-05", 250, june(2))
    quota.void("plan/sub-1/2026-06", 0, june(3))
    assert rows(tmp_path, quota, t.endings, ENDING, page) == [
        ("plan/sub-1/2026-05", "expired", 4, microseconds(june(2)), 250),
        ("plan/sub-1/2026-06", "voided", 5, microseconds(june(3)), 0),
    ]


def test_how_any_other_grant_ended_is_not(tmp_path: Path) -> None:
    quota = QuotaLog()
    quota.open()
    for name in ("order-7", "plan", "my-plan/1"):
        quota.grant("plan", 1000, name=name)
        quota.void(name, 10, june(2))
        quota.expire(name, 10, june(3))
    assert rows(tmp_path, quota, t.endings, ENDING, 100) == []
