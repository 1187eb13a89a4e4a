"""Closing a month through the services: to the same bills, in one go, in pieces, or after a failure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from services.billing.application import BillingApplication
from services.billing.questions import Bills, CloseStatus
from shared.contracts.base import Usage
from shared.errors import PeriodOpen, TokengridError, Unavailable, UnknownOperator
from shared.sharding import shard_of
from tests.local_billing import LocalBilling
from tests.unit.billing_world import JUNE, QuotaLog, accounts, billing, follow, issued, july, june, set_clock
from tokengrid import cli, closing, following
from tokengrid.commands import bill_close
from tokengrid.screen import Screen

FEN = 2_500_000


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "BILLS_PAGE", 2)
    monkeypatch.setattr(closing, "PAUSE_S", 0.0)


@pytest.fixture
def quota() -> QuotaLog:
    """Five accounts at two operators, which serve each other's calls."""
    made = accounts(QuotaLog(), "a", "b", "c")
    for name in "xy":
        made.open(operator="cm-gd", account=name)
    made.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account="a", serving="cm-gd")
    made.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, operator="cm-gd", account="x", serving="sh-telecom")
    return made


def world(folder: Path, quota: QuotaLog) -> LocalBilling:
    app = billing(folder)
    follow(app, quota)
    return LocalBilling(app, [quota.head])


def close(billing_: LocalBilling, operators: Sequence[str] = (), **how: Any) -> closing.Closed:
    return closing.close_month(billing_, JUNE, Screen(Console(file=io.StringIO()), quiet=True), operators, **how)  # type: ignore[arg-type]


def hashes(app: BillingApplication) -> list[tuple[str, str]]:
    rows = app.bills(Bills())["bills"]
    return [(row["number"], row["sha256"]) for row in rows]


def dying(client: LocalBilling, call: int, stored: bool) -> LocalBilling:
    """The same, but the process is killed in that call: before or after billing did what it was asked."""
    real, made = client.call, []

    def call_or_die(service: str, method: str, **fields: Any) -> Any:
        if method in ("issue_bills", "settle_period"):
            made.append(method)
            if len(made) == call and not stored:
                raise Killed
        answer = real(service, method, **fields)
        if len(made) == call:
            raise Killed
        return answer

    client.call = call_or_die  # type: ignore[method-assign]
    return client


def test_every_account_has_its_bill_and_every_pair_its_statement(tmp_path: Path, quota: QuotaLog) -> None:
    client = world(tmp_path, quota)
    closed = close(client)
    assert [(o["operator"], o["bills"], o["total_fen"]) for o in closed.operators] == [
        ("cm-gd", 2, 100),
        ("sh-telecom", 3, 100),
    ]
    assert (closed.statements, closed.cut_offs, closed.refusals) == (2, [quota.head], {})


@pytest.mark.parametrize("stored", [False, True], ids=["before it was stored", "after"])
@pytest.mark.parametrize("call", range(1, 5))
def test_killed_at_any_call_and_run_again_it_comes_to_the_same_bills(
    tmp_path: Path, quota: QuotaLog, call: int, stored: bool
) -> None:
    whole = world(tmp_path / "whole", quota)
    close(whole)
    client = world(tmp_path / "killed", quota)
    with pytest.raises(Killed):
        close(dying(client, call, stored))
    # Meanwhile the log has grown, and billing has followed.
    if issued(client.app.log):
        quota.debit(june(29), Usage(input=250_000), overdrawn=100 * FEN, account="c", recorded=july(1, 1))
        follow(client.app, quota)
    close(LocalBilling(client.app, [quota.head]))
    assert hashes(client.app) == hashes(whole.app)
    status = [app.close_status(CloseStatus(period=JUNE)) for app in (client.app, whole.app)]
    assert status[0]["statement_cut_offs"] == status[1]["statement_cut_offs"]
    assert status[0]["statements"] == 2


def test_with_new_cut_offs_who_became_known_since_is_billed_too(
    tmp_path: Path, quota: QuotaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world(tmp_path, quota)
    close(client)
    quota.open(june(30), account="late", recorded=july(1, 1))
    follow(client.app, quota)
    client.heads = [quota.head]
    closed = close(client)
    assert [o["shards"][0]["late"] for o in closed.operators] == [0, 1]
    assert len(hashes(client.app)) == 5
    monkeypatch.setattr(bill_close, "session", lambda *_: nullcontext(client))
    assert cli.run(["bill", "close", JUNE]) == 1  # an account has no bill
    closed = close(client, new_cut_offs=True)
    assert (len(hashes(client.app)), closed.cut_offs) == (6, [quota.head])
    assert cli.run(["bill", "close", JUNE]) == 0


def test_a_void_bill_is_made_anew_with_the_months_cut_off(tmp_path: Path, quota: QuotaLog) -> None:
    client = world(tmp_path, quota)
    close(client)
    client.app.submit("void", {"request_id": "v", "number": "sh-telecom-2026-06-000001", "reason": ""})
    quota.debit(june(29), Usage(input=250_000), overdrawn=100 * FEN, account="a", recorded=july(1, 1))
    follow(client.app, quota)
    client.heads = [quota.head]
    (operator,) = close(client, ["sh-telecom"]).operators
    assert (operator["bills"], operator["void"], operator["total_fen"]) == (3, 1, 100)


def test_of_one_operator_only(tmp_path: Path, quota: QuotaLog) -> None:
    client = world(tmp_path, quota)
    closed = close(client, ["cm-gd", "cm-gd"], settle=False)
    assert {bill.operator for bill in issued(client.app.log)} == {"cm-gd"}
    assert ([o["operator"] for o in closed.operators], closed.statements) == (["cm-gd"], 0)
    with pytest.raises(UnknownOperator):
        close(client, ["cm-gq"])


def test_what_is_refused_to_one_operator_does_not_keep_the_others_waiting(tmp_path: Path, quota: QuotaLog) -> None:
    client = world(tmp_path, quota)
    too_much = 6 * 10**15  # twice that in one bill is more than a bill can say
    for _ in range(2):
        quota.grant("purchase", 1, account="y", operator="cm-gd", price_fen=too_much)
    follow(client.app, quota)
    client.heads = [quota.head]
    closed = close(client)
    ((part, refusal),) = closed.refusals.items()
    assert (part.operator, refusal.code) == ("cm-gd", "LimitExceeded")
    assert [(o["operator"], o["bills"]) for o in closed.operators] == [("cm-gd", 0), ("sh-telecom", 3)]


def test_while_the_month_runs_it_is_refused(tmp_path: Path, quota: QuotaLog) -> None:
    client = world(tmp_path, quota)
    set_clock(client.app, june(30, 23, 59))
    with pytest.raises(PeriodOpen):
        close(client)


def test_each_shards_cut_off_is_on_record_before_the_many_bills_are_issued(tmp_path: Path) -> None:
    app = billing(tmp_path, quota_shards=2)
    logs = [QuotaLog(), QuotaLog()]
    for name in "abcdefgh":
        logs[shard_of("sh-telecom", name, 2)].open(account=name)
    for shard, log in enumerate(logs):
        app.follow_quota(log.page(), shard)
    cut_offs = [log.head for log in logs]
    with pytest.raises(Killed):
        close(dying(LocalBilling(app, cut_offs), 3, False))
    for shard, log in enumerate(logs):
        log.open(july(2), account=f"of-july-{shard}")
        app.follow_quota(log.page(), shard)
    closed = close(LocalBilling(app, [log.head for log in logs]))
    assert closed.cut_offs == cut_offs
    assert sorted(bill.account for bill in issued(app.log)) == list("abcdefgh")
    assert {(bill.quota_log, bill.quota_position) for bill in issued(app.log)} == {
        ("quota-0", cut_offs[0]),
        ("quota-1", cut_offs[1]),
    }


def test_a_close_that_does_not_move_ends(tmp_path: Path, quota: QuotaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world(tmp_path, quota)
    monkeypatch.setattr(client.app, "submit", lambda *a: {"issued": 0, "remaining": 3})
    with pytest.raises(TokengridError, match="leaves 3"):
        close(client)


def test_it_waits_for_billing_and_says_how_far_it_is(
    tmp_path: Path, quota: QuotaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world(tmp_path, quota)
    monkeypatch.setattr(following, "FOLLOW_WAIT_S", 0.02)
    client.heads = [quota.head + 3]
    with pytest.raises(Unavailable, match=f"{quota.head} of {quota.head + 3}"):
        close(client)
    assert issued(client.app.log) == []


def test_whom_billing_comes_to_know_only_while_it_is_waited_for_is_billed_too(tmp_path: Path, quota: QuotaLog) -> None:
    client = LocalBilling(billing(tmp_path), [quota.head])
    real = client.call

    def call_and_follow(service: str, method: str, **fields: Any) -> Any:
        if (service, method) == ("billing", "status"):
            follow(client.app, quota)
        return real(service, method, **fields)

    client.call = call_and_follow  # type: ignore[method-assign]
    closed = close(client)
    assert [(o["operator"], o["bills"]) for o in closed.operators] == [("cm-gd", 2), ("sh-telecom", 3)]
