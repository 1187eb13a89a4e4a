"""Bills for the tests of FOCUS: every kind of line, and any mixture of them."""

from __future__ import annotations

import csv
import io
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from services.billing.focus.rows import bill_rows, focus_csv
from shared.contracts.billing import Bill, BillLine, TokenSums
from tests.unit.billing_world import bill

FEN = 2_500_000  # millipoints at list price
MILLION = 1_000_000_000  # a million points


def line(kind: str, fen: int = 0, **fields: Any) -> BillLine:
    return BillLine(kind=kind, text=fields.pop("text", kind), fen=fen, **fields)  # type: ignore[arg-type]


def used(points: int, to_pay_fen: int = 0, model: str = "kimi", kind: str = "usage", tokens: int = 1000) -> BillLine:
    """A usage line at list price: `points` paid with points, and `to_pay_fen` as you go."""
    charged = to_pay_fen * FEN
    return line(
        kind,
        to_pay_fen,
        model=model,
        rate_card=f"sh-telecom/{model}@1",
        calls=1,
        usage=TokenSums(input=tokens),
        amount=points * 1000 + charged,
        charged=charged,
    )


EVERY_KIND = bill(
    line("plan_fee", 990, plan="basic", plan_version=1, amount=10 * MILLION),
    line("discount", -200, plan="basic", plan_version=1),
    line("plan_credit", -123, plan="old", plan_version=2, amount=-MILLION),
    line("bundle", 500, plan="home", plan_version=1, amount=MILLION),
    line("purchase", 4000, amount=10 * MILLION),
    line("trial", amount=3 * MILLION),
    used(969_567, 106),
    used(7_000_001, model="qwen"),
    used(123, 33, kind="late_usage"),
    line("discount", -10),
    line("cap", -40),
    line("commitment", 300),
    line("credit", -77),
)


def rows_of(made: Bill) -> list[dict[str, str]]:
    return bill_rows(made, "Shanghai Telecom")


def written(made: Bill) -> str:
    return focus_csv(rows_of(made))


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def summed(rows: list[dict[str, str]], column: str) -> Fraction:
    """The sum of a column in fen."""
    return sum((Fraction(row[column]) for row in rows), Fraction(0)) * 100


_FEN = st.integers(0, 100_000)
_POINTS = st.integers(0, 50_000_000)
_PLAN = {"plan": "basic", "plan_version": 1}


@st.composite
def usage_lines(draw: st.DrawFn) -> BillLine:
    """Usage at any price; more may have come back than was used."""
    charged = draw(st.integers(-1000, 10**12))
    price = draw(st.sampled_from([250_000, 400_000, 300_000, 7]))
    exact = Fraction(charged * 100, price * 1000)
    fen = round(exact)
    rest = exact - fen
    return line(
        draw(st.sampled_from(["usage", "late_usage"])),
        fen,
        model=draw(st.sampled_from(["kimi", "qwen", "glm"])),
        usage=TokenSums(input=draw(st.integers(0, 10**6)), output=draw(st.integers(0, 10**6))),
        amount=charged + draw(st.integers(-1000, 10**12)),
        charged=charged,
        residual=f"{rest.numerator}/{rest.denominator}",
    )


_fees = st.builds(lambda fen, points: [line("plan_fee", fen, amount=points * 1000, **_PLAN)], _FEN, _POINTS)
_reduced_fees = st.builds(lambda fee, off: [*fee, line("discount", -min(fee[0].fen, off), **_PLAN)], _fees, _FEN)
_granted = st.builds(
    lambda kind, fen, points: [line(kind, 0 if kind == "trial" else fen, amount=points * 1000)],
    st.sampled_from(["bundle", "purchase", "trial"]),
    _FEN,
    _POINTS,
)
_adjusted = st.builds(
    lambda kind, fen: [line(kind, fen if kind == "commitment" else -fen)],
    st.sampled_from(["cap", "commitment", "credit", "discount", "plan_credit"]),
    _FEN,
)
bills = st.builds(
    lambda parts: bill(*(one for part in parts for one in part)),
    st.lists(st.one_of(_fees, _reduced_fees, _granted, usage_lines().map(lambda one: [one]), _adjusted), max_size=8),
)

if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(written(EVERY_KIND).encode())
