"""What a publication would change, and what differs between two instants: told before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.domain.compare import Change, compare, differences
from shared.contracts import catalog as c
from shared.contracts.base import Rates, Scope
from shared.errors import CatalogueConflict, LimitExceeded, MalformedCommand
from tests.unit.catalog_world import CARD, DEPLOYMENT, LAST_MONTH, TARIFF, TODAY, TOMORROW, World, small

NIGHT = {"from_minute": 0, "to_minute": 60, "rates": {"input": 5}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.publish(LAST_MONTH.replace("00:00", "16:00"), **small())
    yield world
    world.app.close()


def check(world: World, effective_from: str = TOMORROW, **items: Any) -> dict[str, Any]:
    """What is answered; that nothing was published is asserted here."""
    head = world.app.log.head()
    answer = world.app.check({"request_id": "c", "effective_from": effective_from, "catalogue": items})
    assert world.app.log.head() == head
    return answer


def test_a_clock_that_is_behind_another_hides_no_warning(world: World) -> None:
    world.clock.advance(-30)
    items = {"tariffs": [TARIFF | {"model": "m1", "retail_percent": 0, "rates": {"input": 1500}}]}
    assert len(check(world, **items)["warnings"]) == 1
    assert check(world, **items)["warnings"] == world.publish(TOMORROW, **items)["warnings"]


# --- fields ---------------------------------------------------------------------------------------------
def card(**fields: Any) -> c.RateCard:
    return msgspec.convert(CARD | fields, c.RateCard)


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        (card(), card(), {}),
        (card(), card(rates={"input": 2000, "output": 3000}), {"rates.input": (1000, 2000)}),
        (card(), card(source="press"), {"source": ("", "press")}),
        (
            card(off_peak=[NIGHT]),
            card(off_peak=[NIGHT | {"to_minute": 90}]),
            {"off_peak.0.to_minute": (60, 90)},
        ),
        (
            card(tiers=[{"above_input_tokens": 9, "rates": {}}]),
            card(),
            {
                "tiers.0.above_input_tokens": (9, None),
                **{f"tiers.0.rates.{name}": (0, None) for name in Rates.__struct_fields__},
            },
        ),
        (
            c.Plan(operator="o", plan="p", name="P", kind="payg", scope=Scope(models=("a",))),
            c.Plan(operator="o", plan="p", name="P", kind="payg", scope=Scope(models=("a", "b"))),
            {"scope.models": (["a"], ["a", "b"])},
        ),
        (
            c.Plan(operator="o", plan="p", name="P", kind="payg"),
            c.Plan(operator="o", plan="p", name="P", kind="payg", scope=Scope(families=("f",))),
            {"scope.families": (None, ["f"])},
        ),
        (
            c.Region(region="r", name="R", latency_ms={"r": 2, "s": 9}),
            c.Region(region="r", name="R", latency_ms={"r": 2, "t": 8}),
            {"latency_ms.t": (None, 8), "latency_ms.s": (9, None)},
        ),
    ],
    ids=["nothing", "a rate", "a text", "in a list", "a tier gone", "a scope", "a scope begun", "by name"],
)
def test_the_fields_that_differ(before: Any, after: Any, fields: dict[str, Any]) -> None:
    assert differences(before, after) == fields
    assert differences(after, before) == {path: (new, old) for path, (old, new) in fields.items()}


def test_items_are_new_gone_changed_or_equal_in_the_order_of_publication() -> None:
    a, b, d = (card(model=name) for name in "abd")
    model = c.Model(model="m", family="f", developer="D")
    before = {("rate_card", "east/b"): b, ("rate_card", "east/a"): a, ("rate_card", "east/d"): d}
    after = {("rate_card", "east/c"): card(model="c"), ("rate_card", "east/b"): card(model="b", rates={})}
    found = compare(before, after | {("model", "m"): model, ("rate_card", "east/a"): a})
    assert found.new == (("model", "m"), ("rate_card", "east/c"))
    assert found.gone == (("rate_card", "east/d"),)
    assert found.changed == (Change("rate_card", "east/b", {"rates.input": (1000, 0), "rates.output": (3000, 0)}),)
    assert found.unchanged == 1


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2)),
)
def test_every_item_is_counted_once(before: dict[str, int], after: dict[str, int]) -> None:
    def items(rates: dict[str, int]) -> dict[tuple[str, str], c.RateCard]:
        return {("rate_card", f"east/{name}"): card(model=name, rates={"input": rate}) for name, rate in rates.items()}

    found = compare(items(before), items(after))
    assert len(found.new) + len(found.changed) + found.unchanged == len(after)
    assert len(found.gone) + len(found.changed) + found.unchanged == len(before)


# --- a publication ------------------------------------------------------------------------------------
def test_a_check_says_what_publishing_would_change(world: World) -> None:
    items = small() | {"rate_cards": [CARD | {"rates": {"input": 2000, "output": 3000}}, CARD | {"operator": "west"}]}
    assert check(world, **items) == {
        "faults": [],
        "warnings": [],
        "new": [{"kind": "rate_card", "key": "west/m1"}],
        "changed": [{"kind": "rate_card", "key": "east/m1", "fields": {"rates.input": [1000, 2000]}}],
        "unchanged": 9,
        "newly_unpriced": [],
    }
    answer = world.publish(TOMORROW, **items)
    assert (answer["published"], answer["skipped"]) == (2, 9)
    again = check(world, **items)
    assert (again["new"], again["changed"], again["unchanged"]) == ([], [], 11)


def test_a_check_compares_with_what_holds_at_its_own_instant(world: World) -> None:
    world.publish(TOMORROW, rate_cards=[CARD | {"rates": {"input": 7, "output": 3000}}])
    eight = [CARD | {"rates": {"input": 8, "output": 3000}}]
    (today,) = check(world, world.clock().isoformat(), rate_cards=eight)["changed"]
    (tomorrow,) = check(world, TOMORROW, rate_cards=eight)["changed"]
    assert (today["fields"], tomorrow["fields"]) == ({"rates.input": [1000, 8]}, {"rates.input": [7, 8]})


def test_a_check_gives_the_reasons_of_the_refusal_with_their_places(world: World) -> None:
    items = {
        "rate_cards": [CARD | {"model": "m9"}, CARD | {"tiers": [{"above_input_tokens": 1, "rates": {}}] * 2}],
        "deployments": [DEPLOYMENT | {"deployment": "d2", "model": "old"}],
    }
    found = check(world, TODAY, **items)["faults"]
    assert [f"{fault['path']} ({fault['key']}): {fault['text']}" for fault in found] == world.reasons(TODAY, **items)
    assert {fault["path"] for fault in found} == {
        "rate_cards.0.model",
        "rate_cards.1",
        "rate_cards.1.tiers.1",
        "deployments.0.model",
    }


def test_a_check_warns_as_the_publication_will(world: World) -> None:
    items = {"tariffs": [TARIFF | {"model": "m1", "retail_percent": 0, "rates": {"input": 1500}}]}
    warnings = check(world, **items)["warnings"]
    assert len(warnings) == 1
    assert world.publish(TOMORROW, **items)["warnings"] == warnings
    # Terms that no sum can be done with are refused, and not reckoned with.
    broken = {"plans": [{"operator": "east", "plan": "p", "name": "P", "kind": "payg", "points_per_yuan": 0}]}
    assert check(world, **broken)["warnings"] == []


def test_a_check_is_bounded_and_refuses_what_is_malformed(world: World) -> None:
    with pytest.raises(MalformedCommand):
        check(world, plan=[])
    world.app.settings.batch_max = 3
    with pytest.raises(LimitExceeded):
        check(world, **small())


def test_models_that_lose_their_list_price_are_named(world: World) -> None:
    def asked(*unpriced: str) -> dict[str, Any]:
        imported = {"package": "p", "package_version": "1", "content_sha256": "a", "fen_per_usd": 7, "priced": 0}
        about = {"request_id": f"i{len(unpriced)}", "effective_from": TOMORROW, "catalogue": {}}
        return about | {"imported": imported | {"unpriced": list(unpriced)}}

    assert world.app.check(asked("m1", "m9"))["newly_unpriced"] == ["m1"]  # m9 has no rate card that would go on
    world.app.publish(asked("m1", "m9"))
    assert world.app.check(asked("m1", "m9"))["newly_unpriced"] == []
    world.app.publish(asked())
    assert world.app.check(asked("m1"))["newly_unpriced"] == ["m1"]


# --- two instants ---------------------------------------------------------------------------------------
def test_two_instants_are_compared_as_known_at_a_third(world: World) -> None:
    def between(before: str, after: str, **more: str) -> dict[str, Any]:
        return world.app.compare({"before": before, "after": after, **more})

    assert between(TODAY, TOMORROW) == {"new": [], "gone": [], "changed": [], "unchanged": 10}
    then = world.clock().isoformat()
    world.clock.advance(60)
    world.publish(TOMORROW, rate_cards=[CARD | {"rates": {"input": 7}}, CARD | {"operator": "west"}])
    found = between(TODAY, TOMORROW)
    changed = {"kind": "rate_card", "key": "east/m1", "fields": {"rates.input": [1000, 7], "rates.output": [3000, 0]}}
    assert found == {
        "new": [{"kind": "rate_card", "key": "west/m1"}],
        "gone": [],
        "changed": [changed],
        "unchanged": 9,
    }
    assert between(TOMORROW, TODAY)["gone"] == found["new"]
    assert between(TODAY, TOMORROW, known_at=then) == {"new": [], "gone": [], "changed": [], "unchanged": 10}


def test_a_refused_publication_and_its_check_agree_on_whether(world: World) -> None:
    assert check(world, policies=[{"operator": "nobody"}])["faults"]
    with pytest.raises(CatalogueConflict):
        world.publish(TOMORROW, policies=[{"operator": "nobody"}])
