"""The billing service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.billing.application import BillingApplication
from services.billing.questions import (
    BillOf,
    BillPage,
    Bills,
    ChargeFile,
    CloseStatus,
    DraftBills,
    Focus,
    Renew,
    Settlement,
    Statements,
    SubscriptionsOf,
    UsageOf,
)
from shared.contracts.billing import DryRun
from shared.contracts.schema import parse
from shared.messaging.client import Peers
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.timing import every
from shared.messaging.tracing import Tracing

# Events: of 10,000 accounts that are debited by chance each is met ten times, and its row is written once. It is the
# page of a follower that is behind, some 100 MB; at the head pages are as small as what there is.
QUOTA_PAGE = 100_000


class BillingService(LogService):
    """What it costs in money: rating, bills, credit notes, settlement between operators."""

    name = "billing"
    app = Hosted(BillingApplication)
    tracing = Tracing()
    peers = Peers()

    # -- commands: each answers only after its event is durable -------------------------------------
    @rpc
    def issue_bills(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("issue_bills", command)

    @rpc
    def pay(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("pay", command)

    @rpc
    def credit(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("credit", command)

    @rpc
    def void(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("void", command)

    @rpc
    def grant_credit(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("grant_credit", command)

    @rpc
    def subscribe(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("subscribe", command)

    @rpc
    def change_subscription(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("change_subscription", command)

    @rpc
    def pause_subscription(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("pause_subscription", command)

    @rpc
    def resume_subscription(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("resume_subscription", command)

    @rpc
    def end_subscription(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("end_subscription", command)

    @rpc
    def settle_period(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("settle_period", command)

    @rpc
    def renew(self, **command: Any) -> dict[str, Any]:
        parse(Renew, command)
        return self.app.renew(self._ask_quota)._asdict()

    @rpc
    def execute(self, commands: Any = None) -> list[dict[str, Any]]:
        return self.app.execute(commands)

    # -- questions ----------------------------------------------------------------------------------
    @rpc
    def dry_run(self, **query: Any) -> dict[str, Any]:
        return self.app.dry_run(parse(DryRun, query))

    @rpc
    def draft_bills(self, **query: Any) -> dict[str, Any]:
        return self.app.draft_bills(parse(DraftBills, query))

    @rpc
    def close_status(self, **query: Any) -> dict[str, Any]:
        return self.app.close_status(parse(CloseStatus, query))

    @rpc
    def bill(self, **query: Any) -> dict[str, Any]:
        return self.app.bill(parse(BillOf, query))

    @rpc
    def bill_page(self, **query: Any) -> dict[str, Any]:
        return self.app.bill_page(parse(BillPage, query))

    @rpc
    def bills(self, **query: Any) -> dict[str, Any]:
        return self.app.bills(parse(Bills, query))

    @rpc
    def charge_file(self, **query: Any) -> dict[str, Any]:
        return self.app.charge_file(parse(ChargeFile, query))

    @rpc
    def focus(self, **query: Any) -> dict[str, Any]:
        return self.app.focus(parse(Focus, query))

    @rpc
    def statements(self, **query: Any) -> dict[str, Any]:
        return self.app.statements(parse(Statements, query))

    @rpc
    def settlement(self, **query: Any) -> dict[str, Any]:
        return self.app.settlement(parse(Settlement, query))

    @rpc
    def subscriptions(self, **query: Any) -> dict[str, Any]:
        return self.app.subscriptions(parse(SubscriptionsOf, query))

    @rpc
    def usage(self, **query: Any) -> dict[str, Any]:
        return self.app.usage(parse(UsageOf, query))

    @rpc
    def status(self) -> dict[str, Any]:
        return self.app.status()

    # -- what it does by itself ---------------------------------------------------------------------
    @every("subscriptions_interval_s")
    def on_time(self) -> None:
        while self.app.renew(self._ask_quota).anything:
            pass

    def _ask_quota(self, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return self.peers.call("quota", "execute", commands=commands)

    # -- following ----------------------------------------------------------------------------------
    @follow("quota", page_size=QUOTA_PAGE)
    def on_quota(self, page: list[dict[str, Any]], shard: int = 0) -> int:
        return self.app.follow_quota(page, shard)

    @follow("catalog")
    def on_catalog(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow_catalog(page)
