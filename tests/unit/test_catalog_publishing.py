"""Publishing: whole or not at all, once for the same request, and every reason against it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.contracts import catalog as c
from shared.errors import CatalogueConflict, IdempotencyConflict, LimitExceeded, MalformedCommand
from tests.unit.catalog_world import CARD, DEPLOYMENT, LAST_MONTH, TARIFF, TODAY, TOMORROW, World, small


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.app.close()


@pytest.fixture
def stocked(world: World) -> World:
    world.publish(LAST_MONTH.replace("00:00", "16:00"), **small())
    return world


def test_a_publication_says_what_it_did(world: World) -> None:
    answer = world.publish(TODAY, "first", **small())
    assert answer == {
        "published": 10,
        "skipped": 0,
        "first_position": 1,
        "last_position": 10,
        "effective_from": TODAY,
        "warnings": [],
        "replayed": False,
    }


def test_what_holds_already_unchanged_is_skipped(stocked: World) -> None:
    answer = stocked.publish(TODAY, **small())
    assert (answer["published"], answer["skipped"], answer["first_position"]) == (0, 10, 0)
    assert stocked.app.log.head() == 10


def test_only_what_changed_is_published(stocked: World) -> None:
    dearer = CARD | {"rates": {"input": 2000}}
    answer = stocked.publish(TOMORROW, **small() | {"rate_cards": [dearer]})
    assert (answer["published"], answer["skipped"], answer["first_position"], answer["last_position"]) == (1, 9, 11, 11)


def test_the_same_request_gets_the_same_answer(world: World) -> None:
    first = world.publish(TODAY, "once", **small())
    world.publish(TOMORROW, rate_cards=[CARD | {"rates": {"input": 7}}])
    assert world.publish(TODAY, "once", **small()) == first | {"replayed": True}
    assert world.app.log.head() == 11


def test_a_replay_repeats_the_warnings_of_its_time(stocked: World) -> None:
    below = TARIFF | {"retail_percent": 0, "model": "m1", "rates": {"input": 1500}}
    first = stocked.publish(TOMORROW, "once", tariffs=[below])
    assert len(first["warnings"]) == 1
    stocked.publish(TOMORROW, rate_cards=[CARD | {"rates": {"input": 9000, "output": 9000}}])
    assert stocked.publish(TOMORROW, "once", tariffs=[below]) == first | {"replayed": True}


def test_another_publication_under_the_same_request_is_refused(world: World) -> None:
    world.publish(TODAY, "once", **small())
    with pytest.raises(IdempotencyConflict):
        world.publish(TOMORROW, "once", **small())


def test_a_malformed_publication_names_every_field(world: World) -> None:
    with pytest.raises(MalformedCommand) as refusal:
        world.publish("yesterday", models=[{"model": "M1", "family": "m", "developer": "D"}], plan=[])
    assert set(refusal.value.details["fields"]) == {"effective_from", "catalogue.models.0.model", "catalogue.plan"}
    assert world.app.log.head() == 0


def test_publications_that_wait_together_are_decided_in_turn(stocked: World) -> None:
    def command(request_id: str, **items: Any) -> c.Publish:
        fields = {"request_id": request_id, "effective_from": TOMORROW, "catalogue": items}
        return msgspec.convert(fields, c.Publish)

    model = {"model": "m2", "family": "m", "developer": "D"}
    first, refused, second = stocked.app.writer.execute(
        [
            command("a", models=[model]),
            command("b", rate_cards=[CARD | {"operator": "north"}]),
            command("c", models=[model], rate_cards=[CARD | {"model": "m2"}]),
        ]
    )
    assert isinstance(refused, CatalogueConflict)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["first_position"], second["first_position"], second["skipped"]) == (11, 12, 1)


def test_an_import_is_recorded_when_it_says_something_new(stocked: World) -> None:
    imported = {"package": "p", "package_version": "1", "content_sha256": "aa", "fen_per_usd": 712, "priced": 1}
    for n, (version, recorded) in enumerate([("1", 1), ("1", 1), ("2", 2), ("1", 3)]):
        fields = {"request_id": f"i{n}", "effective_from": TODAY, "catalogue": {}}
        answer = stocked.app.publish({**fields, "imported": imported | {"package_version": version}})
        assert answer["published"] == 0
        assert len(stocked.app.imports({})) == recorded
    assert [i["version"] for i in stocked.app.imports({"after": 11, "limit": 1})] == [2]


def test_a_publication_has_a_bound(world: World) -> None:
    world.app.settings.batch_max = 3
    with pytest.raises(LimitExceeded):
        world.publish(TODAY, **small())


# Each: what is published on top of the small catalogue, and the one reason against it.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("twice the same key", {"rate_cards": [CARD, CARD]}, "rate_cards.1 (east/m1): stands twice: also at rate_cards.0"),
    (
        "tiers that do not ascend",
        {
            "rate_cards": [
                CARD
                | {
                    "tiers": [
                        {"above_input_tokens": 9, "rates": {}},
                        {"above_input_tokens": 9, "rates": {}},
                    ]
                }
            ]
        },
        "rate_cards.0.tiers.1 (east/m1): tiers must ascend: 9 after 9",
    ),
    (
        "hours that overlap over midnight",
        {
            "rate_cards": [
                CARD
                | {
                    "off_peak": [
                        {"from_minute": 1320, "to_minute": 60, "rates": {}},
                        {"from_minute": 30, "to_minute": 120, "rates": {}},
                    ]
                }
            ]
        },
        "rate_cards.0.off_peak.1 (east/m1): overlaps off_peak.0: one minute cannot have two rates",
    ),
    (
        "hours that are none",
        {"rate_cards": [CARD | {"off_peak": [{"from_minute": 60, "to_minute": 60, "rates": {}}]}]},
        "rate_cards.0.off_peak.0 (east/m1): from 60 to 60 is no part of a day",
    ),
    (
        "a rate card of an unknown operator",
        {"rate_cards": [CARD | {"operator": "north"}]},
        "rate_cards.0.operator (north/m1): no operator 'north' is in force then",
    ),
    (
        "a rate card of an unknown model",
        {"rate_cards": [CARD | {"model": "m9"}]},
        "rate_cards.0.model (east/m9): no model 'm9' is in force then",
    ),
    (
        "sale of a retired model",
        {"rate_cards": [CARD | {"model": "old"}]},
        "rate_cards.0.model (east/old): the model 'old' is retired: it is not sold",
    ),
    (
        "a deployment of a retired model",
        {"deployments": [DEPLOYMENT | {"deployment": "d2", "model": "old"}]},
        "deployments.0.model (d2): the model 'old' is retired: it is not sold",
    ),
    (
        "a deployment by another than the data centre's operator",
        {"deployments": [DEPLOYMENT | {"deployment": "d2", "operator": "east"}]},
        "deployments.0.operator (d2): hub is run by west, not by east",
    ),
    (
        "a data centre that changes hands under a deployment",
        {"data_centres": [{"data_centre": "hub", "name": "Hub", "region": "coast", "operator": "east"}]},
        "data_centres.0.operator (hub): the deployment m1-hub there is run by west",
    ),
    (
        "latency to an unknown region",
        {"regions": [{"region": "hills", "name": "Hills", "latency_ms": {"moon": 2600}}]},
        "regions.0.latency_ms.moon (hills): no region 'moon' is in force then",
    ),
    (
        "a plan for an unknown family",
        {"plans": [{"operator": "east", "plan": "p", "name": "P", "kind": "payg", "scope": {"families": ["z"]}}]},
        "plans.0.scope.families.0 (east/p): no model on sale is of the family 'z'",
    ),
    (
        "a plan for an unknown model",
        {"plans": [{"operator": "east", "plan": "p", "name": "P", "kind": "payg", "scope": {"models": ["z"]}}]},
        "plans.0.scope.models.0 (east/p): no model 'z' is in force then",
    ),
    (
        "a plan that becomes a trial",
        {
            "plans": [
                {
                    "operator": "east",
                    "plan": "payg",
                    "name": "Try",
                    "kind": "trial",
                    "allowance": 1,
                    "trial_days": 7,
                }
            ]
        },
        "plans.0.kind (east/payg): a trial stays one, and no other plan becomes one",
    ),
    (
        "points that cost nothing",
        {"plans": [{"operator": "east", "plan": "p", "name": "P", "kind": "payg", "points_per_yuan": 0}]},
        "plans.0.points_per_yuan (east/p): must be above zero: usage as you go is priced by it",
    ),
    (
        "a bundle whose fee is not its share",
        {
            "plans": [
                {
                    "operator": "east",
                    "plan": "b",
                    "name": "B",
                    "kind": "bundle",
                    "fee_fen": 500,
                    "allowance": 1,
                    "bundle": {"product": "Broadband", "bundle_price_fen": 9900, "token_share_percent": 10},
                }
            ]
        },
        "plans.0.fee_fen (east/b): the tokens' share is 10 % of 9900 fen: 990, not 500",
    ),
    (
        "a tariff with oneself",
        {"tariffs": [TARIFF | {"serving": "east"}]},
        "tariffs.0 (east/east/*): a wholesale tariff is between two operators",
    ),
    (
        "a tariff with two prices",
        {"tariffs": [TARIFF | {"rates": {"input": 5}}]},
        "tariffs.0 (east/west/*): gives rates and a share of retail: only one can hold",
    ),
    (
        "a tariff for an unknown model",
        {"tariffs": [TARIFF | {"model": "m9"}]},
        "tariffs.0.model (east/west/m9): no model 'm9' is in force then",
    ),
    (
        "a tariff for a retired model",
        {"tariffs": [TARIFF | {"model": "old"}]},
        "tariffs.0.model (east/west/old): the model 'old' is retired: it is not sold",
    ),
    (
        "a deployment of an unknown model",
        {"deployments": [DEPLOYMENT | {"deployment": "d2", "model": "m9"}]},
        "deployments.0.model (d2): no model 'm9' is in force then",
    ),
    (
        "a policy that prefers nobody",
        {"policies": [{"operator": "east", "preferred": ["north"]}]},
        "policies.0.preferred.0 (east): 'north' is no operator, data centre or deployment",
    ),
]


@pytest.mark.parametrize(("items", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_refusal_gives_its_reason(stocked: World, items: dict[str, Any], reason: str) -> None:
    assert stocked.reasons(TOMORROW, **items) == [reason]


@pytest.mark.parametrize(
    ("parts", "overlapping"),
    [
        ([(0, 60), (60, 120)], False),  # one after the other
        ([(1320, 60), (60, 120)], False),
        ([(1320, 60), (1200, 1320)], False),
        ([(0, 1440)], False),
        ([(0, 600), (60, 120)], True),  # one inside the other
        ([(60, 120), (0, 600)], True),
        ([(1320, 60), (1380, 30)], True),
        ([(0, 60), (300, 360), (59, 61)], True),
    ],
)
def test_parts_of_the_day_do_not_overlap(stocked: World, parts: list[tuple[int, int]], overlapping: bool) -> None:
    off_peak = [{"from_minute": start, "to_minute": end, "rates": {"input": 1}} for start, end in parts]
    cards = [CARD | {"off_peak": off_peak}]
    if overlapping:
        assert "one minute cannot have two rates" in stocked.reasons(TOMORROW, rate_cards=cards)[0]
    else:
        assert stocked.publish(TOMORROW, rate_cards=cards)["published"] == 1


def test_a_refusal_gives_every_reason(stocked: World) -> None:
    items: dict[str, list[Any]] = {}
    for _, more, _ in REFUSED[4:9]:
        for field, added in more.items():
            items.setdefault(field, []).extend(added)
    reasons = stocked.reasons(TOMORROW, **items)
    assert len(reasons) == 6, reasons  # the five, and the deployment that stands twice


def test_a_publication_may_refer_to_itself(world: World) -> None:
    assert world.publish(TODAY, **small())["published"] == 10


def test_a_reference_must_hold_when_the_publication_takes_effect(stocked: World) -> None:
    stocked.publish(TOMORROW, models=[{"model": "m2", "family": "m", "developer": "D"}])
    reasons = stocked.reasons(TODAY, rate_cards=[CARD | {"model": "m2"}])
    assert reasons == ["rate_cards.0.model (east/m2): no model 'm2' is in force then"]
    assert stocked.publish(TOMORROW, rate_cards=[CARD | {"model": "m2"}])["published"] == 1


@pytest.mark.parametrize(
    ("tariff", "points_per_yuan", "warned"),
    [
        pytest.param({"rates": {"input": 900, "output": 2000}}, 250_000, 0, id="above wholesale"),
        pytest.param({"rates": {"input": 1000, "output": 3000}}, 250_000, 0, id="at wholesale"),
        pytest.param({"rates": {"input": 1001, "output": 2000}}, 250_000, 1, id="below in one class"),
        pytest.param({"rates": {"input": 1001, "output": 3001}}, 250_000, 2, id="below in two classes"),
        pytest.param({"rates": {"input": 1100}, "discount_percent": 10}, 250_000, 0, id="above it after discount"),
        pytest.param({"retail_percent": 60}, 500_000, 1, id="cheap points"),
        pytest.param({"retail_percent": 50}, 500_000, 0, id="cheap points, small share"),
    ],
)
def test_a_price_below_wholesale_is_warned_of_and_published(
    stocked: World, tariff: dict[str, Any], points_per_yuan: int, warned: int
) -> None:
    stocked.publish(TOMORROW, tariffs=[{"home": "east", "serving": "west", "model": "*", **tariff}])
    plan = {"operator": "east", "plan": "payg", "name": "Pay", "kind": "payg", "points_per_yuan": points_per_yuan}
    answer = stocked.publish(TOMORROW, plans=[plan])
    assert answer["published"] == 1
    assert len(answer["warnings"]) == warned, answer["warnings"]


def test_prices_off_peak_are_held_against_wholesale_too(stocked: World) -> None:
    stocked.publish(TOMORROW, tariffs=[TARIFF | {"retail_percent": 0, "rates": {"input": 900}}])
    night = {"from_minute": 0, "to_minute": 480, "rates": {"input": 500, "output": 3000}}
    (warning,) = stocked.publish(TOMORROW, rate_cards=[CARD | {"off_peak": [night]}])["warnings"]
    assert warning == "east/m1: input is sold at 500 points per 1,000 tokens, below the wholesale tariff east/west/*@2"


def test_a_deployment_that_comes_after_its_prices_is_held_against_wholesale(stocked: World) -> None:
    dear = TARIFF | {"model": "m2", "retail_percent": 0, "rates": {"input": 1500}}
    model = {"model": "m2", "family": "m", "developer": "D"}
    first = stocked.publish(TOMORROW, models=[model], rate_cards=[CARD | {"model": "m2"}], tariffs=[dear])
    assert first["warnings"] == []  # nobody serves it yet
    (warning,) = stocked.publish(TOMORROW, deployments=[DEPLOYMENT | {"deployment": "d2", "model": "m2"}])["warnings"]
    assert warning.startswith("east/m2: input is sold at 1000 points")
