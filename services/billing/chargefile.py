"""The charge file: what a carrier's phone-bill run takes over, one record per bill.

CSV (RFC 4180, UTF-8): a header, the charges, a trailer with control totals, so that a receiver sees a
file that was cut short, doubled or changed. A period may take several files; each names the bill
after which it begins. A bill that has become void since it may have been charged is told as such, once. It must
not know where bills are kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FORMAT = "tokengrid-charges"
FORMAT_VERSION = 1
WITH_VOIDS = 2  # the same with V records: a receiver that does not know them must not take the file over
CURRENCY = "CNY"


class Charge(NamedTuple):
    """One bill's total, to be charged or to be taken back; `fen` may be negative (more was given back than used)."""

    number: str
    account: str
    fen: int
    vat_fen: int
    issued_at: str
    bill_sha256: str


def charge_file(
    operator: str,
    period: str,
    charges: Sequence[Charge],
    after: str = "",
    voids: Sequence[Charge] = (),
    voids_after: int = 0,
) -> str:
    """The file's text.

    H, format, version, operator, period, currency, the number after which it begins;
    C, number, account, fen, VAT fen, issued at, bill's SHA-256; one per bill;
    T, count of C records, sum of fen, sum of VAT fen, SHA-256 over all bytes before this line.

    With voids it is of version 2: H ends with the position after which they were made void; behind the C records
    V, number, account, fen, VAT fen, issued at, bill's SHA-256; one per bill, as it was charged: to be taken back, and
    nothing if it was not charged. In T, count and both sums of V records stand behind those of the C records.
    """
    version = (WITH_VOIDS, operator, period, CURRENCY, after, voids_after) if voids else (
        FORMAT_VERSION, operator, period, CURRENCY, after,
    )  # fmt: skip
    records = [("H", FORMAT, *version), *(("C", *c) for c in charges), *(("V", *v) for v in voids)]
    body = _csv(records)
    totals = _totals(charges) + (_totals(voids) if voids else ())
    return body + _csv([("T", *totals, hashlib.sha256(body.encode()).hexdigest())])


def _totals(charges: Sequence[Charge]) -> tuple[int, ...]:
    return len(charges), sum(c.fen for c in charges), sum(c.vat_fen for c in charges)


def _csv(records: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(records)
    return text.getvalue()
