"""A checker of FOCUS 1.2 files: what in a CSV breaks the specification, and where.

Of the rules that a file itself can show to be broken, those that say MUST; what only its maker can know is left out.
It must not know who made the file.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from services.billing.focus.columns import COLUMNS, Format, Level
from services.billing.focus.conditions import broken_conditions
from services.billing.focus.values import complaint

CUSTOM = "x_"
# (rule, column, of which one value has only one of the other): over the whole file.
ONE_FOR_EACH = (
    ("ServiceName-C-005-C", "ServiceCategory", "ServiceName"),
    ("SkuPriceId-C-008-M", "SkuId", "SkuPriceId"),
    ("InvoiceId-C-007-C", "BillingAccountId", "InvoiceId"),
    ("BillingCurrency-C-005-M", "BillingCurrency", "InvoiceId"),
    ("CommitmentDiscountUnit-C-008-M", "CommitmentDiscountUnit", "CommitmentDiscountId"),
)
_PURCHASED = (
    "BilledCost",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountId",
    "EffectiveCost",
)


class Finding(NamedTuple):
    """`line`: of the file, where the row begins; the header's is 1. `rule`: the specification's name of it."""

    line: int
    column: str
    rule: str
    message: str


class Row(NamedTuple):
    """`given`: the columns whose values are well formed; null is empty."""

    line: int
    given: dict[str, str]


def check_focus(text: str) -> list[Finding]:
    """All findings, in the order of the file's lines; none if the file keeps to the specification."""
    findings: list[Finding] = []
    lines = _records(text.removeprefix("\ufeff"), findings)
    header = next(lines, (1, []))[1]
    findings += _header(header)
    rows: list[Row] = []
    for line, record in lines:
        if len(record) != len(header):
            findings.append(Finding(line, "", "CSV", f"{len(record)} fields, and the header has {len(header)}"))
            continue
        row, wrong = _values(line, dict(zip(header, record, strict=True)))
        findings += wrong
        findings += (Finding(line, column, rule, said) for rule, column, said in broken_conditions(row.given))
        rows.append(row)
    for rule, column, of in ONE_FOR_EACH:
        findings += _one_for_each(rows, rule, column, of)
    findings += _commitments(rows)
    return sorted(findings)


def _records(text: str, findings: list[Finding]) -> Iterator[tuple[int, Sequence[str]]]:
    """Records with the line on which each begins; what is no CSV is a finding, and nothing is read behind it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.append(Finding(line, "", "CSV", str(error)))
            return
        if record:
            yield line, record


def _header(header: Sequence[str]) -> Iterator[Finding]:
    for name, column in COLUMNS.items():
        if column.level is Level.MANDATORY and name not in header:
            yield Finding(1, name, "CostAndUsage-D", "a mandatory column is missing")
    for place, name in enumerate(header):
        if name not in COLUMNS and not name.startswith(CUSTOM):
            yield Finding(
                1, name, "ColumnHandling-A-010-M", f"no column of FOCUS 1.2, and does not begin with {CUSTOM}"
            )
        if name in header[:place]:
            yield Finding(1, name, "ColumnHandling", "the column is there twice")


def _values(line: int, fields: dict[str, str]) -> tuple[Row, list[Finding]]:
    given, findings = {}, []
    for name, value in fields.items():
        column = COLUMNS.get(name)
        if column is None:
            continue
        wrong = complaint(column, value)
        if wrong is None:
            given[name] = value
        else:
            findings.append(Finding(line, name, *wrong))
            if column.format in (Format.TEXT, Format.UNIT) and value:
                given[name] = value
    return Row(line, given), findings


def _one_for_each(rows: Iterable[Row], rule: str, column: str, of: str) -> Iterator[Finding]:
    first: dict[str, tuple[str, int]] = {}
    for line, given in rows:
        key, value = given.get(of), given.get(column)
        if key and value:
            known, where = first.setdefault(key, (value, line))
            if known != value:
                yield Finding(line, column, rule, f"{value!r} for {of} {key!r}, which has {known!r} on line {where}")


def _commitments(rows: Sequence[Row]) -> Iterator[Finding]:
    """What was paid for a commitment is what its use and what was not used of it cost: over its term, so that those
    which began before the file's first billing period or end after its last are left alone."""
    whole = [(line, given) for line, given in rows if all(given.get(name) for name in _PURCHASED)]
    begin = min((given["BillingPeriodStart"] for _, given in whole), default="")
    end = max((given["BillingPeriodEnd"] for _, given in whole), default="")
    paid: defaultdict[str, Fraction] = defaultdict(Fraction)
    borne: defaultdict[str, Fraction] = defaultdict(Fraction)
    first: dict[str, int] = {}
    beyond: set[str] = set()
    for line, given in whole:
        commitment = given["CommitmentDiscountId"]
        if given["ChargeCategory"] == "Purchase":
            first.setdefault(commitment, line)
            paid[commitment] += Fraction(given["BilledCost"])
            if given["ChargePeriodStart"] < begin or given["ChargePeriodEnd"] > end:
                beyond.add(commitment)
        elif given["ChargeCategory"] == "Usage":
            borne[commitment] += Fraction(given["EffectiveCost"])
    for commitment, line in first.items():
        if commitment not in beyond and paid[commitment] != borne[commitment]:
            said = f"{commitment!r}: {_exact(paid[commitment])} was billed, its usage costs {_exact(borne[commitment])}"
            yield Finding(line, "EffectiveCost", "EffectiveCost-C-012-C", said)


def _exact(sum_of_decimals: Fraction) -> str:
    return str(Decimal(sum_of_decimals.numerator) / sum_of_decimals.denominator)
