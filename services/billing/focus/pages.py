"""The FOCUS rows of a period, page by page: its bills that stand, then the credit notes that were issued in it.

Reads the list of bills and the log; decides nothing about a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from services.billing import tables as t
from services.billing.focus.rows import Row, bill_rows, credit_note_row
from shared.catalogue.view import CatalogueView
from shared.clock import period_of
from shared.contracts import billing as b
from shared.contracts.catalog import Operator
from shared.eventstore.log import EventLog


class Page(NamedTuple):
    """`last`: number of the last bill or credit note looked at, behind which the next page begins."""

    rows: list[Row]
    last: str
    more: bool


def focus_page(
    engine: sa.Engine, log: EventLog, view: CatalogueView, operator: str | None, period: str, after: str, limit: int
) -> Page:
    """At most `limit` bills and credit notes behind the number `after`, in order of their numbers, bills first."""
    with engine.connect() as connection:
        bills = [] if _is_note(after) else _bills(connection, operator, period, after, limit + 1)
        left = limit - len(bills)
        notes = _notes(connection, operator, after if _is_note(after) else "", left + 1) if left >= 0 else []
    more = len(bills) > limit or len(notes) > left
    bills, notes = bills[:limit], notes[: max(0, left)]

    issued = log.streams({f"bill:{row.number}": 0 for row in bills}, 1)
    rows: list[Row] = []
    for row in bills:
        event = issued[f"bill:{row.number}"][0].event
        assert isinstance(event, b.BillIssued)
        rows += bill_rows(event.bill, _name(view, row.operator, event))
    for row in notes:
        # Credit notes are few and their list has no date: each is looked up, and kept if it is of the period.
        event = _note(log, row.bill_number, row.number)
        if period_of(event.at) == period:
            name = _name(view, row.operator, event)
            rows.append(credit_note_row(event, row.operator, row.account, row.period, name))
    numbers = [row.number for row in (*bills, *notes)]
    return Page(rows, numbers[-1] if numbers else after, more)


def _is_note(number: str) -> bool:
    return number.rpartition("-")[2].startswith("C")


def _bills(connection: sa.Connection, operator: str | None, period: str, after: str, limit: int) -> list[Any]:
    c = t.bills.c
    asked = sa.select(c.number, c.operator).where(c.period == period, c.number > after, t.STANDS)
    if operator is not None:
        asked = asked.where(c.operator == operator)
    return list(connection.execute(asked.order_by(c.number).limit(limit)))


def _notes(connection: sa.Connection, operator: str | None, after: str, limit: int) -> list[Any]:
    c, bills = t.credit_notes.c, t.bills.c
    asked = (
        sa.select(c.number, c.operator, c.bill_number, bills.account, bills.period)
        .join_from(t.credit_notes, t.bills, c.bill_number == bills.number)
        .where(c.number > after)
    )
    if operator is not None:
        asked = asked.where(c.operator == operator)
    return list(connection.execute(asked.order_by(c.number).limit(limit)))


def _note(log: EventLog, bill_number: str, number: str) -> b.CreditNoteIssued:
    for logged in log.whole_stream(f"bill:{bill_number}", 1):
        event = logged.event
        if isinstance(event, b.CreditNoteIssued) and event.number == number:
            return event
    raise AssertionError(f"the log has no credit note {number}, and its list does")


def _name(view: CatalogueView, operator: str, event: b.BillIssued | b.CreditNoteIssued) -> str:
    found = view.in_force(Operator, operator, event.at)
    name = found.item.name if found else ""
    return name if name.strip() else operator
