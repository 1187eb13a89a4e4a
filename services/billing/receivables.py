"""What happens to issued bills and accounts' credits: payments, credit notes, bills made void, credits granted.

A part of the writer's memory: what a batch is about is loaded in one snapshot, and folded as the batch decides. It
must not know how bills are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.billing import reading
from services.billing import tables as t
from services.billing.cutoff import malformed
from services.billing.readmodel import CREDITS, credited_account, operator_of
from shared.config import Settings
from shared.contracts import billing as b
from shared.contracts.base import Event
from shared.errors import BillSettled, BillVoid, LimitExceeded, UnknownAccount, UnknownBill
from shared.eventstore.intake import occurred
from shared.eventstore.log import NewEvent
from shared.units import AMOUNT_MAX

OfBill = b.Pay | b.Credit | b.Void


class BillState:
    """What decides on what may happen to an issued bill. `later`: the account's bills that were made after it and
    stand, known where the bill is to become void."""

    def __init__(self, row: Any) -> None:
        self.version: int = row.version
        self.position: int = row.position
        self.owner: tuple[str, str] = (row.operator, row.account)
        self.total_fen: int = row.total_fen
        self.paid_fen: int = row.paid_fen
        self.credited_fen: int = row.credited_fen
        self.void: bool = row.void == 1
        self.later: set[str] = set()

    @property
    def due_fen(self) -> int:
        return self.total_fen - self.credited_fen - self.paid_fen


class Credits:
    """All that an account was ever credited; `version`: of their stream."""

    def __init__(self, version: int, fen: int) -> None:
        self.version = version
        self.fen = fen


class Receivables:
    """The bills and credits that a batch of commands is about. `voided`: numbers of the bills that it made void."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.drop()

    def drop(self) -> None:
        self._bills: dict[str, BillState] = {}
        self._notes: dict[str, int] = {}  # operator -> serial of its last credit note
        self._credits: dict[tuple[str, str], Credits] = {}
        self.voided: list[str] = []

    def load(self, connection: sa.Connection, command: OfBill | b.GrantCredit) -> None:
        """What decides on a command."""
        if isinstance(command, b.GrantCredit):
            self._load_credits(connection, command.operator, command.account)
        else:
            self._load_bill(connection, command.number, with_later=isinstance(command, b.Void))

    def decide(self, command: OfBill | b.GrantCredit, fingerprint: str, now: datetime) -> list[NewEvent]:
        """What happens. Raises UnknownBill, BillVoid, BillSettled, UnknownAccount, LimitExceeded, MalformedCommand."""
        if not isinstance(command, b.Void) and not command.fen:
            raise malformed("fen", "must not be 0" if isinstance(command, b.Pay) else "must be at least 1")
        asked = {
            "at": occurred(command.occurred_at, now, self._settings),
            "recorded_at": now,
            "request_id": command.request_id,
            "fingerprint": fingerprint,
        }
        if isinstance(command, b.GrantCredit):
            return [self._grant_credit(command, asked)]
        state = self._bills.get(command.number)
        if state is None:
            raise UnknownBill(f"no bill {command.number!r}", {"number": command.number})
        if state.void:
            raise BillVoid(f"the bill {command.number} is void", {"number": command.number})
        event: Event
        match command:
            case b.Pay():
                event = self._pay(command, state, asked)
            case b.Credit():
                event = self._credit(command, state, asked)
            case b.Void():
                event = self._void(command, state, asked)
        return [NewEvent(f"bill:{command.number}", state.version + 1, event)]

    def evolve(self, stream: str, version: int, event: Event) -> None:
        """Fold one event of what is loaded."""
        if isinstance(event, b.BillIssued):
            owner = (event.bill.operator, event.bill.account)
            for other in self._bills.values():
                if other.owner == owner:
                    other.later.add(event.bill.number)
        elif isinstance(event, b.AccountCredited):
            credits = self._credits.get(credited_account(stream))
            if credits is not None and version == credits.version + 1:
                credits.version, credits.fen = version, credits.fen + event.fen
        elif isinstance(event, b.BillPaid | b.CreditNoteIssued | b.BillVoided):
            number = stream.partition(":")[2]
            state = self._bills.get(number)
            if state is not None and version == state.version + 1:
                self._happen(number, state, version, event)

    def _happen(
        self, number: str, state: BillState, version: int, event: b.BillPaid | b.CreditNoteIssued | b.BillVoided
    ) -> None:
        state.version = version
        match event:
            case b.BillPaid():
                state.paid_fen += event.fen
            case b.CreditNoteIssued():
                state.credited_fen += event.fen
                self._notes[operator_of(number)] += 1
            case b.BillVoided():
                state.void = True
                self.voided.append(number)
                for other in self._bills.values():
                    other.later.discard(number)

    # --- loading -----------------------------------------------------------------------------------
    def _load_bill(self, connection: sa.Connection, number: str, with_later: bool) -> None:
        c = t.bills.c
        if number not in self._bills:
            columns = (c.version, c.operator, c.account, c.position, c.total_fen, c.paid_fen, c.credited_fen, c.void)
            row = connection.execute(sa.select(*columns).where(c.number == number)).one_or_none()
            if row is None:
                return
            self._bills[number] = BillState(row)
            operator = operator_of(number)
            if operator not in self._notes:
                self._notes[operator] = reading.last_serial(connection, t.credit_notes, operator)
        if with_later:
            state = self._bills[number]
            operator, account = state.owner
            after = (c.operator == operator, c.account == account, c.position > state.position, t.STANDS)
            state.later.update(connection.execute(sa.select(c.number).where(*after)).scalars())

    def _load_credits(self, connection: sa.Connection, operator: str, account: str) -> None:
        if reading.account(connection, operator, account) is None:
            return
        c = t.credits.c
        count, fen = connection.execute(
            sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(c.fen), 0)).where(
                c.operator == operator, c.account == account
            )
        ).one()
        self._credits[operator, account] = Credits(count, int(fen))

    # --- deciding ----------------------------------------------------------------------------------
    def _pay(self, command: b.Pay, state: BillState, asked: Mapping[str, Any]) -> Event:
        due = state.due_fen
        if command.fen * due <= 0 or abs(command.fen) > abs(due):
            raise LimitExceeded(f"{due} fen are due on {command.number}", {"limit": due, "number": command.number})
        return b.BillPaid(**asked, number=command.number, fen=command.fen)

    def _credit(self, command: b.Credit, state: BillState, asked: Mapping[str, Any]) -> Event:
        left = max(0, state.total_fen - state.credited_fen)
        if command.fen > left:
            raise LimitExceeded(
                f"{left} fen of {command.number} can still be credited", {"limit": left, "number": command.number}
            )
        head, _, _ = command.number.rpartition("-")
        serial = self._notes[operator_of(command.number)] + 1
        return b.CreditNoteIssued(
            **asked,
            number=f"{head}-C{serial:06d}",
            bill_number=command.number,
            fen=command.fen,
            reason=command.reason,
        )

    def _void(self, command: b.Void, state: BillState, asked: Mapping[str, Any]) -> Event:
        if state.paid_fen or state.credited_fen:
            details = {"number": command.number, "paid_fen": state.paid_fen, "credited_fen": state.credited_fen}
            raise BillSettled(f"something was paid or credited on {command.number}", details)
        # A later bill carries what came late for this one's period: with this one gone, its successor would, too.
        if state.later:
            later = sorted(state.later)
            raise BillSettled(
                f"a later bill of the account goes on from {command.number}: {later[-1]}",
                {"number": command.number, "later": later},
            )
        return b.BillVoided(**asked, number=command.number, reason=command.reason)

    def _grant_credit(self, command: b.GrantCredit, asked: Mapping[str, Any]) -> NewEvent:
        operator, account = command.operator, command.account
        credits = self._credits.get((operator, account))
        if credits is None:
            raise UnknownAccount(f"no account {operator}/{account}", {"operator": operator, "account": account})
        if credits.fen + command.fen > AMOUNT_MAX:
            left = AMOUNT_MAX - credits.fen
            raise LimitExceeded(f"at most {left} fen can still be credited to {operator}/{account}", {"limit": left})
        event = b.AccountCredited(**asked, fen=command.fen, reason=command.reason)
        return NewEvent(f"{CREDITS}{operator}/{account}", credits.version + 1, event)
