"""The life of a call: reservation, settlement, release, expiry, debit, reversal; as tables of cases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from services.quota.schemas import Sweep
from tests.unit.quota_world import START, World

POINT = 1000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def hold(world: World, name: str = "h1", amount: int = 1_000_000, **fields: object) -> dict[str, object]:
    return world.do("reserve", request_id=name, model="kimi-k2.5", amount=amount, **fields)


def test_a_debit_is_tokens_times_rate_exactly(world: World) -> None:
    world.open(points=10**9)
    debit = world.do("debit", model="kimi-k2.5", usage={"input": 7, "cached_input": 3, "output": 11})
    assert debit["amount"] == 7 * 1000 + 3 * 200 + 11 * 5000
    assert debit["rate_card"] == "shanghai-telecom/kimi-k2.5@1"
    assert world.balance()["available"] == 10**9 - debit["amount"]


def test_a_long_input_takes_the_higher_tier_for_every_token(world: World) -> None:
    world.open(points=10**12)
    at_threshold = world.do("debit", model="kimi-k2.5", usage={"input": 100_000, "output": 1})
    above = world.do("debit", model="kimi-k2.5", usage={"input": 100_001, "output": 1})
    assert at_threshold["amount"] == 100_000 * 1000 + 5000
    assert above["amount"] == 100_001 * 2000 + 10_000


@pytest.mark.parametrize(
    ("held", "usage_input", "debited", "released", "overdrawn"),
    [
        (1_000_000, 400, 400_000, 600_000, 0),  # below the hold: the rest goes back
        (1_000_000, 1000, 1_000_000, 0, 0),  # exactly the hold
        (1_000_000, 1500, 1_500_000, 0, 0),  # above: more is drawn
        (1_000_000, 2500, 2_500_000, 0, 500_000),  # more than there is: the account is overdrawn
        (1_000_000, 0, 0, 1_000_000, 0),  # nothing used
    ],
)
def test_settling_a_hold(
    world: World, held: int, usage_input: int, debited: int, released: int, overdrawn: int
) -> None:
    world.open(points=2_000_000)
    hold(world, amount=held)
    settled = world.do("settle", reservation="h1", usage={"input": usage_input})
    assert (settled["amount"], settled.get("released", 0), settled.get("overdrawn", 0)) == (
        debited,
        released,
        overdrawn,
    )
    balance = world.balance()
    assert balance["reserved"] == 0
    assert balance["available"] == 2_000_000 - debited


def test_a_hold_over_several_grants_gives_back_to_the_very_grants_it_came_from(world: World) -> None:
    world.open()
    world.do("grant", request_id="soon", amount=300_000, source="purchase", expires_at="2026-07-01T00:00:00Z")
    world.do("grant", request_id="never", amount=900_000, source="purchase")
    hold(world, amount=1_000_000)
    assert {n: g["reserved"] for n, g in world.grant_books().items()} == {"soon": 300_000, "never": 700_000}
    world.do("settle", reservation="h1", usage={"input": 100})
    books = world.grant_books()
    assert (books["soon"]["debited"], books["soon"]["available"]) == (100_000, 200_000)
    assert (books["never"]["debited"], books["never"]["available"]) == (0, 900_000)


def test_a_partial_grant_pays_for_what_it_can_and_says_how_much_output(world: World) -> None:
    world.open(points=1_000_000)
    wanted = {"input": 100, "output": 10_000}
    assert world.refusal("reserve", model="kimi-k2.5", max_usage=wanted) == "InsufficientQuota"
    held = world.do("reserve", model="kimi-k2.5", max_usage=wanted, accept_partial=True)
    assert held["final"] is True
    assert held["max_output_tokens"] == (1_000_000 - 100_000) // 5000
    assert held["amount"] == 100_000 + held["max_output_tokens"] * 5000


def test_a_partial_grant_that_pays_for_no_output_is_refused(world: World) -> None:
    world.open(points=100_000)
    wanted = {"input": 100, "output": 10}
    assert world.refusal("reserve", model="kimi-k2.5", max_usage=wanted, accept_partial=True) == "InsufficientQuota"


def test_a_stream_is_charged_as_it_goes(world: World) -> None:
    world.open(points=10_000_000)
    hold(world, amount=1_000_000)
    world.do("settle", reservation="h1", usage={"input": 600}, final=False)
    world.do("extend", reservation="h1", amount=500_000)
    assert world.balance()["reserved"] == 900_000
    last = world.do("settle", reservation="h1", usage={"input": 300})
    assert last["released"] == 600_000
    assert world.balance()["available"] == 10_000_000 - 900_000


def test_all_parts_of_a_call_are_of_the_tier_of_its_input_so_far(world: World) -> None:
    world.open(points=10**12)
    hold(world)
    parts = ({"input": 60_000}, {"cached_input": 40_000, "output": 1}, {"input": 1}, {"output": 1})
    made = [world.do("settle", reservation="h1", usage=part, final=part is parts[-1]) for part in parts]
    assert [part["amount"] for part in made] == [60_000 * 1000, 40_000 * 200 + 5000, 2000, 10_000]
    hold(world, "h2")  # of another call
    assert world.do("settle", reservation="h2", usage={"output": 1})["amount"] == 5000


def test_a_hold_ends_once(world: World) -> None:
    world.open(points=10_000_000)
    hold(world)
    world.do("settle", reservation="h1", usage={"input": 1})
    assert world.refusal("settle", reservation="h1", usage={"input": 1}) == "ReservationEnded"
    assert world.refusal("release", reservation="h1") == "ReservationEnded"
    hold(world, "h2")
    world.do("release", reservation="h2")
    assert world.refusal("settle", reservation="h2", usage={"input": 1}) == "ReservationEnded"
    assert world.refusal("extend", reservation="h2", amount=5) == "ReservationEnded"
    assert world.refusal("release", reservation="h3") == "UnknownReservation"


def sweep(world: World, **fields: object) -> dict[str, object]:
    world.app.follow_quota([e._asdict() for e in world.app.log.read(world.app.projector.position(), 5000)])
    return world.app.sweep(Sweep(**fields))  # type: ignore[arg-type]


def test_an_expired_hold_goes_back_and_can_still_be_settled_late(world: World) -> None:
    world.open(points=2_000_000)
    hold(world, ttl_s=60)
    assert sweep(world)["expired_reservations"] == 0
    world.clock.advance(61)
    assert sweep(world)["expired_reservations"] == 1
    assert sweep(world)["expired_reservations"] == 0
    assert world.balance()["available"] == 2_000_000
    late = world.do("settle", reservation="h1", usage={"input": 500})
    assert late["late"] is True
    assert world.balance()["available"] == 1_500_000
    assert world.refusal("settle", reservation="h1", usage={"input": 500}) == "ReservationEnded"


def test_expiry_happens_at_its_due_time_however_late_the_sweep(world: World) -> None:
    world.open(points=2_000_000)
    hold(world, ttl_s=60)
    world.clock.advance(86_400)
    sweep(world)
    (event,) = [e.event for e in world.app.log.read(0, 100) if "ReservationExpired" in e.topic]
    assert event.at == START + timedelta(seconds=60)
    assert event.recorded_at == world.clock()


def test_what_is_left_of_an_expired_grant_is_breakage(world: World) -> None:
    world.open()
    world.do("grant", request_id="g", amount=1_000_000, source="plan", expires_at="2026-06-01T12:00:00Z")
    hold(world, amount=400_000, ttl_s=86_400)
    world.clock.advance(43_200)
    assert world.balance()["available"] == 0, "an expired grant is never used, even if the sweep is late"
    assert sweep(world)["expired_grants"] == 1
    world.do("settle", reservation="h1", usage={"input": 100})
    assert sweep(world)["expired_grants"] == 1, "what the hold gave back expires too"
    book = world.grant_books()["g"]
    assert (book["debited"], book["expired"], book["available"]) == (100_000, 900_000, 0)


@pytest.mark.parametrize("amount", [None, 150_000])
def test_a_reversal_gives_back_in_reverse_order_of_the_draw(world: World, amount: int | None) -> None:
    world.open(credit_limit=1_000_000)
    world.do("grant", request_id="g", amount=100_000, source="purchase")
    world.do("debit", request_id="d", model="kimi-k2.5", usage={"input": 300})
    assert world.balance()["credit_left"] == 800_000
    world.do("reverse", debit="d", amount=amount)
    expected_credit, expected_grant = (1_000_000, 100_000) if amount is None else (950_000, 0)
    assert world.balance()["credit_left"] == expected_credit
    assert world.grant_books()["g"]["available"] == expected_grant


def test_reversals_never_exceed_the_debit(world: World) -> None:
    world.open(points=1_000_000)
    world.do("debit", request_id="d", model="kimi-k2.5", usage={"input": 300})
    world.do("reverse", debit="d", amount=200_000)
    assert world.refusal("reverse", debit="d", amount=100_001) == "ReversalExceedsDebit"
    world.do("reverse", debit="d", amount=100_000)
    assert world.refusal("reverse", debit="d") == "ReversalExceedsDebit"
    assert world.refusal("reverse", debit="g-a1") == "UnknownDebit"
    assert world.balance()["available"] == 1_000_000


def test_a_reversal_to_a_grant_that_has_ended_is_a_new_grant_of_the_same_kind(world: World) -> None:
    world.open()
    world.do(
        "grant",
        request_id="g",
        amount=1_000_000,
        source="plan",
        plan="monthly-9.9",
        scope={"families": ["kimi"]},
        expires_at="2026-06-03T00:00:00Z",
    )
    world.do("debit", request_id="d", model="kimi-k2.5", usage={"input": 300})
    world.clock.advance(2 * 86_400)
    world.do("reverse", debit="d", request_id="back")
    new = next(g for g in world.balance()["grants"] if g["source"] == "adjustment")
    assert (new["grant"], new["granted"], new["plan"]) == ("back/0", 300_000, "monthly-9.9")
    assert new["expires_at"] == "2026-06-05T00:00:00+00:00"
    assert world.grant_books()["g"]["reversed"] == 0


def test_overdrawn_is_owed_before_anything_else_is_spent(world: World) -> None:
    world.open(points=100_000)
    world.do("debit", model="kimi-k2.5", usage={"input": 300}, on_insufficient="overdraw")
    assert world.balance()["overdrawn"] == 200_000
    assert world.refusal("reserve", model="kimi-k2.5", amount=1) == "InsufficientQuota"
    world.do("grant", amount=500_000, source="purchase")
    assert world.balance()["available"] == 300_000
    assert world.refusal("reserve", model="kimi-k2.5", amount=300_001) == "InsufficientQuota"
    hold(world, amount=300_000)


def test_closing_releases_what_was_held(world: World) -> None:
    world.open(points=1_000_000)
    hold(world, amount=400_000)
    answer = world.do("close_account")
    assert answer["kind"] == "AccountClosed"
    assert world.balance()["reserved"] == 0
    assert world.refusal("settle", reservation="h1", usage={"input": 1}) == "AccountClosed"


@pytest.mark.parametrize("swept", [False, True])
def test_at_its_very_expiry_a_hold_is_late_whether_or_not_the_sweep_was_there(world: World, swept: bool) -> None:
    world.open(points=2_000_000)
    hold(world, ttl_s=60)
    world.clock.advance(60)
    if swept:
        assert sweep(world)["expired_reservations"] == 1
    assert world.refusal("extend", reservation="h1", amount=1) == "ReservationEnded"
    assert world.do("settle", reservation="h1", usage={"input": 1})["late"] is True
