"""A whole market for audit's tests: the five applications on SQLite, their followers, and a client over them.

`InProcess` is a small client: it calls the applications directly. `Tampering` stands between it and the
auditor, and changes what is answered, as somebody who rules over a service's database could.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from services.audit.application import AuditApplication
from services.billing.application import BillingApplication
from services.billing.questions import Bills, Statements
from services.catalog.application import CatalogApplication
from services.quota.schemas import Balances, Sweep
from services.quota.shards import QuotaShards
from services.routing.application import RoutingApplication
from shared.clock import FrozenClock
from shared.config import Settings
from shared.contracts.schema import parse
from shared.errors import InsufficientQuota, MalformedCommand, TokengridError
from tests.unit.audit_catalogue import ALPHA, CATALOGUE, EAST, LONG_AGO, WEST

JUNE, JULY = "2026-06", "2026-07"
START = datetime(2026, 6, 1, 2, tzinfo=UTC)
PAGE = 1000


class InProcess:
    """Calls the applications as their services would."""

    def __init__(self, market: Market) -> None:
        self._market = market
        quota, billing, audit = market.quota, market.billing, market.audit
        self._methods: dict[tuple[str, str], Callable[..., Any]] = {
            ("quota", "balances"): lambda **query: quota.balances(parse(Balances, query)),
            ("billing", "bills"): lambda **query: billing.bills(parse(Bills, query)),
            ("billing", "statements"): lambda **query: billing.statements(parse(Statements, query)),
            ("audit", "seal"): lambda **command: audit.seal(command),
            ("audit", "inclusion"): lambda **query: audit.inclusion(query),
            ("audit", "consistency"): lambda **query: audit.consistency(query),
            ("audit", "checkpoint"): lambda **query: audit.checkpoint(query),
            ("audit", "multiproof"): lambda **query: audit.multiproof(query),
            ("audit", "tile"): lambda **query: audit.tile(query),
            ("audit", "status"): audit.status,
        }

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any:
        if method in ("head", "events", "stream"):
            shards = getattr(self._market, service).shards
            if kwargs.get("shard", 0) >= len(shards):
                raise MalformedCommand("There is no such shard.")
            log = shards[kwargs.get("shard", 0)].log
            if method == "head":
                return log.head()
            if method == "stream":
                page = log.stream(kwargs["stream"], kwargs["after"], kwargs["limit"])
                return {"events": [e._asdict() for e in page]}
            return {"head": log.head(), "events": [e._asdict() for e in log.read(kwargs["after"], kwargs["limit"])]}
        return json.loads(json.dumps(self._methods[service, method](**kwargs)))


class Tampering:
    """A client whose answers are changed: `change(answer)` for a method, `event` for one event of a log."""

    def __init__(self, client: InProcess) -> None:
        self._client = client
        self._changes: dict[tuple[str, str], list[Callable[[Any], Any]]] = {}

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any:
        answer = copy.deepcopy(self._client.call(service, method, **kwargs))
        for change in self._changes.get((service, method), ()):
            answer = change(answer)
        return answer

    def answer(self, service: str, method: str, change: Callable[[Any], Any]) -> None:
        self._changes.setdefault((service, method), []).append(change)

    def event(self, log: str, position: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the content of one event whenever it is read."""

        def of_page(answer: Any) -> Any:
            for e in answer["events"]:
                if e["position"] == position:
                    content = json.loads(e["state"])
                    change(content)
                    e["state"] = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
            return answer

        self.answer(log, "events", of_page)

    def shorten(self, log: str, head: int) -> None:
        """Cut the log's tail off."""
        self.answer(log, "head", lambda _: head)

        def of_page(answer: Any) -> Any:
            return {"head": head, "events": [e for e in answer["events"] if e["position"] <= head]}

        self.answer(log, "events", of_page)


class Market:
    """The five applications and the words to make something happen in them."""

    def __init__(self, folder: Path, seed: int, shards: int = 1, **chosen: Any) -> None:
        """`shards`: of quota. `chosen`: other settings."""
        self.settings = Settings(var=folder, quota_shards=shards, **chosen)
        self.clock = FrozenClock(START)
        self.random = random.Random(seed)
        self.catalog = CatalogApplication(self.settings, self.clock)
        self.quota = QuotaShards(self.settings, self.clock)
        self.routing = RoutingApplication(self.settings, self.clock)
        self.billing = BillingApplication(self.settings, self.clock)
        self.audit = AuditApplication(self.settings, self.clock)
        self.client = InProcess(self)
        self._requests = 0
        self.accounts: list[tuple[str, str]] = []

    def close(self) -> None:
        for app in (self.catalog, self.quota, self.routing, self.billing, self.audit):
            app.close()

    def heads(self) -> dict[str, list[int]]:
        """How long the logs are, except audit's own: an audit has heads signed."""
        logs = {log: getattr(self, log).shards for log in ("catalog", "quota", "routing", "billing")}
        return {log: [shard.log.head() for shard in shards] for log, shards in logs.items()}

    def follow(self) -> None:
        """Every follower up to the head."""
        for app in (self.quota, self.routing, self.billing):
            self._feed(self.catalog, app.follow_catalog)
        for number, shard in enumerate(self.quota.shards):
            self._feed(shard, partial(self.quota.follow_quota, shard=number))
            self._feed(shard, partial(self.billing.follow_quota, shard=number))
            self._feed(shard, partial(self.audit.follow, shard.log_name))
        for log in ("catalog", "routing", "billing"):
            self._feed(getattr(self, log), partial(self.audit.follow, log))
        self.audit.seal_grown()

    @staticmethod
    def _feed(upstream: Any, apply: Callable[[list[dict[str, Any]]], int]) -> None:
        position = apply([])
        while page := [e._asdict() for e in upstream.log.read(position, PAGE)]:
            position = apply(page)

    def publish(self, effective_from: str, **catalogue: Any) -> None:
        command = {"request_id": self.request(), "effective_from": effective_from, "catalogue": catalogue}
        self.catalog.publish(command)

    def request(self) -> str:
        self._requests += 1
        return f"r{self._requests}"

    def do(self, command: str, owner: tuple[str, str], **fields: Any) -> dict[str, Any]:
        """A command to quota."""
        fields = {"request_id": self.request()} | fields
        return self.quota.submit(command, {"operator": owner[0], "account": owner[1], **fields})

    def advance(self, **delta: float) -> None:
        self.clock.now += timedelta(**delta)

    # -- what happens in the market ------------------------------------------------------------------
    def open(self, operator: str, account: str, plan: str, credit_limit: int) -> None:
        owner = (operator, account)
        self.do("open_account", owner, plan=plan, credit_limit=credit_limit)
        self.accounts.append(owner)

    def usage(self) -> dict[str, int]:
        given = {"input": self.random.randrange(30_000), "output": self.random.randrange(3_000)}
        return given | ({"cached_input": self.random.randrange(5_000)} if self.random.random() < 0.5 else {})

    def call_model(self, owner: tuple[str, str], finish: bool = True) -> None:
        """One call: routed, held, used in one or several parts, reported."""
        model, call = self.random.choice(("alpha", "beta")), self.request()
        about = {"operator": owner[0], "call": call}
        routed = self.routing.submit("route", {**about, "account": owner[1], "model": model, "tokens": 50_000})
        where = {"deployment": routed["deployment"], "serving_operator": routed["serving_operator"]}
        parts = [self.usage() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        try:
            held = self.do("reserve", owner, model=model, max_usage=parts[0], ttl_s=600, call=call, accept_partial=True)
        except InsufficientQuota:
            return
        if not finish:
            return
        hold = held["request_id"]
        if self.random.random() < 0.1:
            self.advance(seconds=700)
            self.follow()
            self.quota.sweep(parse(Sweep, {}))
        elif self.random.random() < 0.2:
            self.attempt("extend", owner, reservation=hold, amount=1_000_000)
        if self.random.random() < 0.1:
            self.do("release", owner, reservation=hold)
            self.routing.submit("report", {**about, "deployment": where["deployment"], "outcome": "cancelled"})
            return
        total: dict[str, int] = {}
        for n, part in enumerate(parts, start=1):
            self.do("settle", owner, reservation=hold, usage=part, final=n == len(parts), **where)
            total = {name: total.get(name, 0) + part.get(name, 0) for name in total.keys() | part.keys()}
        report = {**about, "deployment": where["deployment"], "outcome": "ok", "usage": total}
        self.routing.submit("report", report)

    def attempt(self, command: str, owner: tuple[str, str], **fields: Any) -> dict[str, Any] | None:
        try:
            return self.do(command, owner, **fields)
        except TokengridError:
            return None

    def happen(self) -> None:
        """Something, to somebody."""
        owner = self.random.choice(self.accounts)
        what = self.random.random()
        self.advance(seconds=self.random.randrange(1, 1800))
        if what < 0.7:
            self.call_model(owner)
        elif what < 0.75:
            self.call_model(owner, finish=False)
        elif what < 0.85:
            debit = self.do(
                "debit", owner, model="alpha", usage=self.usage(), on_insufficient="overdraw",
                occurred_at=(self.clock.now - timedelta(hours=self.random.randrange(40))).isoformat(),
            )  # fmt: skip
            if debit["amount"] and self.random.random() < 0.7:
                self.attempt("reverse", owner, debit=debit["request_id"], amount=max(debit["amount"] // 3, 1))
                self.advance(days=2 if self.random.random() < 0.2 else 0)
                self.attempt("reverse", owner, debit=debit["request_id"])
        else:
            self.grant(owner)

    def grant(self, owner: tuple[str, str]) -> None:
        source = self.random.choice(("purchase", "plan", "trial", "bundle", "promotion", "adjustment"))
        plan = {("plan", EAST): "monthly", ("bundle", WEST): "family"}.get((source, owner[0]), "")
        days = self.random.choice((None, 1, 5, 40))
        granted = self.do(
            "grant", owner, amount=self.random.randrange(1, 90_000_000), source=source, plan=plan,
            plan_version=1 if plan else 0, price_fen=self.random.randrange(2000),
            expires_at=(self.clock.now + timedelta(days=days)).isoformat() if days else None,
            scope=self.random.choice(({}, {}, {"models": ["alpha"]}, {"families": ["b"]})),
            priority=self.random.choice((10, 50)),
        )  # fmt: skip
        if self.random.random() < 0.1:
            self.do("void_grant", owner, grant=granted["request_id"])

    def close_period(self, period: str) -> None:
        """Bills and statements of a period."""
        self.follow()
        cut_offs = [shard.log.head() for shard in self.quota.shards]
        for operator in (EAST, WEST):
            for shard, cut_off in enumerate(cut_offs):
                run = {"operator": operator, "period": period, "quota_shard": shard, "quota_position": cut_off}
                while self.billing.submit("issue_bills", run)["remaining"]:
                    pass
        while self.billing.submit("settle_period", {"period": period, "quota_positions": cut_offs})["remaining"]:
            pass
        self.follow()


def two_months(folder: Path, seed: int, events: int = 120, shards: int = 1, **chosen: Any) -> Market:
    """A market after June and July, both billed; what came late for June is on July's bills."""
    market = Market(folder, seed, shards, **chosen)
    market.publish(LONG_AGO, **CATALOGUE)
    market.follow()
    for n in range(4):
        market.open(EAST, f"e{n}", ("monthly", "payg", "", "payg")[n], (0, 40_000_000, 0, 10**9)[n])
        market.open(WEST, f"w{n}", ("family", "")[n % 2], 0)
        market.grant((EAST, f"e{n}"))
        market.grant((WEST, f"w{n}"))
    for _ in range(events // 2):
        market.happen()
    market.publish(
        (market.clock.now + timedelta(days=3)).isoformat(),
        rate_cards=[{**ALPHA, "rates": {"input": 1100, "output": 4100}}],
    )
    market.follow()
    market.clock.now = max(market.clock.now, datetime(2026, 7, 2, tzinfo=UTC))
    market.close_period(JUNE)
    owner = (EAST, "e3")
    for hours in (30, 50, 70):
        at = (datetime(2026, 7, 1, tzinfo=UTC) - timedelta(hours=hours)).isoformat()
        market.do("debit", owner, model="beta", usage=market.usage(), on_insufficient="overdraw", occurred_at=at)
    market.do("suspend", (WEST, "w3"))
    market.do("resume", (WEST, "w3"))
    for _ in range(events // 2):
        market.happen()
    market.clock.now = max(market.clock.now, datetime(2026, 8, 2, tzinfo=UTC))
    market.follow()
    market.quota.sweep(parse(Sweep, {}))
    market.do("close_account", (WEST, "w2"))
    market.close_period(JULY)
    bills = market.billing.bills(parse(Bills, {"period": JULY}))["bills"]
    due = next(bill for bill in bills if bill["total_fen"] > 1)
    market.billing.submit("pay", {"request_id": "p1", "number": due["number"], "fen": 1})
    market.billing.submit("credit", {"request_id": "c1", "number": due["number"], "fen": 1, "reason": "goodwill"})
    market.follow()
    return market
