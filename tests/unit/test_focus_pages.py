"""`billing.focus`: the rows of a period, page by page, each bill and credit note once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.focus.check import check_focus
from services.billing.questions import BillOf, Focus
from shared.contracts import catalog as c
from shared.contracts.base import Usage
from tests.unit.billing_world import JULY, JUNE, QuotaLog, billing, catalogue, follow, issue, june
from tests.unit.focus_bills import read, summed

FEN = 2_500_000
EAST, WEST = "east", "west"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> BillingApplication:
    """Of each of two operators the bills of two accounts, 100 fen each; and a credit note on east's second."""
    made, quota = billing(tmp_path_factory.mktemp("billing")), QuotaLog()
    for operator in (EAST, WEST):
        for account in ("a", "b"):
            quota.open(operator=operator, account=account)
            quota.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, operator=operator, account=account)
    follow(made, quota, catalogue(c.Operator(operator=EAST, name="East Telecom", home_region="r")))
    for operator in (EAST, WEST):
        issue(made, quota, operator=operator)
    made.submit("credit", {"request_id": "c", "number": f"{EAST}-2026-06-000002", "fen": 30, "reason": "slow"})
    return made


def pages(app: BillingApplication, limit: int, **fields: Any) -> list[dict[str, Any]]:
    found = [app.focus(Focus(limit=limit, **fields))]
    while found[-1]["more"]:
        found.append(app.focus(Focus(limit=limit, after=found[-1]["last"], **fields)))
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("period", [JUNE, JULY])
def test_pages_of_any_size_have_the_same_rows(app: BillingApplication, period: str, limit: int) -> None:
    (whole,) = pages(app, 100, period=period)
    rows = [row for page in pages(app, limit, period=period) for row in read(page["csv"])]
    assert rows == read(whole["csv"])
    assert len(rows) == whole["count"] == (4 if period == JUNE else 1)


def test_what_is_billed_in_a_period_is_its_bills(app: BillingApplication) -> None:
    (whole,) = pages(app, 100, period=JUNE)
    rows = read(whole["csv"])
    assert check_focus(whole["csv"]) == []
    for number in {row["InvoiceId"] for row in rows}:
        total = app.bill(BillOf(number=number))["bill"]["total_fen"]
        assert summed([row for row in rows if row["InvoiceId"] == number], "BilledCost") == total == 100


def test_a_credit_note_is_of_the_period_it_was_issued_in(app: BillingApplication) -> None:
    (page,) = pages(app, 100, period=JULY)
    (row,) = read(page["csv"])
    assert (row["InvoiceId"], row["BilledCost"], row["ChargeClass"]) == ("east-2026-06-C000001", "-0.30", "Correction")
    assert (row["BillingAccountId"], row["ProviderName"]) == ("east/b", "East Telecom")
    assert check_focus(page["csv"]) == []


def test_of_one_operator(app: BillingApplication) -> None:
    (east,), (west,) = pages(app, 100, period=JUNE, operator=EAST), pages(app, 100, period=JUNE, operator=WEST)
    assert {row["ProviderName"] for row in read(east["csv"])} == {"East Telecom"}
    assert {row["ProviderName"] for row in read(west["csv"])} == {WEST}
    assert pages(app, 100, period=JULY, operator=WEST)[0]["count"] == 0


def test_a_period_without_bills_is_a_header(app: BillingApplication) -> None:
    (page,) = pages(app, 100, period="2020-01")
    assert (page["count"], len(page["csv"].splitlines()), page["last"]) == (0, 1, "east-2026-06-C000001")


def test_a_void_bill_has_no_rows_and_the_one_in_its_place_has(tmp_path: Path) -> None:
    made, quota = billing(tmp_path), QuotaLog()
    quota.open(operator=EAST)
    quota.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, operator=EAST)
    follow(made, quota, catalogue(c.Operator(operator=EAST, name=" ", home_region="r")))
    issue(made, quota, operator=EAST)
    made.submit("void", {"request_id": "v", "number": f"{EAST}-2026-06-000001", "reason": "wrong"})
    issue(made, quota, operator=EAST)
    (page,) = pages(made, 100, period=JUNE)
    assert [(row["InvoiceId"], row["BilledCost"]) for row in read(page["csv"])] == [("east-2026-06-000002", "1.00")]
    assert check_focus(page["csv"]) == []  # nor does an operator without a name lack one
