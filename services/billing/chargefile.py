"""The charge file: what a carrier's phone-bill run takes over, one record per bill.

CSV (RFC 4180, UTF-8): a header, the charges, a trailer with control totals, so that a receiver sees a
file that was cut short, doubled or changed. A period may take several files; each names the bill
after which it begins. It must not know where bills are kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FORMAT = "tokengrid-charges"
FORMAT_VERSION = 1


class Charge(NamedTuple):
    """One bill's total; `fen` may be negative (more was given back than used)."""

    number: str
    account: str
    fen: int
    vat_fen: int
    issued_at: str
    bill_sha256: str


def charge_file(operator: str, period: str, charges: Sequence[Charge], after: str = "") -> str:
    """The file's text.

    H, format, version, operator, period, currency, the number after which it begins;
    C, number, account, fen, VAT fen, issued at, bill's SHA-256; one per bill;
    T, count of C records, sum of fen, sum of VAT fen, SHA-256 over all bytes before this line.
    """
    body = _csv(
        [("H", FORMAT, FORMAT_VERSION, operator, period, "CNY", after), *(("C", *charge) for charge in charges)]
    )
    totals = (len(charges), sum(c.fen for c in charges), sum(c.vat_fen for c in charges))
    return body + _csv([("T", *totals, hashlib.sha256(body.encode()).hexdigest())])


def _csv(records: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(records)
    return text.getvalue()
