"""What-ifs on the world of subscriptions: how logs are asked, months are closed, and what became of a bill."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from services.billing.whatif import Rerated, what_if
from shared.contracts import catalog as c
from shared.contracts.billing import Bill
from shared.contracts.catalog import Catalogue
from tests.unit.audit_world import Market
from tests.unit.subscription_world import CATALOGUE, OPERATOR, World

JUNE = "2026-06"


class Logs:
    """A client that can read logs and nothing else."""

    def __init__(self, world: World) -> None:
        self._logs = {"billing": world.billing.log, "catalog": world.catalog.log, "quota": world.quota.log}

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        log = self._logs[service]
        if method == "head":
            return log.head()
        assert method == "events"
        return {"events": [event._asdict() for event in log.read(asked["after"], asked["limit"])]}

    def heads(self) -> list[int]:
        return [log.head() for log in self._logs.values()]


def catalogue(**items: Any) -> Catalogue:
    """As a file would give it."""
    return msgspec.convert(msgspec.to_builtins(items), Catalogue)


def card(factor: int = 1, **more: Any) -> dict[str, Any]:
    """Kimi's rate card, at so many times its rates."""
    rates = {name: rate * factor for name, rate in CATALOGUE["rate_cards"][0]["rates"].items()}
    return CATALOGUE["rate_cards"][0] | {"rates": rates} | more


def dearer(factor: int) -> Catalogue:
    return catalogue(rate_cards=[card(factor)])


def unchanged(market: Market) -> Catalogue:
    """All rate cards and plans that had one version only."""
    events = [logged.event for logged in market.catalog.log.read(0, 1000)]
    cards = [event.item for event in events if isinstance(event, c.RateCardPublished)]
    plans = [event.item for event in events if isinstance(event, c.PlanPublished)]
    keys = Counter(item.key for item in (*cards, *plans))
    return Catalogue(
        rate_cards=tuple(item for item in cards if keys[item.key] == 1),
        plans=tuple(item for item in plans if keys[item.key] == 1),
    )


def close(world: World, period: str = JUNE) -> None:
    """The month after has begun, and every account is billed."""
    year, month = map(int, period.split("-"))
    world.until(f"{year}-{month + 1:02d}-02", hours=240)
    run = {"operator": OPERATOR, "period": period, "quota_position": world.quota.log.head()}
    while world.billing.submit("issue_bills", run)["remaining"]:
        pass


def rerated(world: World, account: str, other: Catalogue, period: str = JUNE) -> Rerated:
    """What became of an account's bill; no log has grown."""
    logs = Logs(world)
    before = logs.heads()
    found = what_if(logs, period, other)
    assert logs.heads() == before
    assert all(one.again == one.issued for one in found)
    return next(one for one in found if one.issued.account == account)


def lines(bill: Bill) -> list[tuple[str, int]]:
    return [(line.kind, line.fen) for line in bill.lines]


def charged(bill: Bill) -> int:
    """Whole points that no grant paid for."""
    return sum(line.charged for line in bill.lines) // 1_000
