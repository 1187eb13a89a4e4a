"""Billing's own log becomes the list of bills, credit notes, credits and statements: the projection `books`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from services.billing import subscribed
from services.billing import tables as t
from services.billing.domain.canonical import canonical_json
from services.billing.tables import add_up
from shared.contracts import billing as b
from shared.eventstore.log import LoggedEvent
from shared.eventstore.rows import insert
from shared.sharding import shard_named

BOOKS = "books"
CREDITS = "credits:"


class BooksProjection:
    """Folds billing's own log into bills, credit notes, credits and statements."""

    name = BOOKS

    def apply(self, connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
        subscribed.fold(connection, page)
        issued: dict[str, dict[str, Any]] = {}
        closed: set[tuple[str, str, int]] = set()
        changes: list[tuple[str, int, dict[str, int]]] = []
        for logged in page:
            event = logged.event
            if isinstance(event, b.BillIssued):
                issued[event.bill.number] = _bill(logged, event)
                closed.add((event.bill.operator, event.bill.period, shard_named(event.bill.quota_log)))
            elif isinstance(event, b.BillPaid):
                changes.append((event.number, logged.version, {"paid_fen": event.fen}))
            elif isinstance(event, b.CreditNoteIssued):
                changes.append((event.bill_number, logged.version, {"credited_fen": event.fen}))
                connection.execute(sa.insert(t.credit_notes).values(_note(event)))
            elif isinstance(event, b.BillVoided):
                changes.append((event.number, logged.version, {"void": 1, "void_position": logged.position}))
            elif isinstance(event, b.AccountCredited):
                connection.execute(sa.insert(t.credits).values(_credit(logged, event)))
            elif isinstance(event, b.StatementIssued):
                connection.execute(sa.insert(t.statements).values(_statement(logged, event)))
        # Before the new bills come in: one of them may take the place of one that becomes void here.
        for number, version, added in changes:
            if number in issued:
                _add(issued[number], version, added)
            else:
                _change_bill(connection, number, version, added)
        if issued:
            insert(connection, t.bills, list(issued.values()))
            rows = (
                {"operator": o, "period": p, "shard": shard, "on_time": 0, "closed": True}
                for o, p, shard in sorted(closed)
            )
            add_up(connection, t.periods, rows, take=("closed",))


def _bill(logged: LoggedEvent, event: b.BillIssued) -> dict[str, Any]:
    bill = event.bill
    return {
        "number": bill.number,
        "operator": bill.operator,
        "account": bill.account,
        "period": bill.period,
        "serial": int(bill.number.rpartition("-")[2]),
        "position": logged.position,
        "version": logged.version,
        "issued_at": event.at.isoformat(),
        "total_fen": bill.total_fen,
        "vat_fen": bill.vat_fen,
        "paid_fen": 0,
        "credited_fen": 0,
        "credit_fen": -sum(line.fen for line in bill.lines if line.kind == "credit"),
        "quota_position": bill.quota_position,
        "billing_position": bill.billing_position,
        "void": 0,
        "void_position": 0,
        "sha256": event.bill_sha256,
    }


def _add(bill: dict[str, Any], version: int, added: dict[str, int]) -> None:
    bill["version"] = version
    for name, value in added.items():
        bill[name] += value


def _change_bill(connection: sa.Connection, number: str, version: int, added: dict[str, int]) -> None:
    connection.execute(
        sa.update(t.bills)
        .where(t.bills.c.number == number)
        .values(version=version, **{name: t.bills.c[name] + value for name, value in added.items()})
    )


def _note(event: b.CreditNoteIssued) -> dict[str, Any]:
    return {
        "number": event.number,
        "operator": operator_of(event.bill_number),
        "serial": int(event.number.rpartition("-C")[2]),
        "bill_number": event.bill_number,
        "fen": event.fen,
    }


def _credit(logged: LoggedEvent, event: b.AccountCredited) -> dict[str, Any]:
    operator, account = credited_account(logged.stream)
    return {"operator": operator, "account": account, "position": logged.position, "fen": event.fen}


def credited_account(stream: str) -> tuple[str, str]:
    """Operator and account in the name of a stream of credits."""
    operator, _, account = stream.removeprefix(CREDITS).partition("/")
    return operator, account


def operator_of(number: str) -> str:
    """The operator in a bill's number, `operator-YYYY-MM-NNNNNN`; operators' names may hold dashes themselves."""
    return number.rsplit("-", 3)[0]


def _statement(logged: LoggedEvent, event: b.StatementIssued) -> dict[str, Any]:
    made = event.statement
    return {
        "period": made.period,
        "home": made.home,
        "serving": made.serving,
        "position": logged.position,
        "net_fen": made.net_fen,
        "sha256": event.statement_sha256,
        "state": canonical_json(made).decode(),
    }
