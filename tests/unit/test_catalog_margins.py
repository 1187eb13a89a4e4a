"""A plan's points against wholesale: the cheapest point that it gives, and the models that it may pay for."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest

from services.catalog.domain.kinds import places
from services.catalog.domain.margins import cheapest_point, margin_warnings, worth_as_you_go
from shared.catalogue.view import CatalogueView
from shared.contracts import catalog as c
from tests.unit.catalog_world import CARD, DEPLOYMENT, NOW, small

# At list price a point is 1/2,500 fen: 1,000 fen for 2,500,000 points.
PACKAGE = {"operator": "east", "plan": "p", "name": "P", "kind": "monthly", "fee_fen": 1000, "allowance": 2_500_000_000}


def plan(**terms: Any) -> c.Plan:
    return msgspec.convert(PACKAGE | terms, c.Plan)


@pytest.mark.parametrize(
    ("terms", "worth", "where"),
    [
        ({}, Fraction(1), ""),
        ({"fee_fen": 250}, Fraction(1, 4), ""),
        ({"fee_fen": 999, "discount_percent": 50}, Fraction(999, 2000), ""),
        ({"phases": [{"months": 1, "fee_fen": 100, "allowance": 500_000_000}]}, Fraction(1, 2), " in phase 1"),
        ({"phases": [{"months": 1, "fee_fen": 2000, "allowance": 2_500_000_000}]}, Fraction(1), ""),
        (
            {"phases": [{"months": 1, "fee_fen": 900}, {"months": 2, "allowance": 1}], "discount_percent": 10},
            Fraction(0),
            " in phase 2",
        ),
    ],
    ids=["list price", "a quarter", "half a fen", "a phase", "a dearer phase", "given away"],
)
def test_the_cheapest_point_of_a_plan(terms: dict[str, Any], worth: Fraction, where: str) -> None:
    assert cheapest_point(plan(**terms)) == (worth, where)


def test_a_trial_sells_nothing() -> None:
    assert cheapest_point(plan(kind="trial", fee_fen=0, trial_days=7)) is None
    assert cheapest_point(plan(kind="payg", fee_fen=0, allowance=0)) is None


def test_a_point_as_you_go_is_worth_what_its_discount_leaves() -> None:
    assert worth_as_you_go(plan(points_per_yuan=500_000, usage_discount_percent=20)) == Fraction(2, 5)


def warnings(*plans: c.Plan, **more: Any) -> list[str]:
    """Of a publication of these plans on top of the small catalogue, where `west` serves and takes 60 % of retail."""
    view = CatalogueView()
    catalogue = msgspec.convert(small() | more, c.Catalogue)
    items = [*places(catalogue), *places(c.Catalogue(plans=plans))]
    for position, place in enumerate(items, start=1):
        fields: dict[str, Any] = {"at": NOW, "recorded_at": NOW, "request_id": "r", "effective_from": NOW}
        view.apply(position, place.kind.event(**fields, version=1, item=place.item))  # type: ignore[call-arg]
    return margin_warnings(view, plans, NOW, NOW)


def test_one_sentence_says_how_cheap_a_plan_is_and_for_how_many_models() -> None:
    m2 = {"model": "m2", "family": "n", "developer": "D"}
    more = {
        "models": [*small()["models"], m2],
        "rate_cards": [CARD, CARD | {"model": "m2"}],
        "deployments": [DEPLOYMENT, DEPLOYMENT | {"deployment": "d2", "model": "m2"}],
    }
    cheap = plan(fee_fen=599)
    below = "east/p: a point costs as little as 59.9 % of list price, below wholesale for"
    assert warnings(cheap, **more) == [f"{below} 2 of 2 models, such as m1 by the tariff east/west/*@1"]
    scoped = plan(fee_fen=599, scope={"families": ["n"]})
    assert warnings(scoped, **more) == [f"{below} 1 of 1 models, such as m2 by the tariff east/west/*@1"]
    assert warnings(plan(fee_fen=600), **more) == []


def test_rates_by_token_are_compared_in_money() -> None:
    tariff = {"home": "east", "serving": "west", "model": "m1", "rates": {"input": 500}}
    assert warnings(plan(fee_fen=500), tariffs=[tariff]) == []
    assert len(warnings(plan(fee_fen=499), tariffs=[tariff])) == 1


def test_what_no_other_operator_serves_has_no_wholesale() -> None:
    home = {"data_centres": [{"data_centre": "hub", "name": "Hub", "region": "coast", "operator": "east"}]}
    assert warnings(plan(fee_fen=1), **home, deployments=[DEPLOYMENT | {"operator": "east"}]) == []


def test_a_usage_discount_can_bring_a_price_below_wholesale() -> None:
    def sold(discount: int) -> list[str]:
        return warnings(plan(kind="payg", fee_fen=0, allowance=0, overage="payg", usage_discount_percent=discount))

    assert sold(40) == []
    assert sold(41) == ["east/m1: every call sold is below the wholesale tariff east/west/*@1"]


def test_what_comes_after_an_allowance_is_sold_as_you_go() -> None:
    after = plan(overage="payg", points_per_yuan=500_000)
    assert warnings(after) == ["east/m1: every call sold is below the wholesale tariff east/west/*@1"]
    assert warnings(plan(points_per_yuan=500_000)) == []
