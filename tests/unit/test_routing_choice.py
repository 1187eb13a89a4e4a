"""Filters and scores as tables: which deployment a call goes to, and why not to the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from services.routing.domain.capacity import Lease
from services.routing.domain.choice import Choice, choose
from services.routing.domain.fleet import Fleet, epoch_ms
from services.routing.domain.market import survey
from shared.contracts import catalog as c
from shared.contracts.base import Part, Rates
from shared.contracts.routing import Route
from shared.errors import MalformedCommand, NoDeployment, NoRateInForce, UnknownModel, UnknownOperator
from tests.unit.routing_world import RETAIL, START, deployment, market, view_of

NOW_MS = epoch_ms(START)


def choice(items: list[Part] | None = None, fleet: Fleet | None = None, at: datetime = START, **changes: Any) -> Choice:
    fields: dict[str, Any] = {"operator": "beijing", "call": "c", "account": "alice", "model": "alpha", "tokens": 1000}
    call = Route(**(fields | changes))
    found = survey(view_of(market() if items is None else items), call.operator, call.model, call.region, at)
    return choose(found, fleet or Fleet(), call, at, NOW_MS)


def reasons(found: Choice) -> dict[str, str]:
    return {one.deployment: one.reason for one in found.rejected}


def parts(found: Choice, name: str) -> dict[str, Any]:
    (score,) = [s for s in found.scores if s.deployment == name]
    return msgspec.structs.asdict(score)


def replaced(kind: type[Part], key: str, **changes: Any) -> list[Part]:
    """The small market with one item otherwise."""
    return [
        msgspec.structs.replace(item, **changes) if isinstance(item, kind) and item.key == key else item  # type: ignore[attr-defined]
        for item in market()
    ]


# --- hard filters ------------------------------------------------------------------------------
def full(name: str) -> Fleet:
    fleet = Fleet()
    for n in range(100):
        fleet.capacity.take(Lease(f"other{n}", name, 0, NOW_MS, NOW_MS + 1000))
    return fleet


def out_of_tokens(name: str) -> Fleet:
    fleet = Fleet()
    fleet.capacity.take(Lease("other", name, 999_001, NOW_MS, NOW_MS + 1000))
    return fleet


def failing(name: str) -> Fleet:
    fleet = Fleet()
    for n in range(5):
        fleet.health_of(name).observe(f"other{n}", "error", NOW_MS)
    return fleet


@pytest.mark.parametrize(
    ("reason", "name", "arrangement"),
    [
        ("excluded", "bj-a", {"exclude": ("bj-a",)}),
        ("no-agreement", "nx-a", {}),
        ("residency", "gz-a", {"residency": ("cn-bj",)}),
        ("residency", "gz-a", {"residency": ("cn", "cn-bj")}),
        ("circuit-open", "bj-a", {"fleet": failing("bj-a")}),
        ("calls-exhausted", "bj-a", {"fleet": full("bj-a")}),
        ("tokens-exhausted", "bj-a", {"fleet": out_of_tokens("bj-a")}),
        ("data-centre-unknown", "bj-a", {"items": replaced(c.Deployment, "bj-a", data_centre="nowhere")}),
        ("calls-exhausted", "bj-a", {"items": replaced(c.Deployment, "bj-a", concurrent_calls=0)}),
        ("tokens-exhausted", "bj-a", {"items": replaced(c.Deployment, "bj-a", tokens_per_minute=0), "tokens": 0}),
        ("tokens-exhausted", "bj-a", {"items": replaced(c.Deployment, "bj-a", tokens_per_minute=999)}),
        (
            "price-cap",  # wholesale above what the subscriber pays
            "gz-a",
            {"items": replaced(c.Tariff, "beijing/guizhou/*", rates=Rates(output=9_000)), "price_cap": 4_000_000},
        ),
    ],
)
def test_a_filter_takes_a_candidate_out_and_says_why(reason: str, name: str, arrangement: dict[str, Any]) -> None:
    found = choice(**arrangement)
    assert reasons(found)[name] == reason
    assert name not in [score.deployment for score in found.scores]
    assert name not in found.fallbacks


def test_who_serves_nothing_of_the_model_is_no_candidate() -> None:
    found = choice([*market(), deployment("bj-beta", "beijing", model="beta")])
    named = {score.deployment for score in found.scores} | set(reasons(found))
    assert named == {"bj-a", "bj-b", "gz-a", "nx-a"}


def test_labels_of_residency_must_all_be_carried() -> None:
    assert choice(residency=("cn", "cn-gz")).chosen.deployment == "gz-a"


@pytest.mark.parametrize(("tokens", "passes"), [(999, True), (1_000, False)])
def test_the_last_tokens_of_the_minute_may_be_used_up(tokens: int, passes: bool) -> None:
    found = choice(fleet=out_of_tokens("bj-a"), tokens=tokens)
    assert ("bj-a" not in reasons(found)) == passes


@pytest.mark.parametrize(
    ("tokens", "input_tokens", "cap", "passes"),
    [
        (1_000, 0, 4_000_000, True),  # any of the tokens may be output, at 4,000 points per 1,000
        (1_000, 0, 3_999_999, False),
        (1_000, 600, 600 * 1_000 + 400 * 4_000, True),
        (1_000, 600, 600 * 1_000 + 400 * 4_000 - 1, False),
        (0, 0, 0, True),
    ],
)
def test_the_price_cap_holds_for_the_dearest_use_the_call_may_make(
    tokens: int, input_tokens: int, cap: int, passes: bool
) -> None:
    arrangement: dict[str, Any] = {"tokens": tokens, "input_tokens": input_tokens, "price_cap": cap}
    if passes:
        assert choice(**arrangement).chosen.deployment == "bj-a"
    else:
        with pytest.raises(NoDeployment):
            choice(**arrangement)


def test_nothing_left_names_every_candidates_reason() -> None:
    with pytest.raises(NoDeployment) as refused:
        choice(exclude=("bj-a", "bj-b"), residency=("cn-bj",))
    assert refused.value.details["rejected"] == [
        {"deployment": "bj-a", "reason": "excluded"},
        {"deployment": "bj-b", "reason": "excluded"},
        {"deployment": "gz-a", "reason": "residency"},
        {"deployment": "nx-a", "reason": "no-agreement"},
    ]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"operator": "nobody"}, UnknownOperator),
        ({"model": "nothing"}, UnknownModel),
        ({"model": "old"}, UnknownModel),
        ({"model": "beta"}, NoRateInForce),
        ({"operator": "guizhou"}, NoRateInForce),
        ({"region": "atlantis"}, MalformedCommand),
        ({"at": datetime(2025, 1, 1, tzinfo=UTC)}, UnknownOperator),  # before anything was published
    ],
)
def test_what_the_catalogue_does_not_know(changes: dict[str, Any], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        choice(**changes)


# --- scores ------------------------------------------------------------------------------------
def test_the_parts_of_a_score_are_weight_times_share() -> None:
    # no policy: 40 price, 30 latency, 20 load, 5 carbon, 5 preference
    assert parts(choice(), "gz-a") == {
        "deployment": "gz-a",
        "serving_operator": "guizhou",
        "total": 40 * 600 + 30 * 40 + 5 * 100,
        "price": 40 * 600,  # guizhou gets 60 % of retail
        "latency": 30 * 40,  # 40 ms there
        "load": 0,
        "carbon": 5 * 100,  # 100 g/kWh
        "preference": 0,
    }


@pytest.mark.parametrize(
    ("terms", "share"),
    [
        ({"retail_percent": 60}, 600),
        ({"retail_percent": 60, "discount_percent": 50}, 300),
        ({"retail_percent": 100}, 1_000),
        ({"rates": RETAIL}, 1_000),
        ({"rates": Rates(input=500, output=2_000)}, 500),
        ({"rates": Rates(input=500, output=2_000), "discount_percent": 20}, 400),
        ({"rates": Rates(input=9_000, output=9_000)}, 1_000),  # a loss counts as no margin at all
        ({"retail_percent": 0}, 0),
    ],
)
def test_the_price_share_is_what_of_retail_goes_to_the_serving_operator(terms: dict[str, Any], share: int) -> None:
    found = choice(replaced(c.Tariff, "beijing/guizhou/*", **({"retail_percent": 0} | terms)))
    assert parts(found, "gz-a")["price"] == 40 * share


def test_the_models_own_tariff_goes_before_the_pairs() -> None:
    own = c.Tariff(home="beijing", serving="guizhou", model="alpha", retail_percent=10)
    found = choice([*market(), own], residency=("cn-gz",))
    assert found.chosen.tariff == "beijing/guizhou/alpha@1"
    assert parts(found, "gz-a")["price"] == 40 * 100


def test_latency_is_round_trip_and_measured_time_to_first_token() -> None:
    fleet = Fleet()
    for n in range(10):
        fleet.health_of("gz-a").observe(f"o{n}", "ok", NOW_MS, ttft_ms=300)
        fleet.health_of("bj-a").observe(f"o{n}", "ok", NOW_MS, ttft_ms=100)
    found = choice(fleet=fleet)
    assert parts(found, "gz-a")["latency"] == 30 * 340
    assert parts(found, "bj-a")["latency"] == 30 * 100
    assert parts(found, "bj-b")["latency"] == 30 * 200  # not measured: as the others on average


@pytest.mark.parametrize(
    ("region", "latency"), [("", 40), ("beijing-region", 40), ("guizhou-region", 0), ("ningxia-region", 200)]
)
def test_the_users_region_decides_the_round_trip(region: str, latency: int) -> None:
    items = [*market(), c.Region(region="ningxia-region", name="", latency_ms={})]
    assert parts(choice(items, region=region), "gz-a")["latency"] == 30 * latency


@pytest.mark.parametrize(("calls", "tokens", "share"), [(0, 0, 0), (50, 0, 500), (10, 40_000, 400), (10, 1_000, 100)])
def test_load_is_the_fuller_of_calls_and_tokens(calls: int, tokens: int, share: int) -> None:
    fleet = Fleet()
    for n in range(calls):
        fleet.capacity.take(Lease(f"other{n}", "bj-a", tokens // calls * 10, NOW_MS, NOW_MS + 1000))
    assert parts(choice(fleet=fleet), "bj-a")["load"] == 20 * share


def test_a_throttled_deployment_counts_as_full_but_is_not_taken_out() -> None:
    fleet = Fleet()
    fleet.health_of("bj-a").observe("other", "throttled", NOW_MS)
    found = choice(fleet=fleet)
    assert parts(found, "bj-a")["load"] == 20 * 1_000
    assert found.chosen.deployment == "bj-b"


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ({}, "bj-a"),
        ({"price": 0, "latency": 0, "carbon": 100}, "gz-a"),
        ({"preference": 1000, "preferred": ("guizhou",)}, "gz-a"),
        ({"preference": 1000, "preferred": ("bj-b", "guizhou")}, "bj-b"),
        ({"preference": 1000, "preferred": ("guizhou-1", "beijing")}, "gz-a"),
    ],
)
def test_the_weights_are_those_of_the_policy_in_force(policy: dict[str, Any], chosen: str) -> None:
    found = choice([*market(), c.Policy(operator="beijing", **policy)])
    assert found.chosen.deployment == chosen


def test_an_absurd_weight_does_not_break_the_integers() -> None:
    found = choice([*market(), c.Policy(operator="beijing", price=9 * 10**15)])
    assert parts(found, "gz-a")["total"] < 2**53


def test_of_equals_the_first_name_wins_and_the_rest_follows_as_fallbacks() -> None:
    found = choice()
    assert found.chosen.deployment == "bj-a"
    assert found.fallbacks == ("bj-b", "gz-a")
    assert [score.deployment for score in found.scores] == ["bj-a", "bj-b", "gz-a"]


def test_the_order_of_publication_does_not_matter() -> None:
    assert choice(list(reversed(market()))) == choice(market())


def test_a_half_open_deployment_is_probed_but_is_no_fallback() -> None:
    fleet = failing("bj-b")
    half_open_ms = NOW_MS + 5_000
    found = survey(view_of(market()), "beijing", "alpha", "", START)
    call = Route(operator="beijing", call="c", account="alice", model="alpha")
    result = choose(found, fleet, call, START, half_open_ms)
    assert [s.deployment for s in result.scores] == ["bj-a", "bj-b", "gz-a"]
    assert result.fallbacks == ("gz-a",)


# --- the rates that will apply -----------------------------------------------------------------
def test_a_long_input_takes_the_tiers_rates() -> None:
    dear = Rates(input=2_000, output=8_000)
    items = replaced(c.RateCard, "beijing/alpha", tiers=(c.Tier(above_input_tokens=500, rates=dear),))
    assert choice(items, input_tokens=500).rates == RETAIL
    assert choice(items, input_tokens=501).rates == dear


def test_the_hour_decides_the_rates() -> None:
    cheap = Rates(input=500, output=2_000)
    night = c.OffPeak(from_minute=23 * 60, to_minute=7 * 60, rates=cheap)
    items = replaced(c.RateCard, "beijing/alpha", off_peak=(night,))
    assert choice(items).rates == RETAIL  # noon in Shanghai
    assert choice(items, at=START + timedelta(hours=12)).rates == cheap
