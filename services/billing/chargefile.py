"""The charge file: what a carrier's phone-bill run takes over, one record per bill; and its receiver's check.

CSV (RFC 4180, UTF-8): a header, the charges, a trailer with control totals, so that a receiver sees a
file that was cut short, doubled or changed. A period may take several files; each names the bill
after which it begins. It must not know where bills are kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

FORMAT = "tokengrid-charges"
FORMAT_VERSION = 1
CURRENCY = "CNY"
NO_CSV = "no CSV"
_FIELDS = {"H": 7, "C": 7, "T": 5}
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})\Z")


class Charge(NamedTuple):
    """One bill's total; `fen` may be negative (more was given back than used)."""

    number: str
    account: str
    fen: int
    vat_fen: int
    issued_at: str
    bill_sha256: str


class Finding(NamedTuple):
    """`line`: of the file, where the record begins."""

    line: int
    message: str


def charge_file(operator: str, period: str, charges: Sequence[Charge], after: str = "") -> str:
    """The file's text.

    H, format, version, operator, period, currency, the number after which it begins;
    C, number, account, fen, VAT fen, issued at, bill's SHA-256; one per bill;
    T, count of C records, sum of fen, sum of VAT fen, SHA-256 over all bytes before this line.
    """
    body = _csv(
        [("H", FORMAT, FORMAT_VERSION, operator, period, CURRENCY, after), *(("C", *charge) for charge in charges)]
    )
    totals = (len(charges), sum(c.fen for c in charges), sum(c.vat_fen for c in charges))
    return body + _csv([("T", *totals, hashlib.sha256(body.encode()).hexdigest())])


def _csv(records: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(records)
    return text.getvalue()


def check_charge_file(text: str) -> list[Finding]:
    """What is wrong with a charge file as received, line ends and all; nothing if it is whole and unchanged.

    A file that was cut has no trailer, or another count than it says; one that was doubled or put together has a
    header, trailer or bill twice, or bills out of order; one that was changed has other sums, or another hash.
    """
    records = list(_records(text))
    findings = [Finding(line, "; ".join(said)) for line, fields in records if (said := list(_wrong(fields)))]
    kinds = [fields[0] for _, fields in records]
    if kinds[:1] != ["H"]:
        findings.append(Finding(1, "the file does not begin with its header"))
    if kinds[-1:] != ["T"]:
        findings.append(Finding(records[-1][0] if records else 1, "cut: the file does not end with its trailer"))
    findings += (Finding(records[at][0], "a second header") for at in range(1, len(kinds)) if kinds[at] == "H")
    findings += (Finding(records[at][0], "a trailer inside") for at in range(len(kinds) - 1) if kinds[at] == "T")
    if not findings:
        findings += _order(records)
        findings += _totals(text, records)
    return sorted(findings)


Record = tuple[int, list[str]]


def _records(text: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader) or [""]
        except StopIteration:
            return
        except csv.Error:
            yield line, [NO_CSV]
            return


def _wrong(fields: Sequence[str]) -> Iterator[str]:
    kind = fields[0]
    if kind == NO_CSV:
        yield "no CSV from here on"
    elif kind not in _FIELDS:
        yield f"no record begins with {kind!r}"
    elif len(fields) != _FIELDS[kind]:
        yield f"a record {kind} has {_FIELDS[kind]} fields, not {len(fields)}"
    elif kind == "H":
        given = tuple(fields[at] for at in (1, 2, 5))
        known = (FORMAT, str(FORMAT_VERSION), CURRENCY)
        if given != known:
            yield f"format, version and currency are {', '.join(given)}, not {', '.join(known)}"
    else:
        numbers = fields[3:5] if kind == "C" else fields[1:4]
        yield from (f"{number!r} is no whole number" for number in numbers if not _INTEGER.match(number))


def _order(records: Sequence[Record]) -> Iterator[Finding]:
    """Bills stand in the order of their numbers, behind the one that the header names."""
    _, header = records[0]
    before = header[6]
    for line, charge in records[1:-1]:
        number = charge[1]
        if number == before:
            yield Finding(line, f"doubled: {number} was there before")
        elif number < before:
            yield Finding(line, f"{number} stands behind {before}")
        before = number


def _totals(text: str, records: Sequence[Record]) -> Iterator[Finding]:
    line, trailer = records[-1]
    charges = [charge for _, charge in records[1:-1]]
    sums = (len(charges), *(sum(int(charge[at]) for charge in charges) for at in (3, 4)))
    for name, found, said in zip(("count", "sum of fen", "sum of VAT fen"), sums, trailer[1:4], strict=True):
        if found != int(said):
            yield Finding(line, f"the {name} is {found}, and the trailer says {said}")
    body = text[: text.rstrip("\r\n").rfind("\n") + 1]
    if hashlib.sha256(body.encode()).hexdigest() != trailer[4]:
        yield Finding(line, "changed: the bytes before the trailer do not have the SHA-256 that it says")
