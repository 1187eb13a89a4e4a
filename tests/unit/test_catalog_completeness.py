"""Nothing is sold without a price: what a publication may leave open, what it may not, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from services.catalog.domain.publication import judge
from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from tests.unit.catalog_world import CARD, DEPLOYMENT, NOW, TODAY, TOMORROW, small

M2 = {"model": "m2", "family": "n", "developer": "D"}
RUNS = DEPLOYMENT | {"deployment": "m2-hub", "model": "m2"}
PRICED = CARD | {"model": "m2"}
PLAN = {"operator": "east", "plan": "p", "name": "P", "kind": "payg"}
NO_PRICE = "'m2' would be sold without a price: no operator has a rate card for it then"


class Published:
    """A catalogue's view, without a database."""

    def __init__(self) -> None:
        self.view = CatalogueView()
        assert self.publish(TODAY, **small()) == []

    def publish(self, effective_from: str, **items: Any) -> list[str]:
        """Why not; nothing else is looked at where a thing was published without a reason against it."""
        command = msgspec.convert({"request_id": "r", "effective_from": effective_from, "catalogue": items}, c.Publish)
        found = judge(self.view, command, NOW, 60)
        if not found.faults:
            self.force(effective_from, [(place.kind.event, place.item) for place in found.new])
        return [str(fault) for fault in found.faults]

    def force(self, effective_from: str, made: list[tuple[type[c.CatalogEvent], Any]]) -> None:
        """Into the view as it stands, as something that was published by other rules."""
        since = datetime.fromisoformat(effective_from)
        for event, item in made:
            fields: dict[str, Any] = {"at": NOW, "recorded_at": NOW, "request_id": "r", "effective_from": since}
            self.view.apply(self.view.position + 1, event(**fields, version=self.view.position + 1, item=item))  # type: ignore[call-arg]


@pytest.fixture
def shop() -> Published:
    return Published()


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([{"models": [M2]}], id="a model that runs nowhere needs no price"),
        pytest.param([{"models": [M2]}, {"rate_cards": [PRICED]}, {"deployments": [RUNS]}], id="one after the other"),
        pytest.param([{"models": [M2], "rate_cards": [PRICED], "deployments": [RUNS]}], id="all at once"),
        pytest.param(
            [{"models": [M2], "rate_cards": [PRICED | {"operator": "west"}], "deployments": [RUNS]}],
            id="a price at any operator will do",
        ),
        pytest.param([{"plans": [PLAN]}], id="a plan for all models names none"),
        pytest.param([{"plans": [PLAN | {"operator": "west"}]}], id="even where its operator has no rates yet"),
        pytest.param([{"plans": [PLAN | {"scope": {"models": ["m1"], "families": ["m"]}}]}], id="a plan for a model"),
        pytest.param(
            [
                {"models": [M2 | {"family": "m"}]},
                {"plans": [PLAN | {"scope": {"families": ["m"]}}]},
            ],
            id="one model of a family will do",
        ),
        pytest.param(
            [{"models": [{"model": "m1", "family": "m", "developer": "D", "status": "retired"}]}],
            id="a model that is retired while it runs",
        ),
    ],
)
def test_what_may_be_published(shop: Published, steps: list[dict[str, Any]]) -> None:
    for step in steps:
        assert shop.publish(TOMORROW, **step) == []


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        pytest.param(
            {"models": [M2], "deployments": [RUNS]}, f"deployments.0.model (m2-hub): {NO_PRICE}", id="a deployment"
        ),
        pytest.param(
            {"models": [M2 | {"status": "deprecated", "successor": "m1"}], "deployments": [RUNS]},
            f"deployments.0.model (m2-hub): {NO_PRICE}",
            id="of a deprecated model, which is still sold",
        ),
        pytest.param(
            {
                "models": [M2],
                "rate_cards": [PRICED],
                "plans": [PLAN | {"operator": "west", "scope": {"models": ["m2"]}}],
            },
            "plans.0.scope.models.0 (west/p): west has no rate card for 'm2' then",
            id="a plan for a model that another operator prices",
        ),
        pytest.param(
            {"models": [M2], "plans": [PLAN | {"scope": {"models": ["m1", "m2"]}}]},
            "plans.0.scope.models.1 (east/p): east has no rate card for 'm2' then",
            id="a plan for two models, of which one has a price",
        ),
        pytest.param(
            {"models": [M2], "plans": [PLAN | {"scope": {"families": ["n"]}}]},
            "plans.0.scope.families.0 (east/p): east has no rate card for any model of 'n' then",
            id="a plan for a family",
        ),
        pytest.param(
            {"plans": [PLAN | {"scope": {"models": ["m9"]}}]},
            "plans.0.scope.models.0 (east/p): no model 'm9' is in force then",
            id="an unknown model, for that reason alone",
        ),
        pytest.param(
            {"plans": [PLAN | {"scope": {"models": ["old"]}}]},
            "plans.0.scope.models.0 (east/p): the model 'old' is retired: it is not sold",
            id="a retired model, for that reason alone",
        ),
        pytest.param(
            {"plans": [PLAN | {"scope": {"families": ["o"]}}]},
            "plans.0.scope.families.0 (east/p): no model on sale is of the family 'o'",
            id="a family of retired models",
        ),
    ],
)
def test_what_would_be_sold_without_a_price(shop: Published, items: dict[str, Any], reason: str) -> None:
    assert shop.publish(TODAY, **items) == [reason]


def test_the_price_must_hold_when_the_sale_begins(shop: Published) -> None:
    shop.publish(TODAY, models=[M2])
    shop.publish(TOMORROW, rate_cards=[PRICED])
    assert shop.publish(TODAY, deployments=[RUNS]) == [f"deployments.0.model (m2-hub): {NO_PRICE}"]
    assert shop.publish(TOMORROW, deployments=[RUNS]) == []


def test_a_model_that_is_sold_again_needs_the_price_that_a_plan_gives_it(shop: Published) -> None:
    shop.publish(TODAY, models=[M2 | {"status": "retired"}])
    shop.force(TODAY, [(c.PlanPublished, msgspec.convert(PLAN | {"scope": {"models": ["m2"]}}, c.Plan))])
    assert shop.publish(TOMORROW, models=[M2]) == [
        "models.0.status (m2): the plan east/p names it, and it has no rate card then"
    ]
    assert shop.publish(TOMORROW, models=[M2], rate_cards=[PRICED]) == []


def test_what_older_rules_let_pass_stops_only_what_makes_it_worse(shop: Published) -> None:
    shop.publish(TODAY, models=[M2 | {"status": "retired"}])
    shop.force(TODAY, [(c.DeploymentPublished, msgspec.convert(RUNS, c.Deployment))])
    assert shop.publish(TOMORROW, rate_cards=[CARD | {"rates": {"input": 7}}]) == []
    assert shop.publish(TOMORROW, models=[M2]) == [
        "models.0.status (m2): m2-hub would sell it without a price: it has no rate card then"
    ]
    assert shop.publish(TOMORROW, models=[M2], rate_cards=[PRICED]) == []


def test_however_many_models_come_what_sells_them_is_looked_through_once(
    shop: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[type[Any]] = []
    items = CatalogueView.items
    monkeypatch.setattr(CatalogueView, "items", lambda self, kind, *at: looked.append(kind) or items(self, kind, *at))
    assert shop.publish(TODAY, models=[M2 | {"model": f"n{n}"} for n in range(5)]) == []
    assert looked.count(c.Deployment) == looked.count(c.Plan) == 1
