"""What usage costs under the terms of a plan: discount, cap, commitment, credit; and whose terms they are."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from services.billing.domain.metering import microseconds
from services.billing.domain.rating import Account, Running, Used, rate
from services.billing.domain.terms import Terms, terms_as_you_go
from shared.contracts.billing import BillLine, TokenSums
from shared.contracts.catalog import Plan
from tests.unit.billing_world import JUNE, catalogue, june

FEN = 2_500_000  # millipoints, at list price


def plan(key: str, **terms: Any) -> Plan:
    return Plan(operator="sh-telecom", plan=key, name=key, kind="payg", **terms)


def used(charged: int, model: str = "kimi-k2.5") -> Used:
    return Used(model, "rc@1", 1, TokenSums(input=1), charged, charged)


def lines(*usage: int, late: int = 0, credit_fen: int = 0, **terms: Any) -> list[tuple[str, int]]:
    """The lines that are not usage, of an account with these terms that used so many millipoints."""
    made = rate(
        Account("sh-telecom", "a1", june(1), "own"),
        JUNE,
        catalogue(plan("own", **terms)).view(),
        1,
        usage=[used(charged, f"m{n}") for n, charged in enumerate(usage)],
        late=[used(late)] if late else [],
        credit_fen=credit_fen,
    )
    assert made.total_fen == sum(line.fen for line in made.lines)
    return [(line.kind, line.fen) for line in made.lines if "usage" not in line.kind]


class TestDiscount:
    def test_is_of_the_exact_sum_of_usage_and_late_usage(self) -> None:
        assert lines(FEN // 2, FEN // 2, late=FEN * 3 // 2, usage_discount_percent=50) == [("discount", -1)]

    @pytest.mark.parametrize("usage", [(), (0,), (-FEN,), (FEN, -FEN), (FEN, -2 * FEN)])
    def test_is_only_of_what_is_to_pay(self, usage: tuple[int, ...]) -> None:
        assert lines(*usage, usage_discount_percent=50) == []

    def test_that_rounds_to_nothing_is_a_line(self) -> None:
        assert lines(1, usage_discount_percent=1) == [("discount", 0)]


class TestCapAndCommitment:
    @pytest.mark.parametrize(
        ("fen", "found"), [(1, []), (100, []), (101, [("cap", -1)]), (250, [("cap", -150)])], ids=str
    )
    def test_cap(self, fen: int, found: list[tuple[str, int]]) -> None:
        assert lines(fen * FEN, cap_fen=100) == found

    @pytest.mark.parametrize(
        ("fen", "found"),
        [(101, []), (100, []), (99, [("commitment", 1)]), (0, [("commitment", 100)]), (-9, [("commitment", 109)])],
        ids=str,
    )
    def test_commitment(self, fen: int, found: list[tuple[str, int]]) -> None:
        assert lines(fen * FEN, commitment_fen=100) == found

    def test_commitment_where_nothing_was_used(self) -> None:
        assert lines(commitment_fen=100) == [("commitment", 100)]

    def test_both_look_at_what_the_discount_left(self) -> None:
        terms = {"usage_discount_percent": 50, "cap_fen": 100, "commitment_fen": 90}
        assert lines(200 * FEN, **terms) == [("discount", -100)]
        assert lines(202 * FEN, **terms) == [("discount", -101), ("cap", -1)]
        assert lines(170 * FEN, **terms) == [("discount", -85), ("commitment", 5)]

    def test_bounds_of_zero_are_none(self) -> None:
        assert lines(10**9 * FEN) == []
        assert lines(-FEN) == []


class TestCredit:
    @pytest.mark.parametrize(
        ("fen", "credit_fen", "found"),
        [
            (9, 5, [("credit", -5)]),
            (9, 9, [("credit", -9)]),
            (9, 10, [("credit", -9)]),
            (9, 0, []),
            (0, 5, []),
            (-1, 5, []),
        ],
    )
    def test_takes_off_what_there_is_and_no_more_than_the_bill(
        self, fen: int, credit_fen: int, found: list[tuple[str, int]]
    ) -> None:
        assert lines(fen * FEN, credit_fen=credit_fen) == found

    def test_comes_last(self) -> None:
        assert lines(credit_fen=99, commitment_fen=100) == [("commitment", 100), ("credit", -99)]


def test_the_lines_say_why() -> None:
    view = catalogue(plan("own", usage_discount_percent=15, cap_fen=2_000, commitment_fen=3_000)).view()
    made = rate(Account("sh-telecom", "a1", june(1), "own"), JUNE, view, 1, usage=[used(3_000 * FEN)], credit_fen=1)
    assert made.lines[1:] == (
        BillLine(kind="discount", text="Discount on usage: 15 %", fen=-450),
        BillLine(kind="cap", text="Cap of 20.00 yuan on usage", fen=-550),
        BillLine(kind="commitment", text="Commitment of 30.00 yuan a month", fen=1_000),
        BillLine(kind="credit", text="Credit", fen=-1),
    )


@pytest.mark.parametrize(
    ("closed", "at", "found"),
    [
        (0, None, True),
        (5, june(1, 0), False),  # as the month began
        (5, june(1, 0) + timedelta(microseconds=1), True),
        (6, june(1, 0), True),  # behind the cut-off: the bill does not know of it
    ],
)
def test_no_commitment_of_an_account_that_was_closed_when_the_month_began(
    closed: int, at: datetime | None, found: bool
) -> None:
    view = catalogue(plan("own", commitment_fen=100)).view()
    account = Account("sh-telecom", "a1", june(1), "own", closed, microseconds(at) if at else 0)
    assert bool(rate(account, JUNE, view, 5).lines) is found


class TestWhoseTerms:
    VIEW = catalogue(
        plan("own", points_per_yuan=1, cap_fen=1),
        plan("quiet", points_per_yuan=2),
        plan("first", overage="payg", points_per_yuan=3, usage_discount_percent=4, cap_fen=5, commitment_fen=6),
        plan("second", overage="payg", points_per_yuan=7),
    ).view()

    def terms(self, *running: str, own: str = "own", version: int = 1) -> Terms:
        account = Account("sh-telecom", "a1", june(1), own)
        return terms_as_you_go(account, JUNE, self.VIEW, [Running(key, version) for key in running])

    def test_the_first_running_plan_with_usage_as_you_go(self) -> None:
        assert self.terms("quiet", "first", "second") == Terms(3, 4, 5, 6)
        assert self.terms("second", "first") == Terms(7)

    def test_else_the_accounts_plan_whatever_it_says_of_usage_beyond(self) -> None:
        assert self.terms("quiet") == self.terms() == Terms(1, cap_fen=1)
        assert self.terms("first", version=2) == self.terms("gone") == Terms(1, cap_fen=1)

    @pytest.mark.parametrize("own", ["", "gone"])
    def test_else_list_price_and_nothing_else(self, own: str) -> None:
        assert self.terms("quiet", own=own) == Terms(250_000, 0, 0, 0)

    def test_are_those_of_the_version_whose_period_it_is(self) -> None:
        log = catalogue(plan("first", overage="payg", points_per_yuan=3))
        log.publish(plan("first", overage="payg", points_per_yuan=9), 2, effective=june(1, 0))
        account = Account("sh-telecom", "a1", june(1))
        assert terms_as_you_go(account, JUNE, log.view(), [Running("first", 1)]) == Terms(3)
