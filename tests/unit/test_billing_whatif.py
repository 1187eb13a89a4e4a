"""What-if: a month's bills under another catalogue. 1,000 input tokens of kimi are 1,000 points; 2,500 points a fen.

All that happens in June happens in one world, each story to an account of its own.
"""

from __future__ import annotations

import contextlib
import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from services.billing.chart import SVG
from services.billing.whatif import what_if
from services.billing.whatif_chart import buckets, what_if_chart
from services.billing.whatif_sums import as_csv, movers, sums
from services.catalog.files import dump_catalogue
from shared.contracts.billing import BillIssued
from shared.contracts.catalog import Catalogue
from shared.errors import MalformedCommand
from tests.simulation.year import Year
from tests.unit.audit_world import JULY, JUNE, Tampering, two_months
from tests.unit.subscription_world import OPERATOR, POINT, World, plan
from tests.unit.whatif_world import Logs, card, catalogue, charged, close, dearer, lines, rerated, unchanged
from tokengrid import cli
from tokengrid.commands import bill_review

NOTHING = Catalogue()
PAYG = {"kind": "payg", "fee_fen": 0, "allowance": 0, "overage": "payg"}
NIGHT = {"from_minute": 0, "to_minute": 480, "rates": {"input": 500}}


class Story:
    """What happens to one account, in whole points of kimi's input."""

    def __init__(self, world: World, account: str, **opened: Any) -> None:
        self.world, self.account, self.debits, self.reversed = world, account, 0, 0
        world.of_quota("open_account", account, **opened)

    def grant(self, points: int, **about: Any) -> Story:
        about = {"source": "purchase", "price_fen": points} | about
        self.world.of_quota("grant", self.account, amount=points * POINT, **about)
        return self

    def use(self, *points: int, model: str = "kimi") -> Story:
        for each in points:
            self.debits += 1
            about = {"request_id": f"d{self.debits}", "model": model, "usage": {"input": each}}
            self.world.of_quota("debit", self.account, on_insufficient="overdraw", **about)
        return self

    def reverse(self, *points: int | None) -> Story:
        """The first debit; None: whole."""
        for each in points:
            part = {} if each is None else {"amount": each * POINT}
            self.world.of_quota("reverse", self.account, debit="d1", **part)
        return self

    def reverse_next(self) -> None:
        """The oldest debit that was not reversed, whole."""
        self.reversed += 1
        self.world.of_quota("reverse", self.account, debit=f"d{self.reversed}")

    def take(self, plan: str) -> Story:
        self.world.follow()
        self.world.take(plan, self.account, request_id=plan)
        return self


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("whatif"))
    made.publish(
        models=[{"model": "other", "family": "o", "developer": "O"}],
        rate_cards=[card(model="other")],
        plans=[plan("open", **PAYG), plan("granted")],
    )
    _happen(made)
    close(made, "2026-06")
    late = {"usage": {"input": 50}, "occurred_at": "2026-06-20T00:00:00Z", "on_insufficient": "overdraw"}
    made.of_quota("debit", "came-late", model="kimi", **late)
    close(made, "2026-07")
    yield made
    made.close()


def _happen(world: World) -> None:
    def of(account: str, **opened: Any) -> Story:
        return Story(world, account, **opened)

    of("all-charged").use(3_000, 4_001)
    of("one-grant").grant(100).use(60)
    of("two-grants").grant(100).grant(100).use(60)
    of("next-call").grant(100).use(60, 40)
    of("saved").grant(100).use(60, 60)
    of("one-price").grant(100).use(60).use(40, model="other")
    of("reversed").use(60).reverse(None)
    of("half-reversed").use(60).reverse(30)
    of("reversed-in-parts").use(60).reverse(10, 20, 30)
    of("a-little-reversed").use(60).reverse(1)
    of("came-back").grant(120).use(60).reverse(None).use(60)
    of("came-late").use(100)
    of("as-you-go", plan="open").use(250_000)
    of("granted").grant(30_000, source="plan", price_fen=2900, plan="granted", plan_version=1).use(40_000)
    of("mover-a").use(25_000)
    of("mover-b").use(2_500)
    of("mover-c")
    of("fees").take("large").take("reduced").use(100_000)
    of("allowance").take("small").use(40_000)
    of("phases").take("welcome")
    cut = of("cut").take("yearly").use(15_000)
    narrow = of("cannot-pay").grant(50).grant(50, scope={"models": ["other"]}).grant(50, request_id="void")
    narrow.grant(50, effective_at="2026-06-20T00:00:00Z").grant(50, expires_at="2026-06-09T00:00:00Z")
    world.of_quota("void_grant", "cannot-pay", grant="void")
    night = of("at-night", credit_limit=10**9)
    world.at("2026-06-10 07:59")
    held = world.of_quota("reserve", night.account, model="kimi", amount=100 * POINT, ttl_s=3600)["request_id"]
    world.at("2026-06-10 08:10")
    world.of_quota("settle", night.account, reservation=held, usage={"input": 100})
    narrow.use(50)
    of("in-parts", credit_limit=10**9)
    held = world.of_quota("reserve", "in-parts", model="kimi", amount=100 * POINT, ttl_s=3600)["request_id"]
    for final in (False, False, True):
        world.of_quota("settle", "in-parts", reservation=held, usage={"input": 40}, final=final)
    world.at("2026-06-11")
    world.ask("end_subscription", cut.account, subscription="yearly", at_once=True)


# --- the same catalogue gives the same bills --------------------------------------------------
def test_the_same_catalogue_gives_every_bill_again(tmp_path: Path, seed: int) -> None:
    market = two_months(tmp_path, seed, events=80)
    for period in (JUNE, JULY):
        found = what_if(market.client, period, unchanged(market))
        assert len(found) == 8
        assert [one.other for one in found] == [one.issued for one in found]
    # And where a bill is not what the logs give, it is named.
    first = next(e for e in market.billing.log.read(0, 1000) if e.topic == BillIssued.TOPIC)
    client = Tampering(market.client)
    client.event("billing", first.position, lambda event: event["bill"].update(total_fen=10**9))
    assert sums(what_if(client, JUNE, NOTHING)).unlike == [first.fields["bill"]["number"]]
    market.close()


def test_the_same_catalogue_gives_every_bill_of_subscribers_again(tmp_path: Path, seed: int) -> None:
    year = Year(tmp_path, seed, subscribers=8)
    year.clock.advance(26 * 86_400)
    for _ in range(6):
        year.day(actions=30)
    year.down_until = year.clock.now
    year.work()
    year.close_month("2028-01")
    found = what_if(year.client, "2028-01", unchanged(year))
    assert len({line.kind for one in found for line in one.issued.lines}) > 2
    assert [one.other for one in found] == [one.issued for one in found]
    year.close()


# --- other rates ------------------------------------------------------------------------------
def test_twice_the_rates_is_twice_the_charges_where_nothing_was_granted(world: World) -> None:
    found = rerated(world, "all-charged", dearer(2))
    assert (charged(found.issued), charged(found.other)) == (7_001, 14_002)
    assert (lines(found.issued), lines(found.other)) == ([("usage", 3)], [("usage", 6)])
    assert found.other.lines[0].rate_card == f"{OPERATOR}/kimi@2"
    assert found.other.lines[0].usage == found.issued.lines[0].usage


@pytest.mark.parametrize(
    ("account", "factor", "in_fact", "then"),
    [
        ("one-grant", 2, 0, 20),  # what the grant does not cover is charged
        ("two-grants", 3, 0, 0),  # another grant covers it
        ("next-call", 2, 0, 100),  # the first call takes what the second had
        ("saved", 0, 20, 0),  # what a call saves is there for the next one
        ("one-price", 2, 0, 60),  # also a call of the same price finds less left
        ("cannot-pay", 2, 0, 50),  # a grant of other models, withdrawn, over, or not begun does not pay
        ("reversed", 2, 0, 0),
        ("half-reversed", 2, 30, 60),  # the same share is given back
        ("reversed-in-parts", 3, 0, 0),
        ("a-little-reversed", 2, 59, 118),
        ("came-back", 2, 0, 0),  # what a reversal gives back is there for later calls
        ("came-back", 3, 0, 60),
        ("came-late", 3, 100, 300),  # the bill does not know what came behind its cut-off
    ],
)
def test_points_are_drawn_anew(world: World, account: str, factor: int, in_fact: int, then: int) -> None:
    found = rerated(world, account, dearer(factor))
    assert (charged(found.issued), charged(found.other)) == (in_fact, then)


def test_what_if_is_what_quota_itself_would_have_come_to(tmp_path: Path, seed: int) -> None:
    # The same commands, under the rates that are published and under those of the file; of grants alike that never
    # end, it does not matter which one is drawn first.
    chance = random.Random(seed)
    told = [(chance.choice(("grant", "use", "use", "use", "reverse")), chance.randrange(1, 100)) for _ in range(40)]
    found = {}
    for factor in (1, 3):
        made = World(tmp_path / str(factor))
        made.publish("2026-05-31T16:00:00Z", rate_cards=[card(factor)])
        story = Story(made, "a", credit_limit=10**9)
        for what, points in told:
            if what == "grant":
                story.grant(points)
            elif what == "use":
                story.use(points)
            elif story.debits > story.reversed:
                story.reverse_next()
        close(made)
        found[factor] = {other: rerated(made, "a", dearer(other)).other.lines[-1] for other in (1, 3)}
        made.close()
    for other in (1, 3):
        came_to = {(line.amount, line.charged, line.fen) for line in (its[other] for its in found.values())}
        assert len(came_to) == 1, (seed, other, came_to)


def test_off_peak_is_when_the_call_began(world: World) -> None:
    assert charged(rerated(world, "at-night", catalogue(rate_cards=[card(off_peak=[NIGHT])])).other) == 50


def test_a_tier_is_that_of_all_parts_of_a_call_so_far(world: World) -> None:
    tiers = [{"above_input_tokens": 40 * parts, "rates": {"input": rate}} for parts, rate in ((1, 3000), (2, 7000))]
    found = rerated(world, "in-parts", catalogue(rate_cards=[card(tiers=tiers)]))
    assert (charged(found.issued), charged(found.other)) == (120, 40 * (1 + 3 + 7))


def test_late_usage_of_an_earlier_month_stays_as_it_is(world: World) -> None:
    found = rerated(world, "came-late", dearer(3), "2026-07")
    assert [line.kind for line in found.issued.lines] == ["late_usage"]
    assert found.other == found.issued


# --- other plans ------------------------------------------------------------------------------
def test_a_dearer_fee_moves_fee_lines_alone(world: World) -> None:
    dear = [plan("large", fee_fen=7000, allowance=62_000 * POINT), plan("reduced", fee_fen=4000, discount_percent=20)]
    found = rerated(world, "fees", catalogue(plans=dear))
    assert lines(found.issued) == [("plan_fee", 6200), ("plan_fee", 3000), ("discount", -600), ("usage", 3)]
    assert lines(found.other) == [("plan_fee", 7000), ("plan_fee", 4000), ("discount", -800), ("usage", 3)]


@pytest.mark.parametrize(("allowance", "then"), [(50_000, 0), (35_000, 5_000), (10_000, 30_000), (0, 40_000)])
def test_another_allowance_pays_for_other_usage(world: World, allowance: int, then: int) -> None:
    found = rerated(world, "allowance", catalogue(plans=[plan("small", allowance=allowance * POINT)]))
    assert (charged(found.issued), charged(found.other)) == (10_000, then)


@pytest.mark.parametrize(("period", "line"), [("2026-06", ("Welcome", 100)), ("2026-07", ("Welcome: second", 200))])
def test_the_phase_is_that_of_the_months_on_the_plan(world: World, period: str, line: tuple[str, int]) -> None:
    phases = [{"months": 1, "fee_fen": 100}, {"months": 1, "name": "second", "fee_fen": 200}]
    found = rerated(world, "phases", catalogue(plans=[plan("welcome", phases=phases)]), period)
    assert [(each.text, each.fen) for each in found.other.lines] == [line]


def test_what_is_given_back_of_a_cut_period_follows_its_price(world: World) -> None:
    # In fact half of the points are left; by the other plan three quarters, and 20 of 30 days.
    other = plan("yearly", cycle="anniversary", fee_fen=6000, allowance=60_000 * POINT)
    found = rerated(world, "cut", catalogue(plans=[other]))
    assert lines(found.issued)[:2] == [("plan_fee", 3000), ("plan_credit", -1500)]
    assert lines(found.other)[:2] == [("plan_fee", 6000), ("plan_credit", -4000)]


def test_terms_as_you_go_are_the_other_plan_s(world: World) -> None:
    found = rerated(world, "as-you-go", catalogue(plans=[plan("open", **PAYG, points_per_yuan=125_000, cap_fen=150)]))
    assert (lines(found.issued), lines(found.other)) == ([("usage", 100)], [("usage", 200), ("cap", -50)])


def test_a_plan_s_grant_that_no_subscription_ordered_has_the_other_fee_and_points(world: World) -> None:
    found = rerated(world, "granted", catalogue(plans=[plan("granted", fee_fen=5000, allowance=40_000 * POINT)]))
    assert lines(found.issued) == [("plan_fee", 3000), ("discount", -100), ("usage", 4)]
    assert lines(found.other) == [("plan_fee", 5000), ("discount", -100), ("usage", 0)]


# --- which bills ------------------------------------------------------------------------------
def test_of_a_void_bill_the_next_one_counts(tmp_path: Path) -> None:
    made = World(tmp_path)
    Story(made, "a").use(10_000)
    close(made)
    number = f"{OPERATOR}-2026-06-000001"
    made.billing.submit("void", {"request_id": "v", "number": number, "reason": "wrong"})
    with pytest.raises(MalformedCommand, match="No bill stands for 2026-06"):
        what_if(Logs(made), "2026-06", NOTHING)
    close(made)
    assert rerated(made, "a", dearer(2)).issued.number == f"{OPERATOR}-2026-06-000002"
    made.close()


# --- what is shown ----------------------------------------------------------------------------
def test_sums_rows_and_movers(world: World) -> None:
    found = [one for one in what_if(Logs(world), "2026-06", dearer(3)) if one.issued.account.startswith("mover")]
    told = sums(found)
    assert (told.more, told.less, told.same) == (2, 0, 1)
    assert [tuple(each) for each in (*told.operators, *told.kinds)] == [(OPERATOR, 11, 33), ("usage", 11, 33)]
    assert [one.issued.account for one in movers(found, 1)] == ["mover-a"]
    head, *rows = "".join(as_csv(found)).split("\r\n")[:-1]
    assert head.startswith("operator,account,bill,actual_fen,what_if_fen,difference_fen,plan_fee_difference_fen")
    cells = [row.split(",") for row in rows]
    assert [(row[1], *row[3:6]) for row in cells] == [
        ("mover-a", "10", "30", "20"),
        ("mover-b", "1", "3", "2"),
        ("mover-c", "0", "0", "0"),
    ]
    assert all(int(row[5]) == sum(map(int, row[6:])) for row in cells)


def test_subscribers_are_counted_by_powers_of_ten() -> None:
    assert buckets([0, 0, 5, -99, -100]) == [
        (-1, "-1 to 10", 1),
        (-1, "-0.1 to 1", 1),
        (-1, "-0.01 to 0.1", 0),
        (0, "0", 2),
        (1, "+0.01 to 0.1", 1),
    ]


def test_an_operator_s_bills_may_come_to_less_than_nothing() -> None:
    drawn = what_if_chart("June", [-1], [("a", -5_000, -10_000), ("b", 12_000, 3_000)])
    shown = [each.text for each in ElementTree.fromstring(drawn).iter(f"{{{SVG}}}text")]
    assert shown[-9:] == ["-150", "-100", "-50", "0", "50", "100", "150", "a", "b"]


def test_the_command_shows_a_table_and_writes_files(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bill_review, "session", lambda *_: contextlib.nullcontext(Logs(world)))
    file, rows, chart = tmp_path / "\udcc4.yaml", tmp_path / "rows.csv", tmp_path / "chart.svg"
    file.write_text(dump_catalogue(dearer(3)))
    asked = ["bill", "what-if", "2026-06", str(file)]
    assert cli.run([*asked, "--csv", str(rows), "--chart", str(chart)]) == 0
    shown = capsys.readouterr().out
    accounts = len(what_if(Logs(world), "2026-06", NOTHING))
    assert f"{rows}: {accounts} subscribers" in shown
    assert "mover-a" in shown
    assert len(list(csv.reader(rows.read_text().splitlines()))) == accounts + 1
    assert ElementTree.parse(chart).getroot().get("viewBox") == "0 0 960 728"
    nowhere = tmp_path / "nowhere" / "rows.csv"
    assert cli.run([*asked, "--csv", str(nowhere)]) == 1
    said = capsys.readouterr()
    assert "mover-a" in said.out  # what was computed is shown all the same
    assert "No such file" in said.err
    assert cli.run([*asked, "--json", "--limit", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["what_if_fen"] - told["actual_fen"] == told["difference_fen"] > 0
    assert (len(told["movers"]), told["not_computed_again"]) == (1, [])
    assert cli.run([*asked, "--operator", "nobody"]) == 1
    assert "No bill of nobody stands for 2026-06" in capsys.readouterr().err
