"""The billing service: how the application is called. Thin; nameko lives here and not below."""

from __future__ import annotations

from typing import Any

from services.billing.application import BillingApplication
from services.billing.schemas import BillOf, BillPage, Bills, ChargeFile, Settlement, Statements, UsageOf
from shared.contracts.billing import DryRun
from shared.contracts.schema import parse
from shared.messaging.follower import follow
from shared.messaging.hosting import Hosted
from shared.messaging.log_service import LogService
from shared.messaging.rpc import rpc
from shared.messaging.tracing import Tracing

# Events: of 10,000 accounts that are debited by chance each is met five times, and its row is written once. It is the
# page of a follower that is behind; at the head pages are as small as what there is.
QUOTA_PAGE = 50_000


class BillingService(LogService):
    """What it costs in money: rating, bills, credit notes, settlement between operators."""

    name = "billing"
    app = Hosted(BillingApplication)
    tracing = Tracing()

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
    def settle_period(self, **command: Any) -> dict[str, Any]:
        return self.app.submit("settle_period", command)

    @rpc
    def execute(self, commands: Any = None) -> list[dict[str, Any]]:
        return self.app.execute(commands)

    # -- questions ----------------------------------------------------------------------------------
    @rpc
    def dry_run(self, **query: Any) -> dict[str, Any]:
        return self.app.dry_run(parse(DryRun, query))

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
    def statements(self, **query: Any) -> dict[str, Any]:
        return self.app.statements(parse(Statements, query))

    @rpc
    def settlement(self, **query: Any) -> dict[str, Any]:
        return self.app.settlement(parse(Settlement, query))

    @rpc
    def usage(self, **query: Any) -> dict[str, Any]:
        return self.app.usage(parse(UsageOf, query))

    @rpc
    def status(self) -> dict[str, Any]:
        return self.app.status()

    # -- following ----------------------------------------------------------------------------------
    @follow("quota", page_size=QUOTA_PAGE)
    def on_quota(self, page: list[dict[str, Any]], shard: int = 0) -> int:
        return self.app.follow_quota(page, shard)

    @follow("catalog")
    def on_catalog(self, page: list[dict[str, Any]]) -> int:
        return self.app.follow_catalog(page)
