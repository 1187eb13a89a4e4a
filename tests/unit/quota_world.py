"""A small quota world for tests: a catalogue, a frozen clock, an application on SQLite."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.quota.application import QuotaApplication
from services.quota.domain.account import Account
from shared.clock import FrozenClock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts.base import Event, Rates, encode_event
from shared.errors import TokengridError
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import LoggedEvent
from tests.folders import brief_folder

START = datetime(2026, 6, 1, 0, 0, tzinfo=UTC)
OPERATOR = "shanghai-telecom"

CATALOGUE: tuple[tuple[str, type[c.CatalogEvent], Any], ...] = (
    ("operator", c.OperatorPublished, c.Operator(operator=OPERATOR, name="Shanghai Telecom", home_region="shanghai")),
    ("model", c.ModelPublished, c.Model(model="kimi-k2.5", family="kimi", developer="Moonshot")),
    ("model", c.ModelPublished, c.Model(model="deepseek-chat", family="deepseek", developer="DeepSeek")),
    ("model", c.ModelPublished, c.Model(model="unpriced", family="other", developer="Nobody")),
    (
        "rate_card",
        c.RateCardPublished,
        c.RateCard(
            operator=OPERATOR,
            model="kimi-k2.5",
            rates=Rates(input=1000, cached_input=200, cache_write=1000, output=5000),
            tiers=(c.Tier(above_input_tokens=100_000, rates=Rates(input=2000, output=10_000)),),
        ),
    ),
    (
        "rate_card",
        c.RateCardPublished,
        c.RateCard(operator=OPERATOR, model="deepseek-chat", rates=Rates(input=500, output=2000)),
    ),
    (
        "plan",
        c.PlanPublished,
        c.Plan(operator=OPERATOR, plan="monthly-9.9", name="Monthly", kind="monthly", fee_fen=990, allowance=10**10),
    ),
)


def catalogue_page(
    entries: Any = CATALOGUE, effective_from: datetime = datetime(2026, 1, 1, tzinfo=UTC)
) -> list[LoggedEvent]:
    """The catalog's log as a follower gets it."""
    versions: dict[str, int] = {}
    page = []
    for position, (kind, event_type, item) in enumerate(entries, start=1):
        stream = f"{kind}:{item.key}"
        versions[stream] = versions.get(stream, 0) + 1
        event: Event = event_type(
            at=effective_from,
            recorded_at=effective_from,
            request_id="sample",
            version=versions[stream],
            effective_from=effective_from,
            item=item,
        )
        page.append(LoggedEvent(position, stream, versions[stream], event.TOPIC, encode_event(event).decode()))
    return page


@functools.cache
def _empty() -> bytes:
    """An empty database of quota: to run its migrations takes longer than most tests."""
    with brief_folder() as folder:
        made = engine(f"sqlite:///{folder}/quota.db")
        migrate(made, "quota")
        made.dispose()
        return (Path(folder) / "quota.db").read_bytes()


def migrated(folder: Path) -> str:
    """The address of databases in a folder, that of quota being there already."""
    database = folder / "quota.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        database.write_bytes(_empty())
    return f"sqlite:///{folder}/{{service}}.db"


class World:
    """One application and the words to speak to it."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        url = database or migrated(folder)
        self.settings = Settings(var=folder, database=url)
        self.clock = FrozenClock(START)
        self.app = self.start()
        self._requests = 0

    def start(self) -> QuotaApplication:
        """A (further) process of the service on the same database."""
        app = QuotaApplication(self.settings, self.clock)
        app.follow_catalog([e._asdict() for e in catalogue_page()][app.catalogue.view.position :])
        return app

    def restart(self) -> None:
        self.app.close()
        self.app = self.start()

    def next_request(self) -> str:
        self._requests += 1
        return f"r{self._requests}"

    def do(self, command: str, account: str = "a1", **fields: Any) -> dict[str, Any]:
        """A command; raises its refusal. A request_id is made up unless given."""
        fields.setdefault("request_id", self.next_request())
        return self.app.submit(command, {"operator": OPERATOR, "account": account, **fields})

    def refusal(self, command: str, account: str = "a1", **fields: Any) -> str:
        """The code with which a command is refused; the log must not have grown."""
        before = self.app.log.head()
        try:
            self.do(command, account, **fields)
        except TokengridError as refusal:
            assert self.app.log.head() == before, "a refused command changes nothing"
            return refusal.code
        return "done"

    def open(self, account: str = "a1", points: int | None = None, **fields: Any) -> None:
        self.do("open_account", account, **fields)
        if points is not None:
            self.do("grant", account, amount=points, source="purchase", request_id=f"g-{account}")

    def balance(self, account: str = "a1", **query: Any) -> dict[str, Any]:
        from services.quota.schemas import Balance

        return self.app.balance(Balance(operator=OPERATOR, account=account, **query))

    def grant_books(self, account: str = "a1") -> dict[str, dict[str, Any]]:
        return {g["grant"]: g for g in self.balance(account)["grants"]}


def books(account: Account) -> Any:
    """All that an account in memory holds, to be compared with another."""
    grants = {g.name: (g.reserved, g.debited, g.reversed, g.expired, g.voided, g.void) for g in account.grants.values()}
    holds = {name: (h.remaining, h.expires_at, h.expired) for name, h in account.holds.items()}
    credit = (account.credit_limit, account.credit_reserved, account.credit_debited, account.overdrawn)
    return account.version, account.status, grants, holds, credit, account.reversals
