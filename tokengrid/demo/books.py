"""What the month came to: the bills and statements that were issued, and hashes over them and over all debits.

It must not know how a bill is made up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from shared.contracts import billing as b
from shared.contracts import quota as q
from shared.messaging.client import Client
from tokengrid.demo.market import log_of


class Books(NamedTuple):
    """What was issued: the bills of the demo's accounts by account, and the statements."""

    bills: dict[tuple[str, str], b.BillIssued]
    statements: list[b.StatementIssued]


def read_books(client: Client, accounts: set[tuple[str, str]], period: str) -> Books:
    """The issued bills and statements of the period, from billing's own log."""
    books = Books({}, [])
    for logged in log_of(client, "billing"):
        event = logged.event
        if isinstance(event, b.BillIssued) and event.bill.period == period:
            account = (event.bill.operator, event.bill.account)
            if account in accounts:
                books.bills[account] = event
        elif isinstance(event, b.StatementIssued) and event.statement.period == period:
            books.statements.append(event)
    return books


class DebitsDigest:
    """A hash over all debits: each account's in their order, the accounts sorted. What the clock of this run
    or other accounts' events have put into a record (`recorded_at`, positions) is left out."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self.count = 0

    def add(self, stream: str, debit: q.TokensDebited) -> None:
        fields = msgspec.to_builtins(debit)
        del fields["recorded_at"]
        self._streams.setdefault(stream, hashlib.sha256()).update(msgspec.json.encode(fields, order="sorted") + b"\n")
        self.count += 1

    def hexdigest(self) -> str:
        whole = hashlib.sha256()
        for stream in sorted(self._streams):
            whole.update(f"{stream} {self._streams[stream].hexdigest()}\n".encode())
        return whole.hexdigest()


def bills_digest(bills: dict[tuple[str, str], b.BillIssued]) -> str:
    """A hash over the bills' own hashes, in the order of the accounts."""
    whole = hashlib.sha256()
    for account in sorted(bills):
        whole.update(f"{'/'.join(account)} {bills[account].bill_sha256}\n".encode())
    return whole.hexdigest()


def most_interesting(bills: Iterable[b.BillIssued]) -> b.BillIssued:
    """The bill with most to see: kinds of lines, then lines, then the amount; the first account of equals."""
    return min(
        bills,
        key=lambda issued: (
            -len({line.kind for line in issued.bill.lines}),
            -len(issued.bill.lines),
            -issued.bill.total_fen,
            issued.bill.operator,
            issued.bill.account,
        ),
    )
