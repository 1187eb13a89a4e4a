"""Billing as an application of the event store: follows quota and catalog, issues, answers questions.

It knows nothing of nameko. What is issued is an event; all tables are read models of the two logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from services.billing import reading
from services.billing import tables as t
from services.billing.books import Books
from services.billing.chargefile import Charge, charge_file
from services.billing.cutoff import bounds
from services.billing.domain.canonical import plain, sha256_of
from services.billing.domain.rating import Account, rate
from services.billing.domain.settlement import settlement
from services.billing.page import render_bill
from services.billing.schemas import BillOf, BillPage, Bills, ChargeFile, Settlement, Statements, UsageOf
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
        bill = rate(
            account,
            query.period,
            self.catalogue.view,
            followed,
            log,
            grants=found.grants,
            usage=found.usage,
            late=found.late,
        )
        return {"bill": plain(bill), "bill_sha256": sha256_of(bill)}

    # --- questions -----------------------------------------------------------------------------
    def bill(self, query: BillOf) -> dict[str, Any]:
        """An issued bill and what happened to it, from the log itself."""
        first, later = self._bill_stream(query.number)
        payments = [e for e in later if isinstance(e, b.BillPaid)]
        notes = [e for e in later if isinstance(e, b.CreditNoteIssued)]
        paid, credited = sum(p.fen for p in payments), sum(n.fen for n in notes)
        issued = first.event
        assert isinstance(issued, b.BillIssued)
        return {
            "bill": plain(issued.bill),
            "bill_sha256": issued.bill_sha256,
            "issued_at": issued.at.isoformat(),
            "position": first.position,
            "payments": [{"at": p.at.isoformat(), "request_id": p.request_id, "fen": p.fen} for p in payments],
            "credit_notes": [
                {"at": n.at.isoformat(), "number": n.number, "fen": n.fen, "reason": n.reason} for n in notes
            ],
            "paid_fen": paid,
            "credited_fen": credited,
            "due_fen": issued.bill.total_fen - credited - paid,
        }

    def bill_page(self, query: BillPage) -> dict[str, Any]:
        """An issued bill as a printable page."""
        first, later = self._bill_stream(query.number)
        issued = first.event
        assert isinstance(issued, b.BillIssued)
        bill = issued.bill
        with self.engine.connect() as connection:
            daily = reading.daily_usage(connection, bill.operator, bill.account, bill.period, bill.quota_position)
        operator = self.catalogue.view.in_force(Operator, bill.operator, issued.at)
        html = render_bill(
            issued,
            daily,
            operator_name=operator.item.name if operator else bill.operator,
            credit_notes=[e for e in later if isinstance(e, b.CreditNoteIssued)],
            paid_fen=sum(e.fen for e in later if isinstance(e, b.BillPaid)),
        )
        return {"html": html}

    def bills(self, query: Bills) -> dict[str, Any]:
        """Issued bills without their lines."""
        rows, more = self._bills_page(query.operator, query.account, query.period, query.after, query.limit)
        columns = ("number", "operator", "account", "period", "issued_at", "total_fen", "vat_fen", "paid_fen")
        return {
            "bills": [
                {name: row[name] for name in (*columns, "credited_fen", "quota_position", "sha256")}
                | {"quota_log": self._log_of(row["operator"], row["account"])}
                for row in rows
            ],
            "more": more,
        }

    def charge_file(self, query: ChargeFile) -> dict[str, Any]:
        """The next charge file of a period."""
        rows, more = self._bills_page(query.operator, None, query.period, query.after, query.limit)
        charges = [
            Charge(r["number"], r["account"], r["total_fen"], r["vat_fen"], r["issued_at"], r["sha256"]) for r in rows
        ]
        return {
            "csv": charge_file(query.operator, query.period, charges, query.after),
            "count": len(charges),
            "sum_fen": sum(charge.fen for charge in charges),
            "last": charges[-1].number if charges else query.after,
            "more": more,
        }

    def statements(self, query: Statements) -> dict[str, Any]:
        """Issued statements with their lines."""
        self.books.catch_up()
        c = t.statements.c
        limit = min(max(query.limit, 1), self.settings.page_max)
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

    def _bills_page(
        self, operator: str | None, account: str | None, period: str | None, after: str, limit: int
    ) -> tuple[list[Mapping[str, Any]], bool]:
        self.books.catch_up()
        limit = min(max(limit, 1), self.settings.page_max)
        asked = sa.select(t.bills).where(t.bills.c.number > after).order_by(t.bills.c.number).limit(limit + 1)
        for column, value in ((t.bills.c.operator, operator), (t.bills.c.account, account), (t.bills.c.period, period)):
            if value is not None:
                asked = asked.where(column == value)
        with self.engine.connect() as connection:
            rows = [row._mapping for row in connection.execute(asked)]
        return rows[:limit], len(rows) > limit  # type: ignore[return-value]


def _read(name: Any, fields: Any) -> Command:
    """A dry run is a question, although it is published beside the commands."""
    return named("billing", None if name == b.DryRun.NAME else name, fields)
