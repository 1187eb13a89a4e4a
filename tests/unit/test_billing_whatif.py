"""What-if: a month's bills under another catalogue. 1,000 input tokens of kimi are 1,000 points; 2,500 points a fen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.billing.whatif import what_if
from services.billing.whatif_chart import buckets
from services.billing.whatif_sums import as_csv, movers, sums
from shared.contracts.catalog import Catalogue
from shared.errors import MalformedCommand
from tests.simulation.year import Year
from tests.unit.audit_world import CATALOGUE, JULY, JUNE, Tampering, two_months
from tests.unit.subscription_world import OPERATOR, POINT, World, plan
from tests.unit.whatif_world import Logs, card, catalogue, charged, closed, dearer, lines, rerated

NOTHING = Catalogue()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# --- the same catalogue gives the same bills --------------------------------------------------
def test_the_same_catalogue_gives_every_bill_again(tmp_path: Path, seed: int) -> None:
    market = two_months(tmp_path, seed)
    for other in (NOTHING, catalogue(**CATALOGUE)):
        for period in (JUNE, JULY):
            found = what_if(market.client, period, other)
            assert found
            assert [one.other for one in found] == [one.issued for one in found]
    market.close()


def test_the_same_catalogue_gives_every_bill_of_subscribers_again(tmp_path: Path, seed: int) -> None:
    year = Year(tmp_path, seed, subscribers=8)
    for _ in range(32):
        year.day(actions=12)
    year.down_until = year.clock.now
    year.work()
    year.close_month("2028-01")
    found = what_if(year.client, "2028-01", _unchanged(year))
    assert len({line.kind for one in found for line in one.issued.lines}) > 2
    assert [one.other for one in found] == [one.issued for one in found]
    year.close()


def _unchanged(year: Year) -> Catalogue:
    """All rate cards and plans that had one version only."""
    events = [e.event for e in year.catalog.log.read(0, 1000)]
    cards = [e.item for e in events if type(e).__name__ == "RateCardPublished"]
    plans = [e.item for e in events if type(e).__name__ == "PlanPublished"]
    assert cards and plans

    def once(items: list) -> tuple:
        keys = [item.key for item in items]
        return tuple(item for item in items if keys.count(item.key) == 1)

    return Catalogue(rate_cards=once(cards), plans=once(plans))


# --- other rates ------------------------------------------------------------------------------
def test_twice_the_rates_is_twice_the_charges_where_nothing_was_granted(world: World) -> None:
    world.open()
    world.use(3_000)
    world.use(4_001)
    found = rerated(closed(world), dearer(2))
    assert (charged(found.issued), charged(found.other)) == (7_001, 14_002)
    assert (lines(found.issued), lines(found.other)) == ([("usage", 3)], [("usage", 6)])
    assert found.other.lines[0].rate_card == f"{OPERATOR}/kimi@2"
    assert found.other.lines[0].usage == found.issued.lines[0].usage


@pytest.mark.parametrize(
    ("granted", "uses", "factor", "in_fact", "then"),
    [
        ((100,), (60,), 2, 0, 20),  # what the grant does not cover is charged
        ((100, 100), (60,), 3, 0, 0),  # another grant covers it
        ((100,), (60, 40), 2, 0, 100),  # the first call takes what the second had
        ((100,), (60, 60), 0, 20, 0),  # saved points are there for later calls
        ((), (60, 60), 3, 120, 360),  # all is charged
    ],
)
def test_points_are_drawn_anew(
    world: World, granted: tuple[int, ...], uses: tuple[int, ...], factor: int, in_fact: int, then: int
) -> None:
    world.open()
    for points in granted:
        world.of_quota("grant", amount=points * POINT, source="purchase", price_fen=points)
    for points in uses:
        world.use(points)
    found = rerated(closed(world), dearer(factor))
    assert (charged(found.issued), charged(found.other)) == (in_fact, then)


def test_a_call_of_the_same_price_takes_what_a_dearer_one_has_left(world: World) -> None:
    world.publish(models=[{"model": "other", "family": "o", "developer": "O"}], rate_cards=[card(model="other")])
    world.open()
    world.of_quota("grant", amount=100 * POINT, source="purchase")
    world.use(60)
    world.of_quota("debit", model="other", usage={"input": 40}, on_insufficient="overdraw")
    found = rerated(closed(world), dearer(2))
    assert {line.model: line.charged // POINT for line in found.other.lines if line.model} == {
        "kimi": 20,
        "other": 40,
    } or {line.model: line.charged // POINT for line in found.other.lines if line.model} == {"kimi": 20, "other": 40}


def test_grants_that_cannot_pay_do_not(world: World) -> None:
    world.open()
    world.of_quota("grant", amount=50 * POINT, source="purchase")
    world.of_quota("grant", amount=50 * POINT, source="purchase", scope={"models": ["another"]})
    world.of_quota("grant", amount=50 * POINT, source="purchase", effective_at="2026-06-20T00:00:00Z")
    world.of_quota("grant", amount=50 * POINT, source="purchase", request_id="gone")
    world.of_quota("void_grant", grant="gone")
    world.of_quota("grant", amount=50 * POINT, source="purchase", expires_at="2026-06-02T00:00:00Z")
    world.at("2026-06-10")
    world.use(50)
    assert charged(rerated(closed(world), dearer(2)).other) == 50


@pytest.mark.parametrize(("back", "left"), [((60,), 0), ((30,), 60), ((10, 20, 30), 0), ((1,), 118)])
def test_a_reversal_gives_back_its_share_of_the_new_amount(world: World, back: tuple[int, ...], left: int) -> None:
    world.open()
    world.of_quota("debit", request_id="d", model="kimi", usage={"input": 60}, on_insufficient="overdraw")
    for points in back:
        world.of_quota("reverse", debit="d", amount=points * POINT)
    assert charged(rerated(closed(world), dearer(2)).other) == left


def test_what_came_back_is_there_for_later_calls(world: World) -> None:
    world.open()
    world.of_quota("grant", amount=120 * POINT, source="purchase")
    world.of_quota("debit", request_id="d", model="kimi", usage={"input": 60}, on_insufficient="overdraw")
    world.of_quota("reverse", debit="d")
    world.use(60)
    assert charged(rerated(closed(world), dearer(2)).other) == 0
    assert charged(rerated(world, dearer(3)).other) == 60


def test_off_peak_is_when_the_call_began(world: World) -> None:
    night = {"from_minute": 0, "to_minute": 480, "rates": {"input": 500}}
    world.open(credit_limit=10**9)
    world.at("2026-06-10 07:59")
    held = world.of_quota("reserve", model="kimi", amount=100 * POINT, ttl_s=3600)["request_id"]
    world.at("2026-06-10 08:10")
    world.of_quota("settle", reservation=held, usage={"input": 100})
    assert charged(rerated(closed(world), catalogue(rate_cards=[card(off_peak=[night])])).other) == 50


# --- other plans ------------------------------------------------------------------------------
def test_a_dearer_fee_moves_fee_lines_alone(world: World) -> None:
    world.open()
    world.take("small")
    world.take("reduced")
    world.use(70_000)
    other = catalogue(plans=[plan("small", fee_fen=3500), plan("reduced", fee_fen=4000, discount_percent=20)])
    found = rerated(closed(world), other)
    assert lines(found.issued) == [("plan_fee", 3000), ("plan_fee", 3000), ("discount", -600), ("usage", 4)]
    assert lines(found.other) == [("plan_fee", 3500), ("plan_fee", 4000), ("discount", -800), ("usage", 4)]


@pytest.mark.parametrize(("allowance", "then"), [(50_000, 0), (35_000, 5_000), (10_000, 30_000), (0, 40_000)])
def test_another_allowance_pays_for_other_usage(world: World, allowance: int, then: int) -> None:
    world.open()
    world.take("small")
    world.use(40_000)
    found = rerated(closed(world), catalogue(plans=[plan("small", allowance=allowance * POINT)]))
    assert (charged(found.issued), charged(found.other)) == (10_000, then)


def test_the_phase_is_that_of_the_months_on_the_plan(world: World) -> None:
    world.open()
    world.take("welcome")
    closed(world)
    closed(world, "2026-07")
    phases = [{"months": 1, "fee_fen": 100}, {"months": 1, "name": "second", "fee_fen": 200}]
    other = catalogue(plans=[plan("welcome", phases=phases)])
    assert lines(rerated(world, other).other) == [("plan_fee", 100)]
    july = rerated(world, other, "2026-07").other
    assert [(line.text, line.fen) for line in july.lines] == [("Welcome: second", 200)]


def test_what_is_given_back_of_a_cut_period_follows_its_price(world: World) -> None:
    world.open()
    taken = world.take("small")
    world.use(15_000)
    world.at("2026-06-11")
    world.ask("end_subscription", subscription=taken, at_once=True)
    # In fact half of the points are left; by the other plan three quarters, and 20 of 30 days.
    found = rerated(closed(world), catalogue(plans=[plan("small", fee_fen=6000, allowance=60_000 * POINT)]))
    assert lines(found.issued)[:2] == [("plan_fee", 3000), ("plan_credit", -1500)]
    assert lines(found.other)[:2] == [("plan_fee", 6000), ("plan_credit", -4000)]


def test_terms_as_you_go_are_the_other_plan_s(world: World) -> None:
    payg = {"kind": "payg", "fee_fen": 0, "allowance": 0, "overage": "payg"}
    world.publish(plans=[plan("open", **payg)])
    world.open(plan="open")
    world.use(250_000)
    found = rerated(closed(world), catalogue(plans=[plan("open", **payg, points_per_yuan=125_000, cap_fen=150)]))
    assert (lines(found.issued), lines(found.other)) == ([("usage", 100)], [("usage", 200), ("cap", -50)])


def test_a_plan_s_grant_that_no_subscription_ordered_has_the_other_fee_and_points(world: World) -> None:
    world.open()
    about = {"source": "plan", "plan": "small", "plan_version": 1}
    world.of_quota("grant", amount=30_000 * POINT, price_fen=2900, **about)
    world.use(40_000)
    found = rerated(closed(world), catalogue(plans=[plan("small", fee_fen=5000, allowance=40_000 * POINT)]))
    assert lines(found.issued) == [("plan_fee", 3000), ("discount", -100), ("usage", 4)]
    assert lines(found.other) == [("plan_fee", 5000), ("discount", -100), ("usage", 0)]


# --- which bills ------------------------------------------------------------------------------
def test_what_came_behind_the_cut_off_does_not_count(world: World) -> None:
    world.open()
    world.use(10_000)
    closed(world)
    world.of_quota(
        "debit", model="kimi", usage={"input": 5_000}, on_insufficient="overdraw", occurred_at="2026-06-20T00:00:00Z"
    )
    assert charged(rerated(world, dearer(3)).other) == 30_000


def test_of_a_void_bill_the_next_one_counts(world: World) -> None:
    world.open()
    world.use(10_000)
    number = f"{OPERATOR}-2026-06-000001"
    closed(world).billing.submit("void", {"request_id": "v", "number": number, "reason": "wrong"})
    with pytest.raises(MalformedCommand, match="No bill stands for 2026-06"):
        what_if(Logs(world), "2026-06", NOTHING)
    closed(world)
    assert rerated(world, dearer(2)).issued.number == f"{OPERATOR}-2026-06-000002"


def test_a_bill_that_the_logs_do_not_give_again_is_named(tmp_path: Path, seed: int) -> None:
    market = two_months(tmp_path, seed, events=60)
    first = next(e for e in market.billing.log.read(0, 1000) if e.topic == "billing.BillIssued:1")
    client = Tampering(market.client)
    client.event("billing", first.position, lambda event: event["bill"].update(total_fen=10**9))
    found = sums(what_if(client, JUNE, NOTHING))
    assert found.unlike == [first.fields["bill"]["number"]]
    market.close()


# --- what is shown ----------------------------------------------------------------------------
def test_sums_rows_and_movers(world: World) -> None:
    for account, points in (("a", 25_000), ("b", 2_500), ("c", 0)):
        world.open(account)
        if points:
            world.use(points, account)
    found = what_if(Logs(closed(world)), "2026-06", dearer(3))
    told = sums(found)
    assert (told.more, told.less, told.same) == (2, 0, 1)
    assert [tuple(each) for each in (*told.operators, *told.kinds)] == [(OPERATOR, 11, 33), ("usage", 11, 33)]
    assert [one.issued.account for one in movers(found, 1)] == ["a"]
    head, *rows = "".join(as_csv(found)).split("\r\n")[:-1]
    assert head.startswith("operator,account,bill,actual_fen,what_if_fen,difference_fen,plan_fee_difference_fen")
    assert [row.split(",")[1:6] for row in rows] == [
        ["a", f"{OPERATOR}-2026-06-000001", "10", "30", "20"],
        ["b", f"{OPERATOR}-2026-06-000002", "1", "3", "2"],
        ["c", f"{OPERATOR}-2026-06-000003", "0", "0", "0"],
    ]


def test_subscribers_are_counted_by_powers_of_ten() -> None:
    assert buckets([0, 0, 5, -99, -100]) == [
        (-1, "-1 to 10", 1),
        (-1, "-0.1 to 1", 1),
        (-1, "-0.01 to 0.1", 0),
        (0, "0", 2),
        (1, "+0.01 to 0.1", 1),
    ]
