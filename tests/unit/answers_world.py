"""The service objects over a whole market, and what their answers are about; each is as JSON carries it."""

from __future__ import annotations

from typing import Any

from services.audit.service import AuditService
from services.billing.service import BillingService
from services.catalog.service import CatalogService
from services.quota.service import QuotaService
from services.routing.service import RoutingService
from shared.eventstore.requests import Request
from shared.messaging import codec
from shared.transparency.keys import COSIGNATURE, SigningKey
from tests.unit.audit_world import EAST, JULY, Market

WITNESS = SigningKey.generate("example.org/w1", COSIGNATURE)
AUGUST = "2026-08"
CLASSES: dict[str, type[Any]] = {
    "catalog": CatalogService,
    "quota": QuotaService,
    "routing": RoutingService,
    "billing": BillingService,
    "audit": AuditService,
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
