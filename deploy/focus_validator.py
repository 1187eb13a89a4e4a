"""focus_validator.py VENV FILE...: runs focus-validator on files and tells its own defects from what it found.

It exits 0 whatever it finds, so its report is read. Exit code 0: nothing but known defects; 1: anything else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

DEADLINE_S = 300.0
VERSION = "1.2"
# What holds for us: the rules that depend on anything else are not asked.
CRITERIA = (
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "COMMITMENT_DISCOUNT_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
    "VIRTUAL_CURRENCY_SUPPORTED",
)
KNOWN: Mapping[str, str] = {
    "CommitmentDiscountStatus-C-004-C": "its condition is turned round: it wants a status where there is no commitment",
    "ConsumedQuantity-C-001-M": "it guesses types from the text, and a column of integers is no Decimal to it",
    "InvoiceId-C-004-C": "it wants InvoiceId null in every row, and InvoiceId-C-005-C wants it in none",
    "PricingCurrency-C-003-M": "it knows national currencies only, and rejects the specification's own `Token`",
}


class Outcome(NamedTuple):
    """Rules by what they came to; `asked`: how many were not skipped."""

    asked: int
    known: list[str]
    unknown: list[str]


def outcome(report: str) -> Outcome:
    """What a report (JUnit's XML) says. A rule made up of others fails by its parts, which are listed themselves: it
    counts only where none of its column's parts has failed."""
    asked, failed = 0, []
    for case in ElementTree.fromstring(report).iter("testcase"):
        rule, _, kind = case.attrib["name"].partition(" :: ")
        asked += case.find("skipped") is None
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append((rule, kind))
    parts = [rule for rule, kind in failed if kind != "Composite"]
    columns = {_column(rule) for rule in parts}
    whole = [rule for rule, kind in failed if kind == "Composite" and _column(rule) not in columns]
    return Outcome(
        asked,
        [rule for rule in parts if rule in KNOWN],
        [rule for rule in parts if rule not in KNOWN] + whole,
    )


def _column(rule: str) -> str:
    return rule.partition("-")[0]


def report_of(venv: Path, file: Path) -> str:
    """The validator's report. RuntimeError: it made none, with the last it said."""
    (package,) = venv.glob("lib/python3.*/site-packages/focus_validator")
    with tempfile.TemporaryDirectory() as name:
        # It looks for its list of currencies, and writes its log, in the folder where it is run.
        (Path(name) / "focus_validator").symlink_to(package.resolve())
        made = Path(name) / "report.xml"
        done = subprocess.run(
            [
                str(venv.resolve() / "bin" / "focus-validator"),
                *("--data-file", str(file.resolve()), "--validate-version", VERSION, "--block-download"),
                *("--applicability-criteria", ",".join(CRITERIA)),
                *("--output-type", "unittest", "--output-destination", str(made)),
            ],
            cwd=name,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if done.returncode or not made.exists():
            raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))
        return made.read_text()


def lines(file: Path, found: Outcome) -> Iterator[str]:
    """What to tell of a file."""
    yield f"{file}: {found.asked} rules asked; failed: {len(found.known)} by known defects, {len(found.unknown)} others"
    yield from (f"  known    {rule}: {KNOWN[rule]}" for rule in found.known)
    yield from (f"  FAILED   {rule}" for rule in found.unknown)
    yield from (f"  (no defect this time: {rule})" for rule in KNOWN if rule not in found.known)


def main(arguments: Sequence[str]) -> int:
    venv, *files = map(Path, arguments)
    wrong = 0
    for file in files:
        try:
            found = outcome(report_of(venv, file))
        except (RuntimeError, subprocess.TimeoutExpired, ElementTree.ParseError) as error:
            sys.stdout.write(f"{file}: the validator failed: {error}\n")
            wrong += 1
            continue
        sys.stdout.write("".join(f"{line}\n" for line in lines(file, found)))
        wrong += len(found.unknown)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
