"""Who subscribes and what they call: a mix of real offers, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from shared.catalogue.view import CatalogueView
from shared.clock import period_bounds
from shared.config import Settings
from shared.contracts import quota as q
from tokengrid.demo.market import shops
from tokengrid.demo.subscribers import MIX, subscribers
from tokengrid.demo.traffic import Traffic
from tokengrid.traces import generate

START, END = period_bounds("2026-06")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> CatalogueView:
    app = CatalogApplication(Settings(var=tmp_path_factory.mktemp("catalog"), backdate_max_s=10**9))
    app.publish(sample_publication(START))
    app.close()
    return app.room.view


@pytest.fixture(scope="module")
def people(view: CatalogueView):
    return subscribers(shops(view, START), 300, 1, START, END)


def test_three_operators_sell_every_kind_of_offer(people) -> None:
    assert set(Counter(one.operator for one in people).values()) == {100}
    assert {one.kind for one in people} == set(MIX)


def test_the_same_seed_gives_the_same_people(view: CatalogueView, people) -> None:
    assert subscribers(shops(view, START), 300, 1, START, END) == people
    assert subscribers(shops(view, START), 300, 2, START, END) != people


def test_everybody_calls_only_what_the_offer_covers(view: CatalogueView, people) -> None:
    for one in people:
        plan = view.plan(one.operator, one.plan, START).item
        assert one.models
        assert all(plan.scope.covers(model, view.model(model, START).family) for model in one.models)


def test_a_plan_is_taken_and_not_granted_by_hand(people) -> None:
    one = next(one for one in people if one.kind == "coding")
    assert [type(command) for command in one.opening] == [q.OpenAccount]
    assert one.subscribe is not None
    assert (one.subscribe.account, one.subscribe.plan, one.subscribe.occurred_at) == (one.account, one.plan, START)
    assert all(one.subscribe is None for one in people if one.kind in ("payg", "postpaid"))


def test_calls_keep_the_order_of_the_trace_and_fall_within_the_month(people) -> None:
    planned = list(Traffic(people, 1, START, END).plan(generate(1, 500)))
    assert [call.at for call in planned] == sorted(call.at for call in planned)
    assert planned[0].at >= START
    assert planned[-1].at < END
    assert [call.name for call in planned] == sorted({call.name for call in planned})


def test_what_befalls_a_call_does_not_depend_on_the_others(people) -> None:
    whole = list(Traffic(people, 1, START, END).plan(generate(1, 500)))
    assert list(Traffic(people, 1, START, END).plan(generate(1, 500), 100)) == whole[:100]


def test_calls_after_the_month_are_left_out_and_counted(people) -> None:
    traffic = Traffic(people, 1, END, END)
    assert list(traffic.plan(generate(1, 10))) == []
    assert traffic.beyond == 10
