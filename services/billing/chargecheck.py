"""What a receiver checks of a charge file before it takes it over: form, order, control totals, hash.

It must not know how the file was made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.billing.chargefile import CURRENCY, FORMAT, FORMAT_VERSION, WITH_VOIDS

NO_CSV = "no CSV"
FIELDS = {  # of a record, by the file's version
    str(FORMAT_VERSION): {"H": 7, "C": 7, "T": 5},
    str(WITH_VOIDS): {"H": 8, "C": 7, "V": 7, "T": 8},
}
TOTALS = ("count", "sum of fen", "sum of VAT fen")
TOTALS_OF_VOIDS = tuple(f"{name} of voids" for name in TOTALS)
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})\Z")
_SERIAL = re.compile(r".*-([0-9]{6,15})\Z")


class Finding(NamedTuple):
    """`line`: of the file, where the record begins."""

    line: int
    message: str


Record = tuple[int, list[str]]


def check_charge_file(text: str) -> list[Finding]:
    """Everything that is wrong with a file, by line; empty if it is as it was made.

    A file that was cut has no trailer, or another count than it says; one that was doubled or put together has a
    header, trailer or bill twice, or bills out of order; one that was changed has other sums, or another hash.
    """
    records = list(_records(text))
    kinds = [fields[0] for _, fields in records]
    known = _fields_of(records)
    findings = [Finding(line, "; ".join(said)) for line, fields in records if (said := list(_wrong(fields, known)))]
    if kinds[:1] != ["H"]:
        findings.append(Finding(1, "the file does not begin with its header"))
    if kinds[-1:] != ["T"]:
        findings.append(Finding(records[-1][0] if records else 1, "cut: the file does not end with its trailer"))
    findings += (Finding(records[at][0], "a second header") for at in range(1, len(kinds)) if kinds[at] == "H")
    findings += (Finding(records[at][0], "a trailer inside") for at in range(len(kinds) - 1) if kinds[at] == "T")
    if not findings:
        findings += _order(records)
        findings += _controls(text, records)
    return sorted(findings)


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


def _fields_of(records: Sequence[Record]) -> dict[str, int]:
    """Of the version that the header names, if it is one."""
    header = records[0][1] if records else []
    return FIELDS.get(header[2] if len(header) > 2 else "", FIELDS[str(FORMAT_VERSION)])


def _wrong(fields: Sequence[str], known: dict[str, int]) -> Iterator[str]:
    kind = fields[0]
    if kind == NO_CSV:
        yield "no CSV from here on"
    elif kind not in known:
        yield f"no record begins with {kind!r}"
    elif len(fields) != known[kind]:
        yield f"a record {kind} has {known[kind]} fields in this version, not {len(fields)}"
    elif kind == "H":
        if fields[1] != FORMAT or fields[2] not in FIELDS or fields[5] != CURRENCY:
            versions = " or ".join(FIELDS)
            given = ", ".join((fields[1], fields[2], fields[5]))
            yield f"format, version and currency are {given}, not {FORMAT}, {versions}, {CURRENCY}"
    else:
        numbers = fields[1:-1] if kind == "T" else fields[3:5]
        yield from (f"{number!r} is no whole number" for number in numbers if not _INTEGER.match(number))


def _order(records: Sequence[Record]) -> Iterator[Finding]:
    """Charges stand in the order of their bills' serial numbers, behind the one that the header names; then voids, each
    bill once."""
    before = _place(records[0][1][6])
    charged = False
    taken_back: set[str] = set()
    for line, (kind, number, *_) in records[1:-1]:
        if kind == "V":
            charged = True
            if number in taken_back:
                yield Finding(line, f"doubled: {number} was taken back before")
            taken_back.add(number)
            continue
        if charged:
            yield Finding(line, f"the charge of {number} stands behind voids")
        place = _place(number)
        if place == before:
            yield Finding(line, f"doubled: {number} was there before")
        elif place < before:
            yield Finding(line, f"{number} stands behind a later bill")
        before = place


def _place(number: str) -> tuple[int, str]:
    """By serial number: as texts, the millionth bill would come before its forerunner."""
    found = _SERIAL.match(number)
    return (int(found[1]) if found else 0), number


def _controls(text: str, records: Sequence[Record]) -> Iterator[Finding]:
    line, trailer = records[-1]
    said = [int(each) for each in trailer[1:-1]]
    found = [*_sums(records, "C"), *_sums(records, "V")][: len(said)]
    for name, is_, told in zip((*TOTALS, *TOTALS_OF_VOIDS), found, said, strict=False):
        if is_ != told:
            yield Finding(line, f"the {name} is {is_}, and the trailer says {told}")
    body = text[: text.rstrip("\r\n").rfind("\n") + 1]
    if hashlib.sha256(body.encode()).hexdigest() != trailer[-1]:
        yield Finding(line, "changed: the bytes before the trailer do not have the SHA-256 that it says")


def _sums(records: Sequence[Record], kind: str) -> tuple[int, int, int]:
    of_kind = [fields for _, fields in records if fields[0] == kind]
    return len(of_kind), *(sum(int(fields[at]) for fields in of_kind) for at in (3, 4))  # type: ignore[return-value]
