"""Hand-made logs for billing's tests: quota's and catalog's events as their services publish them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.billing.application import BillingApplication
from services.billing.domain.metering import Heard, Sums, fold
from services.billing.domain.rating import Used
from services.billing.questions import BillOf, Bills
from shared.catalogue.view import CatalogueView
from shared.clock import SHANGHAI, FrozenClock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts import quota as q
from shared.contracts.base import TOKEN_CLASSES, Event, Rates, Usage, encode_event
from shared.contracts.billing import Bill, BillIssued, BillLine, TokenSums
from shared.eventstore.log import EventLog, LoggedEvent

MAY = "2026-05"
JUNE = "2026-06"
JULY = "2026-07"
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
CLOSE_OF_JUNE = datetime(2026, 7, 1, 2, tzinfo=SHANGHAI)
KIMI = Rates(input=1000, cached_input=200, cache_write=1000, output=4000)


def june(day: int, hour: int = 12, minute: int = 0) -> datetime:
    """An instant of June 2026, Shanghai's clock."""
    return datetime(2026, 6, day, hour, minute, tzinfo=SHANGHAI)


def july(day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2026, 7, day, hour, minute, tzinfo=SHANGHAI)


class Log:
    """A log in the making. Events are recorded when they happen, unless `recorded` says otherwise."""

    def __init__(self) -> None:
        self.events: list[LoggedEvent] = []

    @property
    def head(self) -> int:
        return len(self.events)

    def append(self, stream: str, event: Event, trace: str | None = None) -> LoggedEvent:
        logged = LoggedEvent(self.head + 1, stream, self.head + 1, event.TOPIC, encode_event(event).decode(), trace)
        self.events.append(logged)
        return logged

    def page(self, after: int = 0, until: int | None = None) -> list[dict[str, Any]]:
        """A section of the log as it travels."""
        return [event._asdict() for event in self.events[after:until]]


class QuotaLog(Log):
    """Quota's log, in the words of the market."""

    def __init__(self, operator: str = "sh-telecom", account: str = "a1") -> None:
        super().__init__()
        self.operator = operator
        self.account = account

    def _add(
        self,
        kind: type[Event],
        at: datetime,
        recorded: datetime | None,
        operator: str | None,
        account: str | None,
        trace: str | None = None,
        **fields: Any,
    ) -> LoggedEvent:
        request: dict[str, Any] = {"at": at, "recorded_at": recorded or at, "request_id": f"r{self.head + 1}"}
        event = kind(**(request | fields))
        return self.append(f"{operator or self.operator}/{account or self.account}", event, trace)

    def open(
        self,
        at: datetime | None = None,
        *,
        plan: str = "",
        subscriber: str = "",
        credit_limit: int = 0,
        recorded: datetime | None = None,
        operator: str | None = None,
        account: str | None = None,
    ) -> LoggedEvent:
        terms: dict[str, Any] = {"plan": plan, "subscriber": subscriber, "credit_limit": credit_limit}
        return self._add(q.AccountOpened, at or june(1, 0), recorded, operator, account, **terms)

    def close(self, at: datetime) -> LoggedEvent:
        return self._add(q.AccountClosed, at, None, None, None)

    def grant(
        self,
        source: str,
        amount: int,
        at: datetime | None = None,
        *,
        name: str = "",
        recorded: datetime | None = None,
        operator: str | None = None,
        account: str | None = None,
        **fields: Any,
    ) -> LoggedEvent:
        """`name`: the grant's own, its request's."""
        at = at or june(1, 1)
        more: dict[str, Any] = {"source": source, "amount": amount, "effective_at": at} | fields
        more |= {"request_id": name} if name else {}
        return self._add(q.PointsGranted, at, recorded, operator, account, **more)

    def void(self, grant: str, amount: int, at: datetime) -> LoggedEvent:
        """`amount`: what was left of it."""
        return self._add(q.GrantVoided, at, None, None, None, grant=grant, amount=amount)

    def expire(self, grant: str, amount: int, at: datetime) -> LoggedEvent:
        """`amount`: what was left of it."""
        return self._add(q.GrantExpired, at, None, None, None, grant=grant, amount=amount)

    def debit(
        self,
        at: datetime,
        usage: Usage,
        *,
        credit: int = 0,
        overdrawn: int = 0,
        model: str = "kimi-k2.5",
        rates: Rates = KIMI,
        rate_card: str = "sh-telecom/kimi-k2.5@1",
        final: bool = True,
        serving: str = "",
        recorded: datetime | None = None,
        operator: str | None = None,
        account: str | None = None,
        trace: str | None = None,
    ) -> LoggedEvent:
        """`credit` and `overdrawn` millipoints of it were not covered by any grant."""
        amount = rates.price(usage)
        covered = amount - credit - overdrawn
        assert covered >= 0
        draws = [q.Draw("g1", covered)] if covered else []
        draws += [q.Draw(q.CREDIT, credit)] if credit else []
        fields: dict[str, Any] = {"call": "", "model": model, "rate_card": rate_card, "rates": rates, "usage": usage}
        fields |= {"amount": amount, "draws": tuple(draws), "overdrawn": overdrawn, "final": final}
        return self._add(q.TokensDebited, at, recorded, operator, account, trace, **fields, serving_operator=serving)

    def reverse(
        self,
        at: datetime,
        *,
        grants: int = 0,
        credit: int = 0,
        overdrawn: int = 0,
        model: str = "kimi-k2.5",
        rate_card: str = "sh-telecom/kimi-k2.5@1",
        recorded: datetime | None = None,
    ) -> LoggedEvent:
        draws = [q.Draw("g1", grants)] if grants else []
        draws += [q.Draw(q.CREDIT, credit)] if credit else []
        fields: dict[str, Any] = {
            "debit": "d",
            "model": model,
            "rate_card": rate_card,
            "amount": grants + credit + overdrawn,
        }
        return self._add(q.DebitReversed, at, recorded, None, None, **fields, draws=tuple(draws), overdrawn=overdrawn)


def heard(quota: QuotaLog) -> list[Heard]:
    """A log of one account's events as metering takes them."""
    return [Heard(e.position, quota.operator, quota.account, e.event) for e in quota.events]


PUBLISHED: dict[type[Any], type[c.CatalogEvent]] = {
    c.Plan: c.PlanPublished,
    c.Tariff: c.TariffPublished,
    c.Operator: c.OperatorPublished,
}


class CatalogLog(Log):
    """Catalog's log."""

    def publish(self, item: Any, version: int = 1, effective: datetime = BEFORE) -> LoggedEvent:
        event = PUBLISHED[type(item)](  # type: ignore[call-arg]
            at=BEFORE, recorded_at=BEFORE, request_id="p", version=version, effective_from=effective, item=item
        )
        return self.append(f"{type(item).__name__}:{item.key}", event)

    def view(self) -> CatalogueView:
        view = CatalogueView()
        for logged in self.events:
            view.apply(logged.position, logged.event)
        return view


def catalogue(*items: Any) -> CatalogLog:
    """A catalog's log of first versions, all long in force."""
    log = CatalogLog()
    for item in items:
        log.publish(item)
    return log


def summed(pages: Iterable[Sequence[Heard]], cut_off: int) -> list[Used]:
    """What billing's tables would hold as of a cut-off, were they dictionaries."""
    found: dict[tuple[str, str], Sums] = {}
    names = ("calls", *TOKEN_CLASSES, "amount", "charged")
    for page in pages:
        for _, kind, segment, sums in fold(page).usage():
            if segment <= cut_off:
                into = found.setdefault((kind.model, kind.rate_card), Sums())
                for name in names:
                    setattr(into, name, getattr(into, name) + getattr(sums, name))
    return [
        Used(m, r, s.calls, TokenSums(**{n: getattr(s, n) for n in TOKEN_CLASSES}), s.amount, s.charged)
        for (m, r), s in found.items()
    ]


def billing(
    folder: Path, now: datetime = CLOSE_OF_JUNE, database: str | None = None, **settings: Any
) -> BillingApplication:
    """Billing on a database of its own in `folder`, its clock standing at `now`."""
    settings |= {"database": database} if database else {}
    return BillingApplication(Settings(var=folder, **settings), FrozenClock(now))


def set_clock(app: BillingApplication, now: datetime) -> None:
    assert isinstance(app.clock, FrozenClock)
    app.clock.now = now


def follow(app: BillingApplication, quota: Log, catalog: Log | None = None, page: int = 1000) -> int:
    """Let billing follow what it has not seen yet, in pages of `page` events; the position it reached in quota."""
    if catalog is not None:
        app.follow_catalog(catalog.page(app.catalogue.view.position))
    position = app.follow_quota([])
    while position < quota.head:
        position = app.follow_quota(quota.page(position, position + page))
    return position


def issue(app: BillingApplication, quota: Log, period: str = JUNE, operator: str = "sh-telecom", **fields: Any) -> Any:
    """One `issue_bills`, cut off at the head of quota's log unless told otherwise."""
    fields = {"operator": operator, "period": period, "quota_position": quota.head} | fields
    return app.submit("issue_bills", fields)


def accounts(quota: QuotaLog, *names: str) -> QuotaLog:
    for name in names:
        quota.open(account=name)
    return quota


def bill_of(app: BillingApplication, account: str = "a1", period: str = JUNE) -> dict[str, Any]:
    """The account's one bill for the period that is not void."""
    rows = app.bills(Bills(account=account, period=period))["bills"]
    (row,) = (row for row in rows if row["status"] != "void")
    bill: dict[str, Any] = app.bill(BillOf(number=row["number"]))["bill"]
    return bill


def kinds(bill: dict[str, Any]) -> list[tuple[str, int]]:
    return [(line["kind"], line["fen"]) for line in bill["lines"]]


def issued(log: EventLog) -> list[Bill]:
    """All bills, in the order in which they were issued."""
    return [e.event.bill for e in log.read(0, 5000) if isinstance(e.event, BillIssued)]


def overtake(patch: pytest.MonkeyPatch, slow: BillingApplication, quick: Callable[[], Any]) -> list[Any]:
    """Once, another replica commits between this one's decision and its commit. Its answer comes into the list."""
    append, answers = slow.log.append, []

    def overtaken(*arguments: Any) -> Any:
        if not answers:
            answers.append(quick())
        return append(*arguments)

    patch.setattr(slow.log, "append", overtaken)
    return answers


def bill(*lines: BillLine, **fields: Any) -> Bill:
    made: dict[str, Any] = {
        "number": "sh-telecom-2026-06-000001",
        "operator": "sh-telecom",
        "account": "a1",
        "period": "2026-06",
        "lines": lines,
        "total_fen": sum(one.fen for one in lines),
        "vat_percent": 6,
        "vat_fen": 0,
        "calls": 0,
        "tokens": 0,
        "debited": 0,
        "quota_position": 1,
        "catalog_position": 1,
    }
    return Bill(**(made | fields))
