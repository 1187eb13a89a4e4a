"""Bills as they are answered: what was issued and what happened to it since, and in how much detail.

Pure; it must not know where bills are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.billing.domain.canonical import plain
from shared.contracts import billing as b
from shared.contracts.base import Event
from shared.eventstore.log import LoggedEvent

ROW = ("number", "operator", "account", "period", "issued_at", "total_fen", "vat_fen", "paid_fen", "credited_fen")


class Happened:
    """What happened to an issued bill, in order of time. `void`: that it was made void, if it was."""

    def __init__(self, total_fen: int, later: Sequence[Event]) -> None:
        self.payments = [e for e in later if isinstance(e, b.BillPaid)]
        self.notes = [e for e in later if isinstance(e, b.CreditNoteIssued)]
        self.void = next((e for e in later if isinstance(e, b.BillVoided)), None)
        self.paid_fen = sum(payment.fen for payment in self.payments)
        self.credited_fen = sum(note.fen for note in self.notes)
        self.due_fen = due_fen(total_fen, self.paid_fen, self.credited_fen, self.void is not None)


def due_fen(total_fen: int, paid_fen: int, credited_fen: int, void: bool) -> int:
    """What is still to be paid, negative where something is to be paid out. Of a void bill: nothing."""
    return 0 if void else total_fen - credited_fen - paid_fen


def status(due_fen: int, void: bool) -> str:
    """`void`; `paid`, where nothing is due (any more); else `issued`."""
    return "void" if void else "issued" if due_fen else "paid"


def issued_bill(first: LoggedEvent, later: Sequence[Event]) -> dict[str, Any]:
    """A bill and all that happened to it, from its stream."""
    issued = first.event
    assert isinstance(issued, b.BillIssued)
    happened = Happened(issued.bill.total_fen, later)
    void = happened.void
    return {
        "bill": plain(issued.bill),
        "bill_sha256": issued.bill_sha256,
        "issued_at": issued.at.isoformat(),
        "position": first.position,
        "payments": [{"at": p.at.isoformat(), "request_id": p.request_id, "fen": p.fen} for p in happened.payments],
        "credit_notes": [
            {"at": n.at.isoformat(), "number": n.number, "fen": n.fen, "reason": n.reason} for n in happened.notes
        ],
        "void": void and {"at": void.at.isoformat(), "request_id": void.request_id, "reason": void.reason},
        "status": status(happened.due_fen, void is not None),
        "paid_fen": happened.paid_fen,
        "credited_fen": happened.credited_fen,
        "due_fen": happened.due_fen,
    }


def bill_row(row: Any, quota_log: str) -> dict[str, Any]:
    """A row (by names) of the table of bills, without the bill's lines. `quota_log`: the log that has the account."""
    void = row["void"] == 1
    due = due_fen(row["total_fen"], row["paid_fen"], row["credited_fen"], void)
    shown = {name: row[name] for name in (*ROW, "quota_position", "sha256")}
    return shown | {"quota_log": quota_log, "status": status(due, void)}
