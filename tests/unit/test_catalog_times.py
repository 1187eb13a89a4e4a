"""Two times of everything: when it takes effect, and when it was recorded. The past is never changed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.errors import MalformedCommand, NoRateInForce, UnknownModel, UnknownOperator, UnknownPlan
from tests.unit.catalog_world import CARD, NOW, TARIFF, TODAY, TOMORROW, World, small

MAY = "2026-04-30T16:00:00Z"
JULY = "2026-06-30T16:00:00Z"
AUGUST = "2026-07-31T16:00:00Z"


def card(input_rate: int) -> list[dict[str, Any]]:
    return [CARD | {"rates": {"input": input_rate}}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A catalogue in force since May, recorded in June."""
    world = World(tmp_path)
    world.publish(MAY, **small() | {"rate_cards": card(1000)})
    yield world
    world.app.close()


def test_the_first_version_of_a_key_may_hold_in_the_past(world: World) -> None:
    assert world.input_rate(at="2026-05-10T00:00:00Z") == 1000


def test_nothing_holds_before_it_takes_effect(world: World) -> None:
    with pytest.raises(UnknownOperator):
        world.input_rate(at="2026-04-01T00:00:00Z")


def test_a_new_version_holds_from_its_instant_on(world: World) -> None:
    world.publish(JULY, rate_cards=card(2000))
    assert world.input_rate(at="2026-06-30T15:59:59Z") == 1000
    assert world.input_rate(at=JULY) == 2000


def test_an_earlier_instant_may_be_published_later(world: World) -> None:
    world.publish(AUGUST, rate_cards=card(3000))
    world.publish(JULY, rate_cards=card(2000))
    assert [world.input_rate(at=at) for at in (TOMORROW, JULY, AUGUST)] == [1000, 2000, 3000]


def test_the_price_as_we_knew_it_stays_answerable(world: World) -> None:
    world.publish(JULY, rate_cards=card(2000))
    world.clock.advance(3600)
    world.publish(JULY, rate_cards=card(1800))
    assert world.input_rate(at=JULY) == 1800
    assert world.input_rate(at=JULY, known_at=(NOW + timedelta(minutes=30)).isoformat()) == 2000
    with pytest.raises(NoRateInForce):
        world.input_rate(at=JULY, known_at=(NOW - timedelta(seconds=1)).isoformat())


def test_a_new_version_cannot_change_the_past(world: World) -> None:
    (reason,) = world.reasons(TODAY, rate_cards=card(1))
    assert reason == (
        "rate_cards.0 (east/m1): would change the past: known already, "
        "and 2026-06-17T16:00:00+00:00 is before the publication"
    )


def test_clocks_may_differ_a_little(world: World) -> None:
    tolerance_s = world.app.settings.future_max_s
    assert world.reasons((NOW - timedelta(seconds=tolerance_s + 1)).isoformat(), rate_cards=card(1))
    assert world.publish((NOW - timedelta(seconds=tolerance_s)).isoformat(), rate_cards=card(1))["published"] == 1


def test_a_clock_that_is_behind_does_not_open_the_past(world: World) -> None:
    recorded = NOW.isoformat()  # what was published last
    world.clock.advance(-3600)
    before = (NOW - timedelta(minutes=30)).isoformat()
    assert "would change the past" in world.reasons(before, rate_cards=card(1))[0]
    checked = world.app.check({"request_id": "c", "effective_from": before, "catalogue": {"rate_cards": card(1)}})
    assert len(checked["faults"]) == 1
    assert world.publish(recorded, rate_cards=card(1))["published"] == 1


def test_what_is_unchanged_may_be_published_for_the_past(world: World) -> None:
    assert world.publish(TODAY, rate_cards=card(1000))["skipped"] == 1


@pytest.mark.parametrize("effective_from", ["2026-07-01T00:00:00Z", "2026-06-30T15:59:59Z", "2026-06-30T16:00:01Z"])
def test_a_tariff_takes_effect_at_midnight_in_shanghai(world: World, effective_from: str) -> None:
    (reason,) = world.reasons(effective_from, tariffs=[TARIFF | {"retail_percent": 50}])
    assert "a tariff takes effect at midnight in Shanghai" in reason


def test_a_models_own_tariff_cannot_displace_the_pairs_in_the_past(world: World) -> None:
    own = TARIFF | {"model": "m1", "retail_percent": 50}
    (reason,) = world.reasons(TODAY, tariffs=[own])
    assert "would change the past" in reason
    assert world.publish(TOMORROW, tariffs=[own])["published"] == 1


def test_no_plan_becomes_a_trial_nor_the_other_way_round(world: World) -> None:
    plan = {"operator": "east", "plan": "p", "name": "P", "allowance": 100}
    trial, monthly = plan | {"kind": "trial", "trial_days": 7}, plan | {"kind": "monthly", "fee_fen": 2000}
    world.publish(TOMORROW, plans=[trial])
    (reason,) = world.reasons(JULY, plans=[monthly])
    assert reason == "plans.0.kind (east/p): a trial stays one, and no other plan becomes one"
    assert world.publish(JULY, plans=[trial | {"trial_days": 14}])["published"] == 1


def test_publications_are_recorded_one_after_the_other(world: World) -> None:
    # The clock stands still, or runs backwards on another machine: what was known then is still a beginning of the log.
    world.publish(JULY, rate_cards=card(2000))
    world.clock.advance(-5)
    world.publish(JULY, rate_cards=card(3000))
    versions = world.app.history({"kind": "rate_card", "key": "east/m1"})
    recorded = [datetime.fromisoformat(version["recorded_at"]) for version in versions]
    assert recorded == sorted(set(recorded))
    assert world.input_rate(at=JULY, known_at=recorded[1].isoformat()) == 2000


def test_history_gives_every_version(world: World) -> None:
    world.publish(AUGUST, rate_cards=card(3000))
    world.publish(JULY, rate_cards=card(2000))
    versions = world.app.history({"kind": "rate_card", "key": "east/m1"})
    assert [(v["reference"], v["effective_from"], v["item"]["rates"]["input"]) for v in versions] == [
        ("east/m1@1", MAY, 1000),
        ("east/m1@2", AUGUST, 3000),
        ("east/m1@3", JULY, 2000),
    ]
    assert world.app.history({"kind": "rate_card", "key": "east/none"}) == []


def test_questions_without_an_instant_are_about_now(world: World) -> None:
    world.publish(TOMORROW, rate_cards=card(5))
    assert world.input_rate() == 1000
    world.clock.advance(86400)
    assert world.input_rate() == 5


def test_what_is_not_there_has_an_error_of_its_own(world: World) -> None:
    app = world.app
    with pytest.raises(UnknownOperator):
        app.rate_card({"operator": "north", "model": "m1"})
    with pytest.raises(UnknownModel):
        app.rate_card({"operator": "east", "model": "m9"})
    with pytest.raises(NoRateInForce):
        app.rate_card({"operator": "west", "model": "m1"})
    with pytest.raises(UnknownPlan):
        app.plan({"operator": "east", "plan": "none"})
    with pytest.raises(UnknownModel):
        app.model({"model": "m9"})
    with pytest.raises(MalformedCommand):
        app.listed("models", {"page": 2})


def test_a_retired_model_can_be_looked_up(world: World) -> None:
    assert world.app.model({"model": "old"})["item"]["status"] == "retired"


def test_lists_are_chosen_and_paged(world: World) -> None:
    app = world.app
    assert [r["key"] for r in app.listed("models", {})] == ["m1", "old"]
    assert [r["key"] for r in app.listed("models", {"status": "active"})] == ["m1"]
    assert [r["key"] for r in app.listed("operators", {"limit": 1})] == ["east"]
    assert [r["key"] for r in app.listed("operators", {"after": "east"})] == ["west"]
    assert [r["key"] for r in app.listed("tariffs", {"home": "east", "model": "*"})] == ["east/west/*"]
    assert app.listed("deployments", {"model": "old"}) == []
    with pytest.raises(MalformedCommand):
        app.listed("models", {"limit": app.settings.page_max + 1})


def test_an_answer_has_every_field(world: World) -> None:
    assert world.app.listed("plans", {})[0] == {
        "key": "east/payg",
        "version": 1,
        "reference": "east/payg@1",
        "effective_from": MAY,
        "recorded_at": "2026-06-18T01:30:00Z",
        "item": {
            "operator": "east",
            "plan": "payg",
            "name": "Pay as you go",
            "kind": "payg",
            "fee_fen": 0,
            "allowance": 0,
            "scope": {"models": [], "families": []},
            "priority": 50,
            "phases": [],
            "cycle": "calendar",
            "rollover": "none",
            "rollover_max": 0,
            "overage": "refuse",
            "points_per_yuan": 250_000,
            "credit_limit": 0,
            "trial_days": 0,
            "discount_percent": 0,
            "usage_discount_percent": 0,
            "cap_fen": 0,
            "commitment_fen": 0,
            "bundle": None,
            "source": "",
        },
    }
