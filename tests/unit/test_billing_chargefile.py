"""The charge file: its control totals, and that its receiver sees a record that was cut off, doubled or altered."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.application import BillingApplication
from services.billing.chargecheck import check_charge_file
from services.billing.chargefile import Charge, charge_file
from services.billing.questions import ChargeFile
from shared.contracts.base import Usage
from tests.unit.billing_world import JUNE, QuotaLog, billing, follow, issue, june

FEN = 2_500_000
NUMBERS = [f"sh-telecom-2026-06-{n:06d}" for n in (1, 2, 3)]
CHARGES = [Charge(number, f"a{at}", 100 * at - 50, 6, "t", "h") for at, number in enumerate(NUMBERS)]
WHOLE = charge_file("sh-telecom", JUNE, CHARGES)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


class TestFile:
    def test_has_control_totals_over_its_charges(self) -> None:
        header, *charges, trailer = read(WHOLE)
        assert header == ["H", "tokengrid-charges", "1", "sh-telecom", JUNE, "CNY", ""]
        assert [c[:5] for c in charges][1:] == [["C", NUMBERS[1], "a1", "50", "6"], ["C", NUMBERS[2], "a2", "150", "6"]]
        assert trailer[:4] == ["T", "3", "150", "18"]

    def test_the_trailer_hashes_every_byte_before_it(self) -> None:
        text = charge_file("o", JUNE, [Charge("n", 'a,"x"\r\nT,9', -5, 0, "t", "h")])
        body = text[: text.rindex("T,1,")]
        assert text.endswith(hashlib.sha256(body.encode()).hexdigest() + "\r\n")

    def test_hostile_text_stays_in_its_field(self) -> None:
        hostile = 'a,"x"\r\nT,9'
        text = charge_file("o", JUNE, [Charge("n", hostile, 1, 0, "t", "h")])
        assert [row[0] for row in read(text)] == ["H", "C", "T"]
        assert read(text)[1][2] == hostile
        assert check_charge_file(text) == []

    def test_a_period_in_several_files(self, tmp_path: Path) -> None:
        app, quota = billing(tmp_path), QuotaLog()
        for account in ("a", "b"):
            quota.open(account=account)
            quota.debit(june(3), Usage(input=250_000), overdrawn=100 * FEN, account=account)
        follow(app, quota)
        issue(app, quota)
        first = _ask(app)
        second = _ask(app, first["last"])
        assert [(f["last"], f["count"], f["more"]) for f in (first, second)] == [
            (NUMBERS[0], 1, True),
            (NUMBERS[1], 1, False),
        ]
        assert (first["sum_fen"], read(first["csv"])[1][:5]) == (100, ["C", NUMBERS[0], "a", "100", "6"])
        assert second["csv"].splitlines()[0].endswith(f",{NUMBERS[0]}")
        assert check_charge_file(first["csv"]) == check_charge_file(second["csv"]) == []


def _ask(app: BillingApplication, after: str = "") -> dict[str, object]:
    return app.charge_file(ChargeFile(operator="sh-telecom", period=JUNE, limit=1, after=after))


class TestCheck:
    @pytest.mark.parametrize("charges", [CHARGES, CHARGES[:1], []])
    def test_a_whole_file_has_no_findings(self, charges: list[Charge]) -> None:
        assert check_charge_file(charge_file("sh-telecom", JUNE, charges)) == []

    @pytest.mark.parametrize(
        ("spoil", "line", "said"),
        [
            (lambda lines: lines[:-1], 4, "cut"),
            (lambda lines: [*lines[:2], *lines[3:]], 4, "count is 2"),
            (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3, "doubled"),
            (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 3, "stands behind"),
            (lambda lines: lines + lines, 5, "a trailer inside"),
            (lambda lines: [*lines[:-1], *lines], 5, "a second header"),
            (lambda lines: lines[1:], 1, "does not begin"),
            (lambda lines: [lines[0], lines[1].replace("-50", "-51"), *lines[2:]], 5, "sum of fen is 149"),
            (lambda lines: [lines[0], lines[1].replace(",6,", ",7,"), *lines[2:]], 5, "sum of VAT fen is 19"),
            (lambda lines: [lines[0], lines[1].replace("a0", "a9"), *lines[2:]], 5, "SHA-256"),
            (lambda lines: [lines[0].replace(JUNE, "2026-07"), *lines[1:]], 5, "SHA-256"),
            (lambda lines: [line.replace("\r", "") for line in lines], 5, "SHA-256"),
            (lambda lines: [*lines[:-1], lines[-1].replace("T,3", "T,4")], 5, "the trailer says 4"),
            (lambda lines: [lines[0].replace("CNY", "USD"), *lines[1:]], 1, "USD"),
            (lambda lines: [lines[0].replace(",1,", ",2,", 1), *lines[1:]], 1, "version"),
            (lambda lines: [lines[0], lines[1].replace("-50", "5.0"), *lines[2:]], 2, "no whole number"),
            (lambda lines: [lines[0].replace(",1,", ",3,", 1), *lines[1:]], 1, "version"),
            (lambda lines: [lines[0], "C,x\r\n", *lines[2:]], 2, "7 fields in"),
            (lambda lines: [lines[0], "X\r\n", *lines[2:]], 2, "begins with 'X'"),
            (lambda lines: [lines[0], '"open\r\n', *lines[2:]], 2, "no CSV"),
            (lambda lines: [], 1, "cut"),
        ],
    )
    def test_what_was_done_to_it_is_found(self, spoil: Callable[[list[str]], list[str]], line: int, said: str) -> None:
        found = check_charge_file("".join(spoil(WHOLE.splitlines(keepends=True))))
        assert any(finding.line == line and said in finding.message for finding in found), found

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda lines: lines, ""),
            (lambda lines: [*lines[:-2], lines[-1]], "the count of voids is 0"),
            (lambda lines: [*lines[:-2], lines[-2].replace("-50", "-51"), lines[-1]], "the sum of fen of voids"),
            (lambda lines: [*lines[:-2], lines[-2], lines[-2], lines[-1]], "was taken back before"),
            (lambda lines: [lines[0], lines[-2], *lines[1:-2], lines[-1]], "stands behind voids"),
        ],
    )
    def test_of_one_with_voids(self, spoil: Callable[[list[str]], list[str]], said: str) -> None:
        whole = charge_file("sh-telecom", JUNE, CHARGES[1:], voids=CHARGES[:1], voids_after=7)
        found = [message for _, message in check_charge_file("".join(spoil(whole.splitlines(keepends=True))))]
        assert any(said in message for message in found) if said else found == []

    @settings(max_examples=50)
    @given(st.data())
    def test_one_byte_less_or_another_is_seen(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(WHOLE.rstrip()) - 1))
        other = data.draw(st.characters(codec="ascii", exclude_characters=WHOLE[at]) | st.just(""))
        assert check_charge_file(WHOLE[:at] + other + WHOLE[at + 1 :]) != []
