"""Answers are what is published: those of real services, after two months of business, in their JSON form."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import marshmallow as ma
import pytest

from services.audit.service import AuditService
from services.billing.service import BillingService
from services.catalog.schemas import ITEMS
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from services.routing.service import RoutingService
from shared.config import SERVICES
from shared.contracts.answers import LOG_METHODS, RecordedEvent
from shared.contracts.base import EVENTS
from shared.contracts.methods import Method, receipt_of
from shared.contracts.schema import field_of
from shared.eventstore.requests import Request
from shared.messaging import codec
from shared.transparency.checkpoint import Opened, cosign, open_checkpoint
from shared.transparency.keys import COSIGNATURE, SigningKey, VerifierKey
from shared.transparency.refusal import Refusal, sign_refusal
from tests.unit.audit_world import ALPHA, EAST, JULY, LONG_AGO, WEST, Market, two_months

WITNESS = SigningKey.generate("example.org/w1", COSIGNATURE)
SEED = 20260618
AUGUST = "2026-08"
AFTERWARDS = "2026-12-31T16:00:00Z"
CLASSES: dict[str, type[Any]] = {
    "catalog": CatalogService,
    "quota": QuotaService,
    "routing": RoutingService,
    "billing": BillingService,
    "audit": AuditService,
}
METHODS: dict[str, Method] = {
    f"{service}.{method.name}": method
    for service in SERVICES
    for method in (*importlib.import_module(f"services.{service}.schemas").METHODS, *LOG_METHODS)
}
OWNER = {"operator": EAST, "account": "e0"}
ROUTE = {"operator": EAST, "account": "e0", "model": "alpha"}
Fields = dict[str, Any]


class Services:
    """The service objects over a market's applications; answers come as JSON carries them."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._services = {name: cls() for name, cls in CLASSES.items()}
        for name, service in self._services.items():
            service.app = getattr(market, name)
            service.config = {"tokengrid": market.settings}
            service.peers = self

    def call(self, service: str, method: str, /, **fields: Any) -> Any:
        """What a service asks another one."""
        return self.ask(f"{service}.{method}", **fields)

    def ask(self, name: str, /, **fields: Any) -> Any:
        service, _, method = name.partition(".")
        if not hasattr(self._services[service], method):  # one that its lane serves
            body = codec.encode({"args": [], "kwargs": fields})
            (answer,) = self._services[service].work(0, [Request(method, body)])
            if isinstance(answer, Exception):
                raise answer
            return codec.decode(answer)
        arguments = codec.decode(codec.encode(fields))
        return codec.decode(codec.encode(getattr(self._services[service], method)(**arguments)))

    # -- what the questions are about ---------------------------------------------------------------
    def account(self, points: int = 10**9, **fields: Any) -> Fields:
        """A new account with a grant, `g`."""
        owner = {"operator": EAST, "account": self.market.request()}
        self.ask("quota.open_account", **owner, request_id="open", **fields)
        self.ask("quota.grant", **owner, request_id="g", amount=points, source="purchase")
        return owner

    def held(self) -> Fields:
        """A new account with a reservation, `h`."""
        owner = self.account()
        self.ask("quota.reserve", **owner, request_id="h", model="alpha", amount=1000, ttl_s=60)
        return owner

    def debited(self) -> Fields:
        """A new account with a debit, `d`."""
        owner = self.account()
        self.ask("quota.debit", **owner, request_id="d", model="alpha", usage={"input": 10})
        return owner

    def suspended(self) -> Fields:
        """A new account, suspended."""
        owner = self.account()
        self.ask("quota.suspend", **owner, request_id="s")
        return owner

    def routed(self) -> Fields:
        """A new call and its deployment."""
        call = {"operator": EAST, "call": self.market.request()}
        return call | {"deployment": self.ask("routing.route", **{**ROUTE, **call})["deployment"]}

    def subscribed(self) -> Fields:
        """A new account with a subscription, `s`."""
        owner = self.account()
        self.market.follow()
        self.ask("billing.subscribe", **owner, request_id="s", plan="monthly")
        return owner

    def paused(self) -> Fields:
        """A new account with a subscription, `s`, that is paused."""
        owner = self.subscribed()
        self.ask("billing.pause_subscription", **owner, request_id="p", subscription="s", at_once=True)
        return owner

    def bill(self) -> Fields:
        """An issued bill that has a payment and a credit note, and more to pay."""
        bills = self.ask("billing.bills", period=JULY)["bills"]
        return next({"number": bill["number"]} for bill in bills if bill["credited_fen"] and bill["paid_fen"])

    def unpaid(self) -> Fields:
        """An account's last bill, on which nothing was paid or credited; another one each time."""
        self.ask("billing.issue_bills", operator=EAST, **self.august())
        bills = self.ask("billing.bills", period=AUGUST, operator=EAST)["bills"]
        return next({"number": bill["number"]} for bill in bills if bill["status"] != "void")

    def void(self) -> Fields:
        """A void bill."""
        bill = self.unpaid()
        self.ask("billing.void", **bill, request_id=self.market.request(), reason="")
        return bill

    def august(self) -> Fields:
        """August's cut-off, up to which all is followed."""
        self.market.follow()
        return {"period": AUGUST, "quota_position": self.ask("quota.head")}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    witnesses = (str(WITNESS.verifier),)
    market = two_months(tmp_path_factory.mktemp("market"), SEED, events=60, witness_keys=witnesses)
    made = Services(market)
    policy = {"operator": EAST, "preferred": [EAST]}
    imported = {"package": "p", "package_version": "1", "content_sha256": "0", "fen_per_usd": 700, "priced": 2}
    made.ask(
        "catalog.publish",
        request_id="policy",
        effective_from=market.clock.now.isoformat(),
        catalogue={"policies": [policy]},
        imported={**imported, "unpriced": ["gamma"]},
    )
    for _ in range(12):
        market.happen()
    market.follow()
    market.clock.now = max(market.clock.now, datetime(2026, 9, 2, tzinfo=UTC))
    yield made
    market.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    market = Market(tmp_path_factory.mktemp("empty"), SEED)
    yield Services(market)
    market.close()


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
    "billing.charge_file": {"operator": EAST, "period": JULY},
    "billing.focus": {"period": JULY},
    "billing.close_status": {"period": JULY},
    "billing.settle_period": {"period": JULY, "quota_position": 0},
    "audit.checkpoint": {"log": "quota"},
    "audit.checkpoints": {"log": "quota"},
}


def answers(services: Services, name: str) -> list[Any]:
    asked = ASKED[name]
    return [services.ask(name, **fields) for fields in (asked(services) if callable(asked) else asked)]


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_is_as_published(services: Services, name: str) -> None:
    for answer in answers(services, name):
        METHODS[name].answer_field().deserialize(answer)


@pytest.mark.parametrize("name", BEFORE_ANYTHING)
def test_an_answer_is_as_published_before_anything_has_happened(empty: Services, name: str) -> None:
    if name == "billing.settle_period":
        empty.market.clock.now = datetime(2026, 8, 2, tzinfo=UTC)
    METHODS[name].answer_field().deserialize(empty.ask(name, **BEFORE_ANYTHING[name]))


def spoiled(field: ma.fields.Field[Any], answer: Any) -> Iterator[tuple[str, Any]]:
    """An answer without one of its required fields, or with one too many, at every depth; and where that is."""
    match field:
        case ma.fields.Nested():
            schema = field.schema
            for name, inner in schema.fields.items():
                if inner.required:
                    yield f"without {name}", {k: v for k, v in answer.items() if k != name}
                if answer.get(name) is not None:
                    for where, value in spoiled(inner, answer[name]):
                        yield f"{name}: {where}", {**answer, name: value}
            if schema.unknown == ma.RAISE:
                yield "with a surplus field", {**answer, "surplus": 1}
        case ma.fields.List() if answer:
            for where, value in spoiled(field.inner, answer[0]):
                yield f"0: {where}", [value, *answer[1:]]
        case ma.fields.Dict() if answer:
            key = next(iter(answer))
            for where, value in spoiled(field.value_field, answer[key]):
                yield f"{key}: {where}", {**answer, key: value}
        case ma.fields.Integer():
            yield "as text", str(answer)


@pytest.mark.parametrize("name", METHODS)
def test_an_answer_that_lacks_a_field_or_has_one_too_many_is_refused(services: Services, name: str) -> None:
    field = METHODS[name].answer_field()
    tried = 0
    for answer in answers(services, name)[:2]:
        for where, bad in spoiled(field, answer):
            tried += 1
            with pytest.raises(ma.ValidationError):
                pytest.fail(f"{where} is let through: {field.deserialize(copy.deepcopy(bad))}")
    assert tried >= 1


@pytest.mark.parametrize(
    ("name", "asked"),
    [("quota.statement", OWNER), ("quota.statement", {"operator": EAST, "account": "e3"})],
)
def test_an_event_in_an_account_statement_is_that_of_its_kind(services: Services, name: str, asked: Fields) -> None:
    for event in services.ask(name, **asked)["events"]:
        _of_its_kind("quota", event)


def test_the_event_that_is_found_is_that_of_its_kind(services: Services) -> None:
    _of_its_kind("quota", services.ask("quota.find", **services.debited(), name="d")["event"])


def test_an_event_in_a_calls_history_is_that_of_its_kind(services: Services) -> None:
    call = services.routed()
    services.ask("routing.report", **call, outcome="ok")
    del call["deployment"]
    for event in services.ask("routing.call", **call)["events"]:
        _of_its_kind("routing", event)


def _of_its_kind(service: str, event: Mapping[str, Any]) -> None:
    kind = EVENTS[f"{service}.{event['kind']}:1"]
    field_of(receipt_of(kind, RecordedEvent)).deserialize(event)


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith(".execute")])
def test_what_a_batch_accepts_is_answered_as_by_its_own_method(services: Services, name: str) -> None:
    service = name.partition(".")[0]
    (asked,) = ASKED[name](services)  # type: ignore[operator]
    accepted, refused = services.ask(name, **asked)
    METHODS[f"{service}.{asked['commands'][0]['command']}"].answer_field().deserialize(accepted["ok"])
    assert refused["error"]["code"] == "MalformedCommand"


@pytest.mark.parametrize("kind", ITEMS)
def test_a_version_in_an_items_history_is_that_of_its_kind(services: Services, kind: Any) -> None:
    listed = services.ask({"policy": "catalog.policies"}.get(kind, f"catalog.{kind}s"))
    versions = services.ask("catalog.history", kind=kind, key=listed[0]["key"])
    assert versions
    for version in versions:
        field_of(ITEMS[kind]).deserialize(version)
