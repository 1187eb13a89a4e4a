"""A year of a market, day by day, on one clock: what subscribers, desks, price makers and accidents do.

The services are the real ones on SQLite, without a broker; `work` is what their timers and followers do. It decides
nothing about what must be true: see `year_invariants`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.billing.questions import BillOf, Bills
from services.quota.schemas import Sweep
from shared.clock import SHANGHAI, period_of
from shared.errors import TokengridError
from tests.unit.audit_world import CATALOGUE, EAST, LONG_AGO, WEST, Market

FIRST_DAY = datetime(2028, 1, 1, tzinfo=SHANGHAI)  # a leap year
Owner = tuple[str, str]


def _plan(operator: str, plan: str, **terms: Any) -> dict[str, Any]:
    usual = {"name": plan.capitalize(), "kind": "monthly", "fee_fen": 2990, "allowance": 40_000_000}
    return {"operator": operator, "plan": plan, **usual, **terms}


def _payg(operator: str, plan: str, **terms: Any) -> dict[str, Any]:
    return _plan(operator, plan, kind="payg", fee_fen=0, allowance=0, overage="payg", **terms)


PLANS: list[dict[str, Any]] = [
    plan
    for operator in (EAST, WEST)
    for plan in (
        _plan(operator, "token"),
        _plan(operator, "big", fee_fen=4990, allowance=80_000_001, discount_percent=20),
        _plan(operator, "yearly", cycle="anniversary", fee_fen=1999),
        _plan(operator, "rolling", rollover="limited", rollover_max=9_999_999, overage="payg"),
        _plan(
            operator,
            "welcome",
            phases=[
                {"months": 1, "name": "first month", "fee_fen": 1, "allowance": 7_000_000},
                {"months": 2, "name": "half price", "fee_fen": 1495, "allowance": 40_000_000},
            ],
        ),
        _plan(operator, "coding", kind="coding", scope={"models": ["beta"]}, priority=40, fee_fen=3990),
        _plan(operator, "taste", kind="trial", fee_fen=0, allowance=30_000_000, trial_days=14, priority=10),
        _plan(
            operator,
            "home",
            kind="bundle",
            fee_fen=1290,
            bundle={"product": "Broadband", "bundle_price_fen": 12_900, "token_share_percent": 10},
        ),
        _payg(operator, "open"),
        _payg(operator, "capped", cap_fen=5000, points_per_yuan=230_000),
        _payg(operator, "committed", commitment_fen=300, usage_discount_percent=15, cap_fen=9000),
    )
]
TAKEN = ("token", "big", "yearly", "rolling", "welcome", "coding", "taste", "home", "capped", "committed")


class Year(Market):
    """`subscribers`: accounts at two operators, some of one and the same person."""

    def __init__(self, folder: Path, seed: int, subscribers: int) -> None:
        super().__init__(folder, seed)
        self.clock.now = FIRST_DAY.astimezone(UTC)
        self.down_until = self.clock.now  # of billing
        self._fed: dict[Callable[..., int], int] = {}
        self.publish(LONG_AGO, **CATALOGUE | {"plans": PLANS})
        self.follow()
        self._waiting: list[dict[str, Any]] = []  # commands to quota that go in one batch
        self._debits: list[tuple[Owner, str]] = []
        self._subscriptions: list[tuple[Owner, str]] = []
        self._bills: list[str] = []
        self.refused: dict[str, int] = {}
        self.done: dict[str, int] = {}
        for number in range(subscribers):
            self.open_account((EAST, WEST)[number % 2], f"{number:03d}")
        self.flush()
        self.work()

    # -- what services do by themselves ---------------------------------------------------------------
    @property
    def billing_is_up(self) -> bool:
        return self.clock.now >= self.down_until

    def follow(self) -> None:
        """Followers of what decides; audit follows when it is asked to."""
        for app in (self.quota, self.billing):
            self._feed_grown(self.catalog, app.follow_catalog)
        self._feed_grown(self.quota.shards[0], self.quota.follow_quota)
        if self.billing_is_up:
            self._feed_grown(self.quota.shards[0], self.billing.follow_quota)

    def _feed_grown(self, upstream: Any, apply: Callable[..., int]) -> None:
        """Only what has grown: to ask costs more than a quiet day."""
        head = upstream.log.head()
        if self._fed.get(apply) != head:
            self._feed(upstream, apply)
            self._fed[apply] = head

    def follow_all(self) -> None:
        """Audit as well, up to the heads, signed."""
        super().follow()

    def work(self) -> None:
        """Until nothing is left to be done now."""
        self.flush()
        for _ in range(100):
            self.follow()
            swept = self.quota.sweep(Sweep())
            anything = swept["expired_grants"] or swept["expired_reservations"]
            if self.billing_is_up:
                self.follow()
                anything = self.billing.renew(self.quota.execute).anything or anything
            if not anything:
                return
        raise AssertionError("there is no end to the work")

    def flush(self) -> None:
        """What was asked of quota, in one batch."""
        commands, self._waiting = self._waiting, []
        for command, outcome in zip(commands, self.quota.execute(commands) if commands else [], strict=True):
            self._count(command["command"], outcome.get("error", {}).get("code"))
            if command["command"] == "debit" and "ok" in outcome:
                self._debits.append(((command["operator"], command["account"]), command["request_id"]))

    def _count(self, what: str, refusal: str | None) -> None:
        counted = self.done if refusal is None else self.refused
        key = what if refusal is None else f"{what}: {refusal}"
        counted[key] = counted.get(key, 0) + 1

    # -- a day ----------------------------------------------------------------------------------------
    def day(self, actions: int) -> None:
        """From one midnight to the next; `actions` of somebody, at random times."""
        began = self.clock.now
        moments = sorted(self.random.randrange(86_400) for _ in range(actions))
        worked = 0
        for second in moments:
            self.clock.now = began + timedelta(seconds=second)
            if second - worked > 43_200:
                self.work()
                worked = second
            self.happen()
        self.clock.now = began + timedelta(days=1)
        self.work()
        local = self.clock.now.astimezone(SHANGHAI)
        if self.random.random() < 0.02 and local.day not in (1, 2):
            self.down_until = self.clock.now + timedelta(days=self.random.choice((1, 2, 6)))
        if self.random.random() < 0.03:
            self.prices_change()

    def happen(self) -> None:
        """One thing, to somebody."""
        what = self.random.choices(list(self._weights), list(self._weights.values()))[0]
        if self.billing_is_up or what in ("use", "use_late", "hold", "buy", "reverse"):
            getattr(self, f"_{what}")(self.random.choice(self.accounts))

    _weights: dict[str, int] = {  # noqa: RUF012 - never changed
        "use": 60,
        "use_late": 5,
        "hold": 4,
        "buy": 5,
        "reverse": 3,
        "take": 8,
        "change": 4,
        "pause": 2,
        "resume": 2,
        "end": 3,
        "pay": 8,
        "refund": 1,
        "credit_note": 1,
        "credit": 1,
        "void": 1,
        "come_and_go": 1,
    }

    # -- what subscribers do ------------------------------------------------------------------------
    def open_account(self, operator: str, account: str) -> None:
        owner = (operator, account)
        plan = self.random.choice(("", "open", "capped", "committed"))
        credit = self.random.choice((0, 0, 10**7, 10**9))
        person = f"person-{int(account[:3]) // 4}" if self.random.random() < 0.8 else ""
        self._ask_quota("open_account", owner, plan=plan, credit_limit=credit, subscriber=person)
        self.accounts.append(owner)

    def _ask_quota(self, command: str, owner: Owner, **fields: Any) -> None:
        about = {"command": command, "operator": owner[0], "account": owner[1], "request_id": self.request()}
        given = {name: value for name, value in fields.items() if value not in ("", None)}
        at = {} if "occurred_at" in given else {"occurred_at": self.clock.now.isoformat()}
        self._waiting.append(about | at | given)

    def _use(self, owner: Owner, at: datetime | None = None) -> None:
        serving = self.random.choice(("", "", EAST, WEST))
        self._ask_quota(
            "debit",
            owner,
            model=self.random.choice(("alpha", "beta")),
            usage=self.usage(),
            on_insufficient=self.random.choice(("refuse", "overdraw")),
            serving_operator=serving,
            occurred_at=at and at.isoformat(),
        )

    def _use_late(self, owner: Owner) -> None:
        """A mediation file that comes days or weeks after the calls."""
        ago = timedelta(hours=self.random.randrange(1, 34 * 24))
        self._use(owner, max(self.clock.now - ago, FIRST_DAY.astimezone(UTC)))

    def _hold(self, owner: Owner) -> None:
        self.flush()
        held = self.attempt("reserve", owner, model="alpha", amount=10**6, ttl_s=3000, accept_partial=True)
        if held is not None and self.random.random() < 0.7:
            self.attempt("settle", owner, reservation=held["request_id"], usage=self.usage())

    def _buy(self, owner: Owner) -> None:
        fen = self.random.choice((1000, 2000, 5000))
        self._ask_quota("grant", owner, amount=fen * 2_500_000, source="purchase", price_fen=fen)

    def _reverse(self, _owner: Owner) -> None:
        if self._debits:
            owner, debit = self.random.choice(self._debits[-500:])
            part = self.random.choice((None, None, self.random.randrange(1, 10**6)))
            self._ask_quota("reverse", owner, debit=debit, amount=part)

    def _come_and_go(self, owner: Owner) -> None:
        """Somebody leaves, somebody comes."""
        self.flush()
        if self.random.random() < 0.3 and self.attempt("close_account", owner) is not None:
            self.accounts.remove(owner)
            self.open_account(owner[0], f"{owner[1][:3]}-{self.request()}")

    def _ask(self, command: str, owner: Owner, **fields: Any) -> dict[str, Any] | None:
        """Of billing."""
        about = {"operator": owner[0], "account": owner[1], "request_id": self.request()}
        return self._submit(command, about | fields)

    def _submit(self, command: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = self.billing.submit(command, fields)
        except TokengridError as refusal:
            self._count(command, refusal.code)
            return None
        self._count(command, None)
        return answer

    def _take(self, owner: Owner) -> None:
        later = {}
        if self.random.random() < 0.1:
            later = {"starts_at": (self.clock.now + timedelta(days=self.random.randrange(40))).isoformat()}
        taken = self._ask("subscribe", owner, plan=self.random.choice(TAKEN), **later)
        if taken is not None:
            self._subscriptions.append((owner, taken["subscription"]))

    def _of_subscription(self, command: str, **fields: Any) -> None:
        if self._subscriptions:
            owner, name = self.random.choice(self._subscriptions[-300:])
            self._ask(f"{command}_subscription", owner, subscription=name, **fields)

    def _at_once(self) -> bool:
        return self.random.random() < 0.5

    def _change(self, _owner: Owner) -> None:
        self._of_subscription("change", plan=self.random.choice(TAKEN), at_once=self._at_once())

    def _pause(self, _owner: Owner) -> None:
        self._of_subscription("pause", at_once=self._at_once())

    def _resume(self, _owner: Owner) -> None:
        self._of_subscription("resume")

    def _end(self, _owner: Owner) -> None:
        self._of_subscription("end", at_once=self._at_once())

    # -- what the billing desk does -----------------------------------------------------------------
    def _of_bill(self, command: str, **fields: Any) -> None:
        if self._bills:
            number = self.random.choice(self._bills[-400:])
            self._submit(command, {"number": number, "request_id": self.request(), **fields})

    def _pay(self, _owner: Owner) -> None:
        if self._bills:
            number = self.random.choice(self._bills[-400:])
            due = self.billing.bill(BillOf(number=number))["due_fen"]
            if due:
                paid = due if self.random.random() < 0.8 else max(1, due // 3)
                self._submit("pay", {"number": number, "request_id": self.request(), "fen": paid})

    def _refund(self, _owner: Owner) -> None:
        self._of_bill("pay", fen=-self.random.randrange(1, 500))

    def _credit_note(self, _owner: Owner) -> None:
        self._of_bill("credit", fen=self.random.randrange(1, 900), reason="goodwill")

    def _void(self, _owner: Owner) -> None:
        self._of_bill("void", reason="wrong address")

    def _credit(self, owner: Owner) -> None:
        self._ask("grant_credit", owner, fen=self.random.randrange(1, 5000), reason="an outage")

    def close_month(self, period: str) -> None:
        """All bills of a month, in pieces, and the statements; void ones are made anew."""
        cut_off = self.quota.shards[0].log.head()
        for operator in (EAST, WEST):
            run = {"operator": operator, "period": period, "quota_position": cut_off}
            while self.billing.submit("issue_bills", run | {"limit": self.random.randrange(5, 60)})["remaining"]:
                pass
        while self.billing.submit("settle_period", {"period": period, "quota_positions": [cut_off]})["remaining"]:
            pass
        after = ""
        while page := self.billing.bills(Bills(period=period, after=after))["bills"]:
            self._bills += [bill["number"] for bill in page]
            after = page[-1]["number"]

    # -- what price makers do -------------------------------------------------------------------------
    def prices_change(self) -> None:
        """A rate card or a plan has other terms from some day to come on."""
        starts = self.clock.now + timedelta(days=self.random.randrange(1, 20))
        operator = self.random.choice((EAST, WEST))
        if self.random.random() < 0.5:
            rates = {"input": self.random.randrange(300, 1500), "output": self.random.randrange(1000, 6000)}
            item = {"operator": operator, "model": self.random.choice(("alpha", "beta")), "rates": rates}
            self.publish(starts.isoformat(), rate_cards=[item])
        else:
            plan = self.random.choice([p for p in PLANS if p["operator"] == operator and p["kind"] != "bundle"])
            fee = plan["fee_fen"] + self.random.randrange(100) if plan["fee_fen"] else 0
            self.publish(starts.isoformat(), plans=[plan | {"fee_fen": fee}])
        self._count("prices_change", None)


def month_before(at: datetime) -> str:
    """The month that has ended before an instant's month."""
    local = at.astimezone(SHANGHAI)
    return period_of(local.replace(day=1) - timedelta(days=1))
