"""Settlement between operators: wholesale by the tariff of the day, statements once, netting to one position."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.billing.domain.settlement import Served, settlement, statement
from services.billing.questions import Settlement, Statements
from shared.catalogue.view import CatalogueView
from shared.contracts.base import Rates, Usage
from shared.contracts.billing import StatementLine, TokenSums
from shared.contracts.catalog import Tariff
from shared.errors import MalformedCommand, NotCaughtUp, PeriodOpen
from tests.unit.billing_world import JUNE, CatalogLog, QuotaLog, billing, catalogue, follow, july, june

FEN = 2_500_000
OWN = Tariff(home="sh", serving="gd", model="kimi", rates=Rates(input=500, output=2000), discount_percent=10)
SHARE = Tariff(home="sh", serving="gd", model="*", retail_percent=60)
VIEW = catalogue(OWN, SHARE).view()


def lines(*served: Served, view: CatalogueView = VIEW) -> tuple[StatementLine, ...]:
    return statement("sh", "gd", JUNE, (1,), served, view).lines


def used(model: str = "kimi", day: str = "2026-06-03", amount: int = 0, **tokens: int) -> Served:
    return Served(model, day, 1, TokenSums(**tokens), amount)


class TestWholesale:
    def test_by_own_rates_and_a_discount_on_the_exact_gross(self) -> None:
        # 12,500 x 500 + 1,000 x 2,000 = 8,250,000 millipoints = 3.3 fen gross; 10 % of 3.3 = 0.33 fen.
        (line,) = lines(used(input=12_500, output=1_000))
        assert (line.tariff, line.gross_fen, line.discount_fen, line.net_fen) == ("sh/gd/kimi@1", 3, 0, 3)

    def test_the_discount_is_not_taken_from_what_was_rounded(self) -> None:
        # 4.6 fen gross is 5; 10 % of 4.6 is 0.46, so 0, where 10 % of the rounded 5 would be 0.5, so 1.
        (line,) = lines(used(input=23_000))
        assert (line.gross_fen, line.discount_fen, line.net_fen) == (5, 0, 5)

    def test_as_a_share_of_retail_for_all_other_models(self) -> None:
        (line,) = lines(used("glm", amount=100 * FEN))
        assert (line.tariff, line.gross_fen, line.net_fen) == ("sh/gd/*@1", 60, 60)

    def test_without_a_tariff_the_line_is_there_and_free(self) -> None:
        (line,) = lines(used("glm", amount=100 * FEN), view=CatalogueView())
        assert (line.tariff, line.gross_fen, line.calls, line.amount) == ("", 0, 1, 100 * FEN)

    def test_days_are_summed_before_they_are_rounded(self) -> None:
        # Twice 0.4 fen is 0.8 fen, so 1: not twice 0.
        (line,) = lines(used(input=2_000), used(input=2_000, day="2026-06-04"))
        assert (line.gross_fen, line.calls) == (1, 2)

    def test_a_tariff_that_changes_inside_the_month_makes_two_lines(self) -> None:
        log = CatalogLog()
        log.publish(OWN, 1)
        dearer = Tariff(home="sh", serving="gd", model="kimi", rates=Rates(input=1000))
        log.publish(dearer, 2, effective=june(15, 0))
        before, after = used(input=5_000, day="2026-06-14"), used(input=5_000, day="2026-06-15")
        found = lines(before, after, view=log.view())
        assert [(line.tariff, line.gross_fen) for line in found] == [("sh/gd/kimi@1", 1), ("sh/gd/kimi@2", 2)]

    def test_a_months_tokens_may_exceed_those_of_any_call(self) -> None:
        (line,) = lines(used(input=30_000_000_000))
        assert line.usage.total == 30_000_000_000


class TestNetting:
    def test_one_position_per_pair_and_balances_that_sum_to_zero(self) -> None:
        made = settlement([("a", "b", 70), ("b", "a", 100), ("a", "c", 5), ("c", "b", 0)])
        assert made["matrix"] == {"a": {"b": 70, "c": 5}, "b": {"a": 100}, "c": {"b": 0}}
        assert made["netting"] == [
            {"debtor": "b", "creditor": "a", "fen": 30},
            {"debtor": "a", "creditor": "c", "fen": 5},
            {"debtor": "b", "creditor": "c", "fen": 0},
        ]
        assert made["balances"] == {"a": 25, "b": -30, "c": 5}
        assert sum(made["balances"].values()) == 0

    def test_nothing_was_served(self) -> None:
        assert settlement([]) == {"matrix": {}, "netting": [], "balances": {}}


class TestStatements:
    def world(self, tmp_path: Path) -> tuple[Any, QuotaLog]:
        app, quota = billing(tmp_path), QuotaLog("sh", "s1")
        quota.open()
        quota.open(operator="gd", account="g1")
        quota.debit(june(3), Usage(input=100_000), serving="gd", model="kimi")
        quota.debit(june(4), Usage(input=100_000), serving="sh", model="kimi")  # at home: no wholesale
        quota.debit(june(4), Usage(input=100_000), serving="", model="kimi")
        quota.debit(june(5), Usage(input=50_000), serving="sh", model="glm", operator="gd", account="g1")
        quota.reverse(june(6), grants=1000, model="kimi")  # a kindness of the home operator: not the server's
        back = Tariff(home="gd", serving="sh", model="*", retail_percent=50)
        follow(app, quota, catalogue(OWN, SHARE, back))
        return app, quota

    def settle(self, app: Any, quota: QuotaLog, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = app.submit("settle_period", {"period": JUNE, "quota_position": quota.head} | more)
        return answer

    def test_one_per_pair_that_had_a_call(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        answer = self.settle(app, quota)
        assert (answer["statements"], answer["remaining"]) == (["gd/sh", "sh/gd"], 0)
        made = [s["statement"] for s in app.statements(Statements(period=JUNE))["statements"]]
        # sh owes gd 100,000 x 500 = 20 fen less 10 %; gd owes sh half of 20 fen.
        assert [(s["home"], s["gross_fen"], s["discount_fen"], s["net_fen"]) for s in made] == [
            ("gd", 10, 0, 10),
            ("sh", 20, 2, 18),
        ]
        assert app.settlement(Settlement(period=JUNE))["netting"] == [{"debtor": "sh", "creditor": "gd", "fen": 8}]

    def test_issued_once_whatever_comes_later(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        self.settle(app, quota)
        before = app.statements(Statements(period=JUNE))
        quota.debit(june(30), Usage(input=100_000), serving="gd", recorded=july(1, 1))
        follow(app, quota)
        assert self.settle(app, quota)["issued"] == 0
        assert app.statements(Statements(period=JUNE)) == before
        assert app.log.known(["statement:sh/gd/2026-06"])

    def test_as_of_the_cut_off(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        cut_off = quota.head
        quota.debit(june(30), Usage(input=100_000), serving="gd", recorded=july(1, 1), model="kimi")
        follow(app, quota)
        self.settle(app, quota, quota_position=cut_off)
        assert app.settlement(Settlement(period=JUNE))["matrix"]["sh"]["gd"] == 18

    def test_in_pages(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        self.settle(app, quota)
        first = app.statements(Statements(period=JUNE, limit=1))
        second = app.statements(Statements(period=JUNE, limit=1, after="gd/sh"))
        assert [(p["statements"][0]["statement"]["home"], p["more"]) for p in (first, second)] == [
            ("gd", True),
            ("sh", False),
        ]

    def test_refusals(self, tmp_path: Path) -> None:
        app, quota = self.world(tmp_path)
        with pytest.raises(NotCaughtUp):
            self.settle(app, quota, quota_position=99)
        with pytest.raises(PeriodOpen):
            self.settle(app, quota, period="2026-07")
        with pytest.raises(MalformedCommand):
            self.settle(app, quota, quota_position=2)
        assert app.log.head() == 0
