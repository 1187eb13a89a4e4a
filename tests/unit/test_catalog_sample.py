"""The sample catalogue: every public offer to the fen and the point, and a price and a place for every model."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.catalog.sample import sample_catalogue, sample_publication
from shared.contracts import catalog as c
from shared.contracts.schema import parse
from tests.unit.catalog_world import NOW, World

SAMPLE = sample_catalogue()
OPERATORS = ("shanghai-telecom", "shanghai-mobile", "shanghai-unicom")
MILLION_POINTS = 1_000_000 * 1000
PLANS = {plan.key: plan for plan in SAMPLE.plans}
CARDS = {card.key: card for card in SAMPLE.rate_cards}


@pytest.mark.parametrize(
    ("key", "kind", "fee_fen", "million_points"),
    [
        ("shanghai-telecom/monthly-9.9", "monthly", 990, 10),
        ("shanghai-telecom/token-9.9", "monthly", 990, 10),
        ("shanghai-telecom/token-29.9", "monthly", 2990, 40),
        ("shanghai-telecom/token-49.9", "monthly", 4990, 80),
        ("shanghai-telecom/coding-39.9", "coding", 3990, 15),
        ("shanghai-telecom/coding-159.9", "coding", 15990, 70),
        ("shanghai-telecom/coding-299.9", "coding", 29990, 150),
        ("shanghai-unicom/opc-trial", "trial", 0, 30),
        ("shanghai-unicom/opc-token-29.9", "monthly", 2990, 40),
        ("shanghai-unicom/opc-coding-39.9", "coding", 3990, 15),
        ("shanghai-telecom/payg", "payg", 0, 0),
        ("shanghai-mobile/payg", "payg", 0, 0),
        ("shanghai-telecom/postpaid", "postpaid", 0, 0),
        ("shanghai-telecom/token-intro-19.9", "monthly", 1990, 25),
        ("shanghai-mobile/rollover-19.9", "monthly", 1990, 20),
        ("shanghai-mobile/payg-capped", "payg", 0, 0),
        ("shanghai-unicom/enterprise-committed", "postpaid", 0, 0),
    ],
)
def test_an_offers_terms(key: str, kind: str, fee_fen: int, million_points: int) -> None:
    plan = PLANS[key]
    assert (plan.kind, plan.fee_fen, plan.allowance) == (kind, fee_fen, million_points * MILLION_POINTS)


def test_a_yuan_buys_what_was_offered() -> None:
    assert PLANS["shanghai-telecom/payg"].points_per_yuan == 250_000
    assert PLANS["shanghai-mobile/payg"].points_per_yuan == 400_000
    # A point is an input token of the reference model, at both.
    assert CARDS["shanghai-telecom/kimi-k2.5"].rates.input == 1000
    assert CARDS["shanghai-mobile/kimi-k2.5"].rates.input == 1000


def test_the_other_offers_are_there() -> None:
    assert all(PLANS[f"{operator}/postpaid"].credit_limit for operator in OPERATORS)
    discounted = {key for key, plan in PLANS.items() if plan.discount_percent}
    assert discounted == {
        "shanghai-unicom/opc-token-29.9",
        "shanghai-unicom/opc-token-49.9",
        "shanghai-unicom/opc-coding-39.9",
    }
    bundles = {plan.plan: plan.bundle for plan in SAMPLE.plans if plan.bundle}
    assert set(bundles) == {"bundle-broadband", "bundle-cloud-desktop", "bundle-developer"}


def test_each_term_that_a_plan_can_have_is_in_some_offer() -> None:
    plans = SAMPLE.plans
    for name in ("phases", "rollover_max", "usage_discount_percent", "cap_fen", "commitment_fen"):
        (plan,) = (plan for plan in plans if getattr(plan, name))
        assert plan.source.startswith("assumed for the sample"), plan.key
    assert [plan.plan for plan in plans if plan.cycle == "anniversary"] == ["rollover-19.9"]
    kinds = {plan.kind for plan in plans}
    assert kinds == {"payg", "monthly", "coding", "trial", "bundle", "postpaid"}


def test_coding_plans_are_for_some_models_only() -> None:
    for plan in SAMPLE.plans:
        assert bool(plan.scope.models) == (plan.kind == "coding"), plan.key


def test_every_plan_says_where_its_terms_come_from() -> None:
    assert all(plan.source.startswith(("press, May to June 2026", "assumed")) for plan in SAMPLE.plans)


def test_more_than_thirty_models_each_with_a_rate_at_each_operator() -> None:
    assert len(SAMPLE.models) >= 30
    assert set(CARDS) == {f"{operator}/{model.model}" for operator in OPERATORS for model in SAMPLE.models}
    for card in SAMPLE.rate_cards:
        assert all(getattr(card.rates, name) > 0 for name in ("input", "cached_input", "cache_write", "output"))
        assert card.source.startswith("genai-prices 0.2.3, ")


def test_every_model_runs_at_two_to_five_data_centres_of_more_than_one_operator() -> None:
    for model in SAMPLE.models:
        places = [d for d in SAMPLE.deployments if d.model == model.model]
        assert 2 <= len(places) <= 5, model.model
        assert len({d.data_centre for d in places}) == len(places)
        assert len({d.operator for d in places}) > 1, model.model


def test_every_data_centre_and_operator_serves() -> None:
    served = Counter(d.data_centre for d in SAMPLE.deployments)
    assert len(SAMPLE.data_centres) == 8
    assert all(served[centre.data_centre] > 10 for centre in SAMPLE.data_centres)
    assert {centre.operator for centre in SAMPLE.data_centres} == set(OPERATORS)


def test_every_pair_of_operators_has_a_tariff_and_some_by_model() -> None:
    pairs = {(home, serving) for home in OPERATORS for serving in OPERATORS if home != serving}
    assert {(t.home, t.serving) for t in SAMPLE.tariffs if t.model == "*"} == pairs
    assert {(t.home, t.serving) for t in SAMPLE.tariffs if t.rates.input} == pairs
    assert any(t.discount_percent for t in SAMPLE.tariffs)


def test_each_operator_has_a_routing_policy() -> None:
    assert {policy.operator for policy in SAMPLE.policies} == set(OPERATORS)


def test_latencies_are_symmetric_and_those_of_the_distance() -> None:
    latency = {region.region: region.latency_ms for region in SAMPLE.regions}
    assert len(latency) == 9
    for here, row in latency.items():
        assert set(row) == set(latency)
        assert all(row[there] == latency[there][here] for there in latency)
    # 1,520 km from Shanghai to Gui'an on the great circle: 22.8 ms of fibre, 2 ms of equipment.
    assert latency["shanghai"]["guian"] == 25
    assert latency["shanghai"]["shanghai"] == 2


def test_it_takes_effect_at_midnight_in_shanghai() -> None:
    publication = sample_publication(datetime(2026, 6, 17, 16, 30, tzinfo=UTC))
    assert publication["effective_from"] == "2026-06-17T16:00:00+00:00"
    assert publication["request_id"].startswith("sample-2026-06-18-")
    with pytest.raises(ValueError, match="time zone"):
        sample_publication(datetime(2026, 6, 18))  # noqa: DTZ001


def test_it_is_the_same_every_time() -> None:
    sample_publication.__globals__["_sample"].cache_clear()
    assert sample_catalogue() == SAMPLE
    first, second = sample_publication(NOW), sample_publication(NOW + timedelta(hours=1))
    assert first == second
    assert parse(c.Publish, first) == parse(c.Publish, msgspec.json.decode(msgspec.json.encode(second)))


def test_it_can_be_published_once_and_for_all(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.app.publish(sample_publication(NOW))
    # Packages are sold at a fraction of the price as you go, of which wholesale is a share: the warnings say so.
    assert {warning.partition(": ")[0] for warning in first["warnings"]} == {
        plan.key for plan in SAMPLE.plans if plan.kind in ("monthly", "coding", "bundle")
    }
    assert first["published"] == first["last_position"] - 1 > 300
    (imported,) = world.app.imports({})
    assert (imported["package"], imported["priced"], imported["unpriced"]) == ("genai-prices", len(SAMPLE.models), [])
    assert imported["position"] == 1
    assert world.app.publish(sample_publication(NOW)) == first | {"replayed": True}
    tomorrow: dict[str, Any] = world.app.publish(sample_publication(NOW + timedelta(days=1)))
    assert (tomorrow["published"], tomorrow["skipped"]) == (0, first["published"])
    world.app.close()
