"""Issued bills are computed again from the logs, as of what each knew; what was altered is found and named; what was
deleted comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.application import BillingApplication
from services.billing.questions import BillOf, Bills, SubscriptionsOf, UsageOf
from services.billing.rebuild import Rebuilt, over_rpc, rebuild
from shared.contracts.base import Usage
from shared.contracts.billing import DryRun
from shared.contracts.catalog import Plan
from shared.eventstore.log import LoggedEvent
from tests.unit.billing_world import JULY, JUNE, QuotaLog, billing, catalogue, follow, issue, july, june, set_clock

FEN = 2_500_000
OPERATOR = "sh-telecom"
PRICE = Plan(operator=OPERATOR, plan="p", name="P", kind="payg", overage="payg", usage_discount_percent=10)


class Summer:
    """Two billed months of two accounts: late usage, a credit, a void bill and the one in its place."""

    def __init__(self, folder: Path) -> None:
        self.quota, self.catalog = QuotaLog(), catalogue(PRICE)
        self.app: BillingApplication = billing(folder)
        for account in "ab":
            self.quota.open(account=account, plan="p")
            self.use(account, june(3))
            self.quota.grant("purchase", 1000, june(4), account=account, price_fen=77)
        self.close(JUNE, july(1, 2))
        self.use("a", june(29), recorded=july(2))
        self.app.submit("void", {"number": f"{OPERATOR}-{JUNE}-000002", "request_id": "v", "reason": "wrong"})
        who = {"operator": OPERATOR, "account": "a", "request_id": "c"}
        self.app.submit("grant_credit", who | {"fen": 15, "reason": "goodwill"})
        self.use("b", july(5))
        self.close(JUNE, july(9))
        self.close(JULY, july(1, 2).replace(month=8))

    def use(self, account: str, at: Any, **more: Any) -> None:
        self.quota.debit(at, Usage(input=250_000), overdrawn=100 * FEN, account=account, **more)

    def close(self, period: str, now: Any) -> None:
        set_clock(self.app, now)
        follow(self.app, self.quota, self.catalog)
        while issue(self.app, self.quota, period, limit=1)["remaining"]:
            pass

    def again(
        self, change: Callable[[str, LoggedEvent], LoggedEvent] = lambda _log, event: event, **which: Any
    ) -> Rebuilt:
        logs: dict[str, Callable[[int, int], Sequence[LoggedEvent]]] = {
            "quota": lambda after, limit: self.quota.events[after : after + limit],
            "catalog": lambda after, limit: self.catalog.events[after : after + limit],
            "billing": self.app.log.read,
        }
        return rebuild(lambda log, after, limit: [change(log, e) for e in logs[log](after, limit)], **which)


@pytest.fixture(scope="module")
def summer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Summer]:
    made = Summer(tmp_path_factory.mktemp("summer"))
    yield made
    made.app.close()


def test_every_bill_is_the_same_the_void_one_too(summer: Summer) -> None:
    found = summer.again()
    assert (found.bills, found.equal, found.differences) == (5, 5, ())


@pytest.mark.parametrize(("which", "bills"), [({"period": JUNE}, 3), ({"period": JULY}, 2), ({"operator": "none"}, 0)])
def test_of_a_month_or_an_operator(summer: Summer, which: dict[str, str], bills: int) -> None:
    found = summer.again(**which)
    assert (found.bills, found.equal) == (bills, bills)


def test_nothing_is_written(summer: Summer) -> None:
    before = summer.app.log.head()
    summer.again()
    assert summer.app.log.head() == before


def altered(
    log: str, position: int, change: Callable[[dict[str, Any]], None]
) -> Callable[[str, LoggedEvent], LoggedEvent]:
    """The log as somebody would have it who rules over its database."""

    def alter(of: str, event: LoggedEvent) -> LoggedEvent:
        if (of, event.position) != (log, position):
            return event
        fields = json.loads(event.state)
        change(fields)
        return event._replace(state=json.dumps(fields))

    return alter


def test_usage_that_was_altered_shows_in_the_bills_that_had_it(summer: Summer) -> None:
    found = summer.again(altered("quota", 2, lambda debit: debit.update(overdrawn=200 * FEN)))
    assert {d.number for d in found.differences} == {f"{OPERATOR}-{JUNE}-000001"}
    assert {d.path: (d.stored, d.computed) for d in found.differences}["lines.1.fen"] == ("100", "200")


def test_what_no_bill_could_carry_is_a_difference_and_the_others_are_compared(summer: Summer) -> None:
    found = summer.again(altered("quota", 2, lambda debit: debit.update(amount=10**16, overdrawn=10**16)))
    assert (found.bills, found.equal) == (5, 4)
    (difference,) = found.differences
    assert (difference.number, difference.path) == (f"{OPERATOR}-{JUNE}-000001", "lines")


def test_a_late_debit_in_the_bill_that_carries_it(summer: Summer) -> None:
    late = next(e.position for e in summer.quota.events if e.event.recorded_at == july(2))
    found = summer.again(altered("quota", late, lambda debit: debit.update(overdrawn=0)))
    assert {d.number.rpartition("-")[2] for d in found.differences} == {"000004"}


def test_a_price_that_was_altered_shows_in_all(summer: Summer) -> None:
    found = summer.again(altered("catalog", 1, lambda event: event["item"].update(usage_discount_percent=11)))
    assert (found.bills, found.equal) == (5, 0)


def test_a_bill_that_was_altered_does_not_have_its_hash(summer: Summer) -> None:
    issued = next(e.position for e in summer.app.log.read(0, 10) if e.topic == "billing.BillIssued:1")
    found = summer.again(altered("billing", issued, lambda event: event["bill"].update(total_fen=1)))
    assert "bill_sha256" in {d.path for d in found.differences}
    assert found.bills - found.equal == 1


def test_a_log_that_was_cut_is_missed(summer: Summer) -> None:
    last = summer.quota.events.pop()
    try:
        assert not summer.again().ok
    finally:
        summer.quota.events.append(last)


def test_services_are_asked_for_no_more_events_at_once_than_they_give() -> None:
    quota = QuotaLog()
    opened = quota.open()
    log = [opened._replace(position=position)._asdict() for position in range(1, 2_501)]
    asked: list[Any] = []

    class Service:
        def call(self, service: str, method: str, /, **which: Any) -> Any:
            asked.append((service, method, which))
            return {"events": log[which["after"] : which["after"] + which["limit"]]}

    read = over_rpc(Service())
    assert [event.position for event in read("quota-1", 100, 20_000)] == list(range(101, 2_501))
    assert [which for _, _, which in asked] == [{"after": n, "limit": 1_000, "shard": 1} for n in (100, 1_100, 2_100)]
    assert len(read("quota", 0, 1_200)) == 1_200


def shown(app: BillingApplication) -> list[Any]:
    """Whatever billing answers about the summer."""
    rows = app.bills(Bills())["bills"]
    asked = [
        {"operator": OPERATOR, "account": account, "period": period} for account in "ab" for period in (JUNE, JULY)
    ]
    return [
        rows,
        [app.bill(BillOf(number=row["number"])) for row in rows],
        [app.usage(UsageOf(**about)) for about in asked],
        [app.dry_run(DryRun(**about)) for about in asked],
        [app.subscriptions(SubscriptionsOf(operator=OPERATOR, account=account)) for account in "ab"],
    ]


def test_every_read_model_comes_back_when_all_are_deleted(summer: Summer) -> None:
    app, before = summer.app, shown(summer.app)
    with app.engine.begin() as connection:
        for table in (*t.meta.sorted_tables, sa.table("catalogue_copy"), sa.table("followed")):
            connection.execute(sa.delete(table))
    app.close()
    summer.app = app = BillingApplication(app.settings, app.clock)
    assert app.bills(Bills())["bills"] == before[0]  # from its own log, at once
    follow(app, summer.quota, summer.catalog, page=3)
    assert shown(app) == before
