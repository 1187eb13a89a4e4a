"""Catalog, quota and billing on SQLite, on one clock, for tests of subscriptions: billing asks the real quota."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.billing.application import BillingApplication
from services.billing.questions import SubscriptionsOf
from services.catalog.application import CatalogApplication
from services.quota.application import QuotaApplication
from services.quota.schemas import Balance, Sweep
from shared.clock import SHANGHAI, FrozenClock
from shared.config import Settings
from shared.contracts import subscriptions as s
from shared.contracts.base import Event

OPERATOR = "sh-telecom"
LONG_AGO = "2025-12-31T16:00:00Z"  # midnight in Shanghai
POINT = 1_000
PAGE = 1000


def shanghai(text: str) -> datetime:
    """`2026-06-15` or `2026-06-15 10:30`, Shanghai's clock."""
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)


def plan(name: str, **terms: Any) -> dict[str, Any]:
    """A plan of the operator, monthly for 30 yuan and 30,000 points unless told otherwise."""
    usual = {"name": name.capitalize(), "kind": "monthly", "fee_fen": 3000, "allowance": 30_000 * POINT}
    return {"operator": OPERATOR, "plan": name, **usual, **terms}


PLANS = (
    plan("small"),
    plan("large", fee_fen=6200, allowance=62_000 * POINT),
    plan("yearly", cycle="anniversary"),
    plan("rolling", rollover="limited", rollover_max=5_000 * POINT, priority=40),
    plan(
        "welcome",
        phases=[
            {"months": 1, "name": "first month", "fee_fen": 0, "allowance": 10_000 * POINT},
            {"months": 2, "fee_fen": 1500, "allowance": 20_000 * POINT},
        ],
    ),
    plan("reduced", discount_percent=20),
    plan("taste", kind="trial", fee_fen=0, allowance=1_000 * POINT, trial_days=10),
    plan(
        "home",
        kind="bundle",
        fee_fen=1000,
        bundle={"product": "Broadband", "bundle_price_fen": 10_000, "token_share_percent": 10},
    ),
)
CATALOGUE: dict[str, Any] = {
    "regions": [{"region": "coast", "name": "Coast", "latency_ms": {"coast": 2}}],
    "operators": [{"operator": OPERATOR, "name": "Shanghai Telecom", "home_region": "coast"}],
    "models": [{"model": "kimi", "family": "k", "developer": "K"}],
    "rate_cards": [{"operator": OPERATOR, "model": "kimi", "rates": {"input": 1000, "output": 4000}}],
    "plans": PLANS,
}


class World:
    """The three applications and the words of somebody who subscribes."""

    def __init__(self, folder: Path, now: str = "2026-06-01", database: str = "", **settings: Any) -> None:
        self.settings = Settings(var=folder, backdate_max_s=400 * 86_400, **{"subscribe_ahead_s": 0} | settings)
        self.clock = FrozenClock(shanghai(now))
        self.catalog = CatalogApplication(self.settings, self.clock)
        self.quota = QuotaApplication(self.settings, self.clock)
        # A database of billing's own, where one is named; the others are on SQLite.
        self._of_billing = self.settings.model_copy(update={"database": database} if database else {})
        self.billing = BillingApplication(self._of_billing, self.clock)
        self._requests = 0
        self._fed: dict[Callable[[list[dict[str, Any]]], int], int] = {}
        self.publish(**CATALOGUE)

    def close(self) -> None:
        for app in (self.catalog, self.quota, self.billing):
            app.close()

    def restart(self) -> None:
        """Billing's process ends and another begins."""
        self.billing.close()
        self.billing = self.another()

    def another(self) -> BillingApplication:
        """A second process on billing's database."""
        return BillingApplication(self._of_billing, self.clock)

    def request(self) -> str:
        self._requests += 1
        return f"r{self._requests}"

    # -- time -------------------------------------------------------------------------------------
    def at(self, text: str) -> None:
        """Nothing happens until then."""
        self.clock.now = shanghai(text)

    def until(self, text: str, hours: int = 24) -> None:
        """Billing and quota do their work regularly until then."""
        while self.clock.now < shanghai(text):
            self.clock.now = min(self.clock.now + timedelta(hours=hours), shanghai(text))
            self.work()

    # -- what the services do by themselves ----------------------------------------------------------
    def follow(self) -> None:
        for app in (self.quota, self.billing):
            self._feed(self.catalog, app.follow_catalog)
            self._feed(self.quota, app.follow_quota)

    def _feed(self, upstream: Any, apply: Callable[[list[dict[str, Any]]], int]) -> None:
        head = upstream.log.head()
        if self._fed.get(apply) == head:  # to ask how far it has come costs more than a quiet day
            return
        self._fed[apply] = head
        position = apply([])
        while page := [e._asdict() for e in upstream.log.read(position, PAGE)]:
            position = apply(page)

    def work(self) -> None:
        """Until nothing is left to be done."""
        for _ in range(50):
            self.follow()
            swept = self.quota.sweep(Sweep())
            self.follow()
            done = self.billing.renew(self.quota.execute)
            self.follow()
            if not done.anything and not swept["expired_grants"]:
                return
        raise AssertionError("there is no end to the work")

    # -- what people do ------------------------------------------------------------------------------
    def publish(self, effective_from: str = LONG_AGO, **catalogue: Any) -> None:
        command = {"request_id": self.request(), "effective_from": effective_from, "catalogue": catalogue}
        self.catalog.publish(command)
        self.follow()

    def open(self, account: str = "a", **fields: Any) -> None:
        self.of_quota("open_account", account, **fields)
        self.follow()

    def of_quota(self, command: str, account: str = "a", **fields: Any) -> dict[str, Any]:
        fields = {"operator": OPERATOR, "account": account, "request_id": self.request()} | fields
        return self.quota.submit(command, fields)

    def use(self, points: int, account: str = "a") -> None:
        """Whole points, of kimi's input."""
        self.of_quota("debit", account, model="kimi", usage={"input": points}, on_insufficient="overdraw")

    def ask(self, command: str, account: str = "a", **fields: Any) -> dict[str, Any]:
        """A command to billing, and what follows from it."""
        fields = {"operator": OPERATOR, "account": account, "request_id": self.request()} | fields
        answer = self.billing.submit(command, fields)
        self.work()
        return answer

    def take(self, plan: str, account: str = "a", **fields: Any) -> str:
        name: str = self.ask("subscribe", account, plan=plan, **fields)["subscription"]
        return name

    # -- what came of it -----------------------------------------------------------------------------
    def balance(self, account: str = "a") -> dict[str, Any]:
        return self.quota.balance(Balance(operator=OPERATOR, account=account))

    def available(self, account: str = "a") -> int:
        """Whole points."""
        available: int = self.balance(account)["available"]
        return available // POINT

    def grants(self, account: str = "a") -> list[str]:
        """By name, what was granted, in points."""
        return [f"{g['grant']} {g['granted'] // POINT}" for g in self.balance(account)["grants"]]

    def status(self, account: str = "a") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.billing.subscriptions(SubscriptionsOf(operator=OPERATOR, account=account))[
            "subscriptions"
        ]
        return found

    def events(self, kind: type[Event] | None = None) -> list[Any]:
        """Billing's, of one kind."""
        return [e.event for e in self.billing.log.read(0, 100_000) if kind is None or isinstance(e.event, kind)]

    def periods(self) -> list[str]:
        """Each period that took place: days in Shanghai, price, and points without their fractions."""
        gone = {(e.subscription, e.number) for e in self.events(s.PlanPeriodCancelled)}
        return [
            f"{e.plan} {e.starts_at.astimezone(SHANGHAI):%m-%d}..{e.ends_at.astimezone(SHANGHAI):%m-%d} "
            f"{e.price_fen} fen {e.allowance // POINT} points"
            for e in self.events(s.PlanPeriodStarted)
            if (e.subscription, e.number) not in gone
        ]


def opened(folder: Path, **chosen: Any) -> Iterator[World]:
    """For a fixture: the world with its account, closed when the test has ended. `chosen`: settings."""
    made = World(folder, **chosen)
    made.open()
    yield made
    made.close()
