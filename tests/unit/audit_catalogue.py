"""The catalogue of the market in audit's tests: two operators, two models, their prices, plans and tariffs."""

from __future__ import annotations

from typing import Any

LONG_AGO = "2025-12-31T16:00:00Z"  # midnight in Shanghai
EAST, WEST = "east-telecom", "west-mobile"


def deployment(name: str, model: str, operator: str) -> dict[str, Any]:
    hub = {EAST: "east-hub", WEST: "west-hub"}[operator]
    fields = {"deployment": name, "model": model, "data_centre": hub, "operator": operator}
    return fields | {"tokens_per_minute": 900_000_000, "concurrent_calls": 100_000}


ALPHA = {
    "operator": EAST,
    "model": "alpha",
    "rates": {"input": 1000, "cached_input": 200, "cache_write": 1000, "output": 4000},
    "tiers": [{"above_input_tokens": 20_000, "rates": {"input": 1500, "cached_input": 300, "output": 6001}}],
}
CATALOGUE: dict[str, Any] = {
    "regions": [{"region": "coast", "name": "Coast", "latency_ms": {"coast": 2}}],
    "operators": [
        {"operator": EAST, "name": "East", "home_region": "coast"},
        {"operator": WEST, "name": "West", "home_region": "coast"},
    ],
    "models": [
        {"model": "alpha", "family": "a", "developer": "A"},
        {"model": "beta", "family": "b", "developer": "B"},
    ],
    "data_centres": [
        {"data_centre": "east-hub", "name": "E", "region": "coast", "operator": EAST},
        {"data_centre": "west-hub", "name": "W", "region": "coast", "operator": WEST},
    ],
    "deployments": [
        deployment("alpha-east", "alpha", EAST),
        deployment("alpha-west", "alpha", WEST),
        deployment("beta-west", "beta", WEST),
    ],
    "rate_cards": [
        ALPHA,
        {
            "operator": EAST,
            "model": "beta",
            "rates": {"input": 777, "output": 2333},
            "off_peak": [{"from_minute": 1380, "to_minute": 480, "rates": {"input": 333, "output": 1111}}],
        },
        {"operator": WEST, "model": "alpha", "rates": {"input": 901, "output": 3607}},
        {"operator": WEST, "model": "beta", "rates": {"input": 703, "output": 2111}},
    ],
    "plans": [
        {
            "operator": EAST,
            "plan": "monthly",
            "name": "Monthly",
            "kind": "monthly",
            "fee_fen": 990,
            "allowance": 10_000_000,
        },
        {"operator": EAST, "plan": "payg", "name": "Payg", "kind": "payg", "points_per_yuan": 230_000},
        {
            "operator": WEST,
            "plan": "family",
            "name": "Family",
            "kind": "bundle",
            "fee_fen": 1290,
            "allowance": 5_000_000,
            "bundle": {"product": "5G", "bundle_price_fen": 12900, "token_share_percent": 10},
        },
    ],
    "tariffs": [
        {"home": EAST, "serving": WEST, "model": "*", "retail_percent": 67, "discount_percent": 7},
        {"home": EAST, "serving": WEST, "model": "beta", "rates": {"input": 401, "output": 1303}},
        {"home": WEST, "serving": EAST, "model": "*", "retail_percent": 71},
    ],
}
