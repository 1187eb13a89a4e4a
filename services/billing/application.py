"""Billing as an application of the event store: follows quota and catalog, issues, answers questions.

It knows nothing of nameko. What is issued is an event; all tables are read models of the two logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from services.billing import reading
from services.billing import tables as t
from services.billing.answers import Happened, bill_row, issued_bill
from services.billing.books import Books
from services.billing.charging import next_charge_file
from services.billing.closes import close_status
from services.billing.cutoff import bounds
from services.billing.domain.canonical import plain, sha256_of
from services.billing.domain.rating import Account
from services.billing.domain.settlement import settlement
from services.billing.domain.subscription import Subscription, Subscriptions
from services.billing.drafts import draft_bills
from services.billing.earlier import credit_left
from services.billing.focus.pages import focus_page
from services.billing.focus.rows import focus_csv
from services.billing.page import render_bill
from services.billing.questions import (
    BillOf,
    BillPage,
    Bills,
    ChargeFile,
    CloseStatus,
    DraftBills,
    Focus,
    Settlement,
    Statements,
    SubscriptionsOf,
    UsageOf,
)
from services.billing.renewal import Done, Renewal, Send
from services.billing.runs import bill_of, check_operator
from services.billing.subscribers import stream_of
from services.billing.usage import UsageProjection, projection_name
from shared.catalogue.copy import CatalogueCopy
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.contracts import billing as b
from shared.contracts.base import Command
from shared.contracts.catalog import Operator
from shared.errors import UnknownAccount, UnknownBill
from shared.eventstore.application import RoomApplication
from shared.eventstore.intake import Intake, named
from shared.eventstore.log import LoggedEvent
from shared.eventstore.projection import Projector
from shared.eventstore.writer import Writer
from shared.sharding import log_of


class BillingApplication(RoomApplication):
    """Billing's database, its log, and what it follows."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        super().__init__("billing", settings, clock)
        self.catalogue = CatalogueCopy(self.engine)
        # One for each shard of quota: none waits for another.
        self.usage_projectors = [Projector(self.engine, UsageProjection(log)) for log in settings.logs("quota")]
        self.books = Books(self.engine, self.log, self.catalogue, settings, clock)
        self.writer: Writer[Command] = self.writer_for(self.books, self.log.head())
        self.intake = Intake(self.writer, _read, settings.batch_max)
        self.renewal = Renewal(self.engine, self.writer, settings, clock, self.books.catch_up)

    # --- following -----------------------------------------------------------------------------
    def follow_quota(self, page: Sequence[LoggedEvent | Mapping[str, Any]], shard: int = 0) -> int:
        """Take a page of quota's log, or of a shard's; the position then reached."""
        projector = self.usage_projectors[shard]
        if not page:
            return projector.position()
        self.books.catch_up()  # what is billed already decides where late usage goes
        return projector.apply(page)

    def follow_catalog(self, page: Sequence[LoggedEvent | Mapping[str, Any]]) -> int:
        """Take a page of the catalog's log; the position then reached."""
        return self.catalogue.follow(page)

    # --- commands ------------------------------------------------------------------------------
    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        return self.intake.submit(name, fields)

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order, one transaction."""
        return self.intake.execute(commands)

    def dry_run(self, query: b.DryRun) -> dict[str, Any]:
        """The bill as it would be now, without a number."""
        bounds(query.period)
        self.books.catch_up()
        log = self._log_of(query.operator, query.account)
        with reading.snapshot(self.engine) as connection:
            account = self._account(connection, query.operator, query.account)
            followed = reading.followed(connection, projection_name(log))
            (found,) = reading.inputs(connection, query.operator, query.period, followed, [account])
        bill = bill_of(found, query.period, self.catalogue.view, followed, log)
        return {"bill": plain(bill), "bill_sha256": sha256_of(bill)}

    def draft_bills(self, query: DraftBills) -> dict[str, Any]:
        """The bills that would be issued next, without numbers."""
        self.books.catch_up()
        with reading.snapshot(self.engine) as connection:
            return draft_bills(connection, query, self.settings.logs("quota"), self.catalogue.view)

    def renew(self, send: Send) -> Done:
        """A round of what subscriptions have due; see `Renewal.work`."""
        return self.renewal.work(send)

    # --- questions -----------------------------------------------------------------------------
    def subscriptions(self, query: SubscriptionsOf) -> dict[str, Any]:
        """What an account has subscribed to, and how it stands now."""
        now = self.clock()
        self.books.catch_up()
        with reading.snapshot(self.engine) as connection:
            self._account(connection, query.operator, query.account)
            credit_fen = credit_left(connection, query.operator, query.account)
        state = Subscriptions()
        for logged in self.log.whole_stream(stream_of(query.operator, query.account)):
            state.evolve(logged.version, logged.event)
        return {"subscriptions": [_shown(each, now) for each in state.by_name.values()], "credit_fen": credit_fen}

    def bill(self, query: BillOf) -> dict[str, Any]:
        """An issued bill and what happened to it, from the log itself."""
        first, later = self._bill_stream(query.number)
        return issued_bill(first, later)

    def bill_page(self, query: BillPage) -> dict[str, Any]:
        """An issued bill as a printable page."""
        first, later = self._bill_stream(query.number)
        issued = first.event
        assert isinstance(issued, b.BillIssued)
        bill = issued.bill
        with self.engine.connect() as connection:
            daily = reading.daily_usage(connection, bill.operator, bill.account, bill.period, bill.quota_position)
        operator = self.catalogue.view.in_force(Operator, bill.operator, issued.at)
        happened = Happened(bill.total_fen, later)
        html = render_bill(
            issued,
            daily,
            operator_name=operator.item.name if operator else bill.operator,
            credit_notes=happened.notes,
            paid_fen=happened.paid_fen,
            void=happened.void,
        )
        return {"html": html}

    def bills(self, query: Bills) -> dict[str, Any]:
        """Issued bills without their lines."""
        self.books.catch_up()
        limit = self._page(query.limit)
        asked = sa.select(t.bills).where(t.bills.c.number > query.after).order_by(t.bills.c.number).limit(limit + 1)
        for name in ("operator", "account", "period"):
            if (value := getattr(query, name)) is not None:
                asked = asked.where(t.bills.c[name] == value)
        with self.engine.connect() as connection:
            rows = connection.execute(asked).mappings().all()
        shown = [bill_row(row, self._log_of(row["operator"], row["account"])) for row in rows[:limit]]
        return {"bills": shown, "more": len(rows) > limit}

    def charge_file(self, query: ChargeFile) -> dict[str, Any]:
        """The next charge file of a period. Raises UnknownOperator."""
        self.books.catch_up()
        with reading.snapshot(self.engine) as connection:
            check_operator(connection, query.operator, self.catalogue.view)
            return next_charge_file(connection, query, self._page(query.limit))

    def close_status(self, query: CloseStatus) -> dict[str, Any]:
        """How far the close of a period has come."""
        bounds(query.period)
        self.books.catch_up()
        with reading.snapshot(self.engine) as connection:
            if query.operator is not None:
                check_operator(connection, query.operator, self.catalogue.view)
            return close_status(connection, query.period, self.settings.logs("quota"), query.operator)

    def focus(self, query: Focus) -> dict[str, Any]:
        """The next rows of a period in FOCUS. Raises UnknownOperator."""
        self.books.catch_up()
        limit = min(max(query.limit, 1), self.settings.page_max)
        view = self.catalogue.view
        if query.operator is not None:
            with self.engine.connect() as connection:
                check_operator(connection, query.operator, view)
        page = focus_page(self.engine, self.log, view, query.operator, query.period, query.after, limit)
        return {"csv": focus_csv(page.rows), "count": len(page.rows), "last": page.last, "more": page.more}

    def statements(self, query: Statements) -> dict[str, Any]:
        """Issued statements with their lines."""
        self.books.catch_up()
        c = t.statements.c
        limit = self._page(query.limit)
        home, _, serving = query.after.partition("/")
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.select(c.state, c.sha256, c.position)
                .where(c.period == query.period, (c.home > home) | ((c.home == home) & (c.serving > serving)))
                .order_by(c.home, c.serving)
                .limit(limit + 1)
            ).all()
        found = [
            {"statement": msgspec.json.decode(state), "statement_sha256": sha256, "position": position}
            for state, sha256, position in rows[:limit]
        ]
        return {"statements": found, "more": len(rows) > limit}

    def settlement(self, query: Settlement) -> dict[str, Any]:
        """What each operator owes each other for a period, and what is left after netting."""
        self.books.catch_up()
        c = t.statements.c
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(c.home, c.serving, c.net_fen).where(c.period == query.period)).all()
        return {"period": query.period, **settlement((home, serving, net) for home, serving, net in rows)}

    def usage(self, query: UsageOf) -> dict[str, Any]:
        """An account's usage by day and model, as followed up to now."""
        log = self._log_of(query.operator, query.account)
        with reading.snapshot(self.engine) as connection:
            self._account(connection, query.operator, query.account)
            followed = reading.followed(connection, projection_name(log))
            days = reading.daily_usage(connection, query.operator, query.account, query.period, followed)
        return {"days": days, "quota_position": followed, "quota_log": log}

    def status(self) -> dict[str, Any]:
        """How far everything is followed."""
        shards = [projector.position() for projector in self.usage_projectors]
        followed = {"quota": sum(shards), "quota_shards": shards, "catalog": self.catalogue.view.position}
        return {"head": self.log.head(), "followed": followed}

    def _log_of(self, operator: str, account: str) -> str:
        return log_of(operator, account, self.settings.quota_shards)

    def _account(self, connection: sa.Connection, operator: str, name: str) -> Account:
        account = reading.account(connection, operator, name)
        if account is None:
            raise UnknownAccount(f"no account {operator}/{name}", {"operator": operator, "account": name})
        return account

    def _bill_stream(self, number: str) -> tuple[LoggedEvent, list[Any]]:
        events = self.log.stream(f"bill:{number}")
        if not events:
            raise UnknownBill(f"no bill {number!r}", {"number": number})
        return events[0], [logged.event for logged in events[1:]]

    def _page(self, limit: int) -> int:
        return min(max(limit, 1), self.settings.page_max)


def _shown(subscription: Subscription, now: datetime) -> dict[str, Any]:
    shown = subscription.running(now) or subscription.last
    return {
        "subscription": subscription.name,
        "plan": shown.started.plan if shown is not None else subscription.plan,
        "status": subscription.status(now),
        "period": shown.number if shown is not None else 0,
        "starts_at": shown.starts_at.isoformat() if shown is not None else None,
        "ends_at": shown.ends_at.isoformat() if shown is not None else None,
        "next_plan": subscription.turns[-1][1] if subscription.turns else "",
    }


def _read(name: Any, fields: Any) -> Command:
    """A dry run is a question, although it is published beside the commands."""
    return named("billing", None if name == b.DryRun.NAME else name, fields)
