"""Two replicas on PostgreSQL close a month at the same time, make bills void and grant credits: each account once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from services.billing.application import BillingApplication
from services.billing.questions import Bills, ChargeFile
from shared.contracts.base import Usage
from tests.local_billing import LocalBilling
from tests.threads import at_once
from tests.unit.billing_world import JULY, JUNE, QuotaLog, billing, follow, issue, issued, july, june, set_clock
from tokengrid import closing
from tokengrid.screen import Screen

pytestmark = pytest.mark.servers

FEN = 2_500_000
OPERATORS = ("cm-gd", "sh-telecom")
ACCOUNTS = 60  # of each


@pytest.fixture
def replicas(tmp_path: Path, postgres_database: str) -> Iterator[list[BillingApplication]]:
    made = [billing(tmp_path, july(1, 2), postgres_database) for _ in range(2)]
    yield made
    for app in made:
        app.close()


def close(app: BillingApplication, head: int) -> closing.Closed:
    client: Any = LocalBilling(app, [head])
    return closing.close_month(client, JUNE, Screen(Console(quiet=True), quiet=True))


def test_two_closes_at_once_leave_no_gap_and_bill_nobody_twice(
    replicas: list[BillingApplication], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "BILLS_PAGE", 7)
    rng, quota = Random(seed), QuotaLog()
    for operator in OPERATORS:
        for n in range(ACCOUNTS):
            quota.open(operator=operator, account=f"{n:03d}")
            serving = rng.choice(OPERATORS)
            quota.debit(
                june(3), Usage(input=2_500), overdrawn=FEN, operator=operator, account=f"{n:03d}", serving=serving
            )
    quota.open(july(1, 1), account="of-july")
    follow(replicas[0], quota)
    for app in replicas:
        app.submit("grant_credit", _credit("007", fen=3, request_id="same"))
    # One of them takes its cut-off later: what it finds then is the other's, or its own.
    at_once([lambda app=app, n=n: close(app, quota.head - n) for n, app in enumerate(replicas)])
    bills = issued(replicas[0].log)
    assert len({(bill.operator, bill.account) for bill in bills}) == len(bills) == len(OPERATORS) * ACCOUNTS
    for operator in OPERATORS:
        numbers = [bill.number for bill in bills if bill.operator == operator]
        assert numbers == [f"{operator}-{JUNE}-{n:06d}" for n in range(1, ACCOUNTS + 1)]
    assert [bill.total_fen for bill in bills if bill.account == "007"] == [1, 0]
    closed = close(replicas[1], quota.head)
    assert [(o["bills"], o["shards"][0]["remaining"]) for o in closed.operators] == [(ACCOUNTS, 0)] * 2
    assert closed.statements == 0


def test_bills_become_void_and_are_made_anew_by_whichever_replica(replicas: list[BillingApplication]) -> None:
    one, other = replicas
    quota = QuotaLog()
    for name in "abc":
        quota.open(account=name)
        quota.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account=name)
    follow(one, quota)
    issue(one, quota)
    one.submit("grant_credit", _credit("b", fen=130, request_id="c"))
    first, second, _ = (row["number"] for row in one.bills(Bills())["bills"])
    at_once([lambda: _void(one, first), lambda: _void(other, second)])
    at_once([lambda app=app: issue(app, quota, limit=1) for app in replicas])
    assert issue(other, quota)["issued"] == 0
    stand = [row for row in other.bills(Bills())["bills"] if row["status"] != "void"]
    assert [(row["account"], row["number"][-1], row["total_fen"]) for row in stand] == [
        ("c", "3", 100), ("a", "4", 100), ("b", "5", 0),
    ]  # fmt: skip
    sent = one.charge_file(ChargeFile(operator="sh-telecom", period=JUNE, after=f"sh-telecom-{JUNE}-000003"))
    assert (sent["count"], sent["voids"], sent["sum_fen"], sent["voids_sum_fen"]) == (2, 2, 100, 200)
    for app in replicas:
        set_clock(app, july(1, 3).replace(month=8))
    quota.debit(july(3), Usage(input=250_000), overdrawn=100 * FEN, account="b")
    follow(other, quota)
    issue(other, quota, JULY)
    (of_b,) = (bill for bill in issued(one.log) if (bill.account, bill.period) == ("b", JULY))
    assert [(line.kind, line.fen) for line in of_b.lines] == [("usage", 100), ("credit", -30)]


def _credit(account: str, **fields: Any) -> dict[str, Any]:
    return {"operator": "sh-telecom", "account": account, "reason": "slow", **fields}


def _void(app: BillingApplication, number: str) -> None:
    app.submit("void", {"request_id": "v", "number": number, "reason": ""})
