"""A market of subscribers for audit's tests: two months in which everything happens that can happen to a plan."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.audit.replay import AuditReport
from services.billing.questions import Bills
from services.quota.schemas import Sweep
from shared.clock import SHANGHAI
from shared.eventstore.log import LoggedEvent
from tests.unit.audit_scene import Scene
from tests.unit.audit_world import CATALOGUE, EAST, JULY, JUNE, LONG_AGO, Market

FEN = 2_500_000  # millipoints


def _plan(plan: str, **terms: Any) -> dict[str, Any]:
    usual = {"name": plan.capitalize(), "kind": "monthly", "fee_fen": 3000, "allowance": 30_000_000}
    return {"operator": EAST, "plan": plan, **usual, **terms}


def _as_you_go(plan: str, **terms: Any) -> dict[str, Any]:
    return _plan(plan, kind="payg", fee_fen=0, allowance=0, overage="payg", **terms)


PLANS = [
    _plan("small"),
    _plan("large", fee_fen=6100, allowance=61_000_001, discount_percent=20),
    _plan("yearly", cycle="anniversary"),
    _plan(
        "rolling",
        rollover="limited",
        rollover_max=5_000_000,
        overage="payg",
        points_per_yuan=200_000,
        scope={"models": ["alpha"]},
    ),
    _plan(
        "welcome",
        phases=[
            {"months": 1, "name": "first month", "fee_fen": 1, "allowance": 10_000_000},
            {"months": 2, "fee_fen": 1500, "allowance": 20_000_000},
        ],
    ),
    _plan("taste", kind="trial", fee_fen=0, allowance=1_000_000, trial_days=10),
    _plan(
        "home",
        kind="bundle",
        fee_fen=1000,
        bundle={"product": "Broadband", "bundle_price_fen": 10_000, "token_share_percent": 10},
    ),
    _as_you_go("capped", cap_fen=700),
    _as_you_go("committed", commitment_fen=900, usage_discount_percent=15),
    _as_you_go("leaving", commitment_fen=500),
]


class Subscribers(Market):
    """The words of people who take plans and use points."""

    def at(self, text: str) -> None:
        """`06-15` or `06-15 10:30`, Shanghai's clock; what services do by themselves is done before and then."""
        self.work()
        self.clock.now = datetime.fromisoformat(f"2026-{text}").replace(tzinfo=SHANGHAI).astimezone(UTC)
        self.work()

    def follow(self) -> None:
        """Followers of what decides; audit follows when everything has happened."""
        for app in (self.quota, self.routing, self.billing):
            self._feed(self.catalog, app.follow_catalog)
        for app in (self.quota, self.billing):
            self._feed(self.quota.shards[0], app.follow_quota)

    def follow_all(self) -> None:
        """Audit as well, up to the heads, signed."""
        super().follow()

    def work(self) -> None:
        """Until nothing is left to be done."""
        for _ in range(50):
            self.follow()
            swept = self.quota.sweep(Sweep())
            self.follow()
            if not self.billing.renew(self.quota.execute).anything and not swept["expired_grants"]:
                return
        raise AssertionError("there is no end to the work")

    def ask(self, command: str, account: str, **fields: Any) -> dict[str, Any]:
        """A command to billing."""
        about = {"operator": EAST, "account": account, "request_id": self.request()}
        return self.billing.submit(command, about | fields)

    def take(self, plan: str, account: str, **fields: Any) -> str:
        name: str = self.ask("subscribe", account, plan=plan, request_id=f"{account}-{plan}", **fields)["subscription"]
        return name

    def use(self, fen: int, account: str) -> None:
        """Of alpha, so much at list price."""
        usage = {"input": fen * FEN // 1000}
        self.do("debit", (EAST, account), model="alpha", usage=usage, on_insufficient="overdraw")

    def number(self, account: str, period: str) -> str:
        """Of the account's bill that stands."""
        bills = self.billing.bills(Bills(period=period, account=account))["bills"]
        found: str = next(bill["number"] for bill in bills if bill["status"] != "void")
        return found

    def of_bill(self, command: str, number: str, **fields: Any) -> None:
        self.billing.submit(command, {"number": number, "request_id": self.request(), **fields})


def subscribed_months(folder: Path) -> Subscribers:
    """June and July, both billed. Accounts are named after what happens to them."""
    market = Subscribers(folder, 1)
    market.publish(
        LONG_AGO,
        **CATALOGUE
        | {
            "rate_cards": [{"operator": EAST, "model": model, "rates": {"input": 1000}} for model in ("alpha", "beta")],
            "plans": PLANS,
        },
    )
    market.follow()
    for account, plan in (
        *((name, "") for name in ("rolling", "welcome", "changing", "pausing", "trying", "bundled", "cancelling")),
        ("capped", "capped"),
        ("committed", "committed"),
        ("leaving", "leaving"),
        ("credited", ""),
        ("voided", ""),
    ):
        market.open(EAST, account, plan, 0)
    market.work()
    for plan, account in (("rolling", "rolling"), ("welcome", "welcome"), ("small", "changing"), ("taste", "trying")):
        market.take(plan, account)
    market.take("home", "bundled", starts_at="2026-06-09T16:00:00Z")
    market.ask("grant_credit", "credited", fen=600, reason="an outage")
    market.at("06-05 09:00")
    market.take("yearly", "pausing")
    market.take("small", "cancelling")
    market.do("grant", (EAST, "voided"), amount=1000, source="purchase", price_fen=1)
    for account in ("capped", "committed", "credited", "voided"):
        market.use(1000 if account == "capped" else 400, account)
    market.use(3, "rolling")
    market.at("06-20 12:00")
    market.use(5, "changing")
    market.do("close_account", (EAST, "leaving"))
    market.ask("pause_subscription", "pausing", subscription="pausing-yearly", at_once=True)
    market.ask("change_subscription", "changing", subscription="changing-small", plan="large", at_once=True)
    market.at("06-30 23:00")  # July's periods are worked out
    market.ask("end_subscription", "cancelling", subscription="cancelling-small")
    market.at("07-01 01:00")
    market.use(20, "rolling")
    market.at("07-02")
    market.close_period(JUNE)
    market.of_bill("void", market.number("voided", JUNE), reason="wrong")
    market.close_period(JUNE)
    market.of_bill("pay", market.number("voided", JUNE), fen=400)
    market.at("07-04 10:00")
    market.ask("resume_subscription", "pausing", subscription="pausing-yearly")
    for account in ("credited", "capped", "committed"):
        market.use(300, account)
    market.at("08-01 01:00")
    market.at("08-02")
    market.close_period(JULY)
    market.of_bill("void", market.number("voided", JULY), reason="wrong")
    market.close_period(JULY)
    market.follow_all()
    return market


def audit(scene: Scene, period: str = JULY) -> AuditReport:
    return scene.audit(period, wait_s=0, calls_wait_s=0)


def of_bills(report: AuditReport) -> set[tuple[str, str]]:
    """What was found in the area of bills, and of whom."""
    return {(d.what, d.account.partition("/")[2]) for d in report.differences if d.area == "bills"}


def period(scene: Scene, account: str, number: int = 1) -> LoggedEvent:
    return scene.first("billing", "PlanPeriodStarted", f'"subscription":"{account}-', f'"number":{number},')
