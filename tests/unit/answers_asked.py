"""What each method of each service is asked, after two months of business and before anything has happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from shared.config import SERVICES
from shared.transparency.checkpoint import Opened, cosign, open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.refusal import Refusal, sign_refusal
from tests.unit.answers_world import AUGUST, OWNER, ROUTE, WITNESS, Fields, Services
from tests.unit.audit_world import ALPHA, EAST, JULY, LONG_AGO, WEST

AFTERWARDS = "2026-12-31T16:00:00Z"


def _new(services: Services) -> Fields:
    return {"request_id": services.market.request()}


def _replayed(make: Callable[[Services], Fields]) -> Callable[[Services], list[Fields]]:
    """Ask for it, and for the same again."""

    def twice(services: Services) -> list[Fields]:
        return [make(services)] * 2

    return twice


def _batch(*commands: Fields) -> list[Fields]:
    return [{"commands": [*commands, {"command": "nothing"}]}]


def _cosigned(services: Services) -> list[Fields]:
    opened = _checkpoint(services)
    return [{"log": "quota", "note": str(cosign(opened, WITNESS, 1))}] * 2


def _refused(services: Services) -> list[Fields]:
    found = _checkpoint(services).checkpoint
    forked = Refusal("fork", found, replace(found, root=bytes(32)))
    return [{"log": "quota", "note": str(sign_refusal(forked, WITNESS, 1))}]


def _checkpoint(services: Services) -> Opened:
    answer = services.ask("audit.checkpoint", log="quota")
    return open_checkpoint(answer["note"], VerifierKey.parse(answer["verifier_key"]))


def _proofs(services: Services) -> list[Fields]:
    return [{"log": "quota", "position": 1}, {"log": "billing", "position": 2, "size": 3}]


def _swept(services: Services) -> list[Fields]:
    services.held()
    services.market.advance(hours=1)
    services.market.follow()
    return [{}, {"limit": 1}]


def _known(services: Services) -> list[Fields]:
    """Deployments of which one answered in time, then failed until its circuit opened; the other serves on."""
    for n, call in enumerate([services.routed() for _ in range(20)]):
        fails = n >= 10 and call["deployment"] == "alpha-east"
        outcome = {"outcome": "error"} if fails else {"outcome": "ok", "ttft_ms": 100 + n}
        services.ask("routing.report", **call, **outcome)
    return [{}, {"limit": 1}, {"model": "beta"}]


# What each method is asked: a list of its arguments, or what makes them. Every method has its entry.
ASKED: dict[str, list[Fields] | Callable[[Services], list[Fields]]] = {
    "catalog.publish": _replayed(
        lambda s: {
            "request_id": s.market.request(),
            "effective_from": (s.market.clock.now + timedelta(days=3)).isoformat(),
            "catalogue": {"rate_cards": [{"operator": WEST, "model": "alpha", "rates": {"input": 1}}]},
        }
    ),
    "catalog.check": [
        {
            "request_id": "r",
            "effective_from": AFTERWARDS,
            "catalogue": {"rate_cards": [ALPHA | {"rates": {"input": 1}}]},
        },
        {"request_id": "r", "effective_from": LONG_AGO, "catalogue": {"policies": [{"operator": "nobody"}]}},
    ],
    "catalog.compare": [
        {"before": LONG_AGO, "after": AFTERWARDS},
        {"before": AFTERWARDS, "after": "2020-01-01T00:00:00Z"},
    ],
    "catalog.models": [{}],
    "catalog.rate_cards": [{}, {"limit": 1}, {"operator": EAST}],
    "catalog.plans": [{}],
    "catalog.operators": [{}],
    "catalog.regions": [{}],
    "catalog.data_centres": [{}],
    "catalog.deployments": [{}],
    "catalog.tariffs": [{}],
    "catalog.policies": [{}],
    "catalog.model": [{"model": "alpha"}],
    "catalog.rate_card": [{"operator": EAST, "model": "alpha"}, {"operator": EAST, "model": "beta"}],
    "catalog.plan": [{"operator": EAST, "plan": "monthly"}, {"operator": WEST, "plan": "family"}],
    "catalog.history": [{"kind": "rate_card", "key": f"{EAST}/alpha"}],
    "catalog.imports": [{}],
    "quota.open_account": _replayed(lambda s: {"operator": EAST, "account": s.market.request(), **_new(s)}),
    "quota.grant": _replayed(
        lambda s: {
            **s.account(),
            **_new(s),
            "amount": 5,
            "source": "plan",
            "plan": "monthly",
            "plan_version": 1,
            "scope": {"models": ["alpha"]},
            "expires_at": (s.market.clock.now + timedelta(days=1)).isoformat(),
        }
    ),
    "quota.void_grant": _replayed(lambda s: {**s.account(), **_new(s), "grant": "g"}),
    "quota.reserve": _replayed(lambda s: {**s.account(), **_new(s), "model": "alpha", "max_usage": {"input": 9}}),
    "quota.extend": _replayed(lambda s: {**s.held(), **_new(s), "reservation": "h", "amount": 7}),
    "quota.settle": _replayed(lambda s: {**s.held(), **_new(s), "reservation": "h", "usage": {"output": 1}}),
    "quota.release": _replayed(lambda s: {**s.held(), **_new(s), "reservation": "h", "reason": "多谢"}),
    "quota.debit": _replayed(
        lambda s: {
            **s.account(points=1),
            **_new(s),
            "model": "alpha",
            "usage": {"input": 3},
            "on_insufficient": "overdraw",
        }
    ),
    "quota.reverse": _replayed(lambda s: {**s.debited(), **_new(s), "debit": "d"}),
    "quota.set_credit_limit": _replayed(lambda s: {**s.account(), **_new(s), "credit_limit": 5}),
    "quota.suspend": _replayed(lambda s: {**s.account(), **_new(s)}),
    "quota.resume": _replayed(lambda s: {**s.suspended(), **_new(s)}),
    "quota.close_account": _replayed(lambda s: {**s.held(), **_new(s)}),
    "quota.execute": lambda s: _batch({"command": "suspend", **s.account(), **_new(s)}),
    "quota.balance": lambda s: [
        *({"operator": operator, "account": account} for operator, account in s.market.accounts),
        s.held(),
        s.account(points=1, credit_limit=10),
    ],
    "quota.statement": [OWNER, {**OWNER, "limit": 1}, {**OWNER, "after": 10**6}],
    "quota.find": lambda s: [{**s.debited(), "name": "d"}, {**OWNER, "name": "nothing"}],
    "quota.balances": [{}, {"limit": 1}],
    "quota.sweep": _swept,
    "quota.status": [{}],
    "routing.route": _replayed(lambda s: {**ROUTE, "call": s.market.request(), "residency": []}),
    "routing.report": _replayed(lambda s: {**s.routed(), "outcome": "ok", "ttft_ms": 5, "usage": {"input": 1}}),
    "routing.execute": lambda s: _batch({"command": "route", **ROUTE, "call": s.market.request()}),
    "routing.call": lambda s: [{"operator": EAST, "call": s.routed()["call"]}],
    "routing.deployments": _known,
    "routing.status": [{}],
    "billing.issue_bills": _replayed(lambda s: {"operator": EAST, **s.august()}),
    "billing.dry_run": [{**OWNER, "period": JULY}, {**OWNER, "period": AUGUST}],
    "billing.pay": _replayed(lambda s: {**s.bill(), **_new(s), "fen": 1}),
    "billing.credit": _replayed(lambda s: {**s.bill(), **_new(s), "fen": 1, "reason": "goodwill"}),
    "billing.settle_period": _replayed(lambda s: s.august()),
    "billing.subscribe": _replayed(lambda s: {**s.subscribed(), **_new(s), "plan": "payg"}),
    "billing.change_subscription": _replayed(
        lambda s: {**s.subscribed(), **_new(s), "subscription": "s", "plan": "payg", "at_once": True}
    ),
    "billing.pause_subscription": _replayed(lambda s: {**s.subscribed(), **_new(s), "subscription": "s"}),
    "billing.resume_subscription": _replayed(lambda s: {**s.paused(), **_new(s), "subscription": "s"}),
    "billing.end_subscription": _replayed(
        lambda s: {**s.subscribed(), **_new(s), "subscription": "s", "reason": "moves away"}
    ),
    "billing.subscriptions": lambda s: [s.subscribed(), s.paused(), OWNER],
    "billing.renew": lambda s: [s.subscribed() and {}],
    "billing.void": _replayed(lambda s: {**s.unpaid(), **_new(s), "reason": "wrong price list"}),
    "billing.grant_credit": _replayed(lambda s: {**OWNER, **_new(s), "fen": 5, "reason": "goodwill"}),
    "billing.draft_bills": [
        {"operator": EAST, "period": "2026-09"},
        {"operator": EAST, "period": "2026-09", "after": "e0", "limit": 1},
        {"operator": EAST, "period": JULY},
    ],
    "billing.close_status": [{"period": JULY}, {"period": JULY, "operator": EAST}, {"period": "2020-01"}],
    "billing.execute": lambda s: _batch({"command": "pay", **s.bill(), **_new(s), "fen": 1}),
    "billing.bill": lambda s: [s.bill(), s.void()],
    "billing.bill_page": lambda s: [s.bill()],
    "billing.bills": [{}, {"limit": 1}],
    "billing.charge_file": [{"operator": EAST, "period": JULY}, {"operator": EAST, "period": "2020-01"}],
    "billing.focus": [{"period": JULY}, {"operator": EAST, "period": AUGUST, "limit": 1}, {"period": "2020-01"}],
    "billing.statements": [{"period": JULY}, {"period": "2020-01"}],
    "billing.settlement": [{"period": JULY}],
    "billing.usage": lambda s: [
        {"operator": operator, "account": account, "period": JULY} for operator, account in s.market.accounts
    ],
    "billing.status": [{}],
    "audit.seal": [{"log": "quota", "position": 1}] * 2,
    "audit.cosign": _cosigned,
    "audit.refuse": _refused,
    "audit.checkpoint": [{"log": "quota"}],
    "audit.checkpoints": [{"log": "quota"}, {"log": "quota", "limit": 1}],
    "audit.inclusion": _proofs,
    "audit.consistency": [{"log": "quota", "first": 1}, {"log": "quota", "first": 3, "second": 7}],
    "audit.multiproof": [{"log": "quota", "positions": [1, 3]}, {"log": "billing", "positions": [2], "size": 3}],
    "audit.tile": [{"log": "quota", "path": "tile/0/000.p/3"}],
    "audit.status": [{}],
    **{f"{service}.events": [{}, {"after": 2, "limit": 1}] for service in SERVICES},
    **{f"{service}.stream": [{"stream": "none"}] for service in SERVICES},
    **{f"{service}.head": [{}] for service in SERVICES},
    **{f"{service}.ping": [{}] for service in SERVICES},
}
# What can be asked before anything has happened.
BEFORE_ANYTHING: dict[str, Fields] = {
    "routing.deployments": {},
    **{name: {} for name, given in ASKED.items() if isinstance(given, list) and {} in given},
    "catalog.history": {"kind": "model", "key": "alpha"},
    "catalog.publish": {"request_id": "p", "effective_from": LONG_AGO, "catalogue": {}},
    "catalog.check": {"request_id": "p", "effective_from": LONG_AGO, "catalogue": {}},
    "catalog.compare": {"before": LONG_AGO, "after": AFTERWARDS},
    "quota.execute": {"commands": []},
    "quota.find": {**OWNER, "name": "nothing"},
    "quota.sweep": {},
    "billing.settlement": {"period": JULY},
    "billing.statements": {"period": JULY},
    "billing.focus": {"period": JULY},
    "billing.close_status": {"period": JULY},
    "billing.settle_period": {"period": JULY, "quota_position": 0},
    "audit.checkpoint": {"log": "quota"},
    "audit.checkpoints": {"log": "quota"},
}


def answers(services: Services, name: str) -> list[Any]:
    asked = ASKED[name]
    return [services.ask(name, **fields) for fields in (asked(services) if callable(asked) else asked)]
