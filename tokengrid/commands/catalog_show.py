"""`tokengrid catalog show` and `history`: what held at an instant, as known at an instant, and how it came to that."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import typer

from services.catalog.domain.compare import differences
from services.catalog.domain.kinds import BY_NAME
from shared.units import show_points, yuan
from tokengrid.commands.catalog_options import KINDS, At, Kind, KnownAt, shown
from tokengrid.commands.options import VAR, AsJson, Var, Where, asking, local, print_json, print_table
from tokengrid.session import Against

Operator = Annotated[str | None, typer.Option(help="Of this operator only.", show_default=False)]


def show(
    kind: Annotated[Kind, typer.Argument(help="What to show.")] = Kind.models,
    operator: Operator = None,
    at: At = None,
    known_at: KnownAt = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Show what is in force: models, rates (points per 1,000 tokens), plans, wholesale tariffs, and the network."""
    method, _, field = KINDS[kind]
    if operator is not None and field is None:
        raise typer.BadParameter(f"{kind.value} are of no operator: leave --operator out")
    chosen = {field: operator} if field is not None else {}
    with asking(against, var) as ask:
        rows: list[dict[str, Any]] = []
        while page := ask(
            "catalog", method, at=at, known_at=known_at, after=rows[-1]["key"] if rows else None, **chosen
        ):
            rows += page
    if json:
        print_json(rows)
        return
    columns, right, cells = SHOWN[kind]
    print_table(
        kind.value.capitalize(), (*columns, "version"), ((*cells(r["item"]), r["version"]) for r in rows), right
    )


def history(
    kind: Annotated[Kind, typer.Argument(help="Kind of the thing.", show_default=False)],
    key: Annotated[str, typer.Argument(help="Its key, such as shanghai-telecom/kimi-k2.5.", show_default=False)],
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Show every version of one thing: when it takes effect, when it was recorded, and what it changed."""
    _, name, _ = KINDS[kind]
    with asking(against, var) as ask:
        rows = ask("catalog", "history", kind=name, key=key)
    if json:
        print_json(rows)
        return
    items = [msgspec.convert(row["item"], BY_NAME[name].item) for row in rows]
    changes = ["first version", *(_changes(before, after) for before, after in pairwise(items))]
    print_table(
        f"{kind.value.capitalize()}: {key}",
        ("version", "in force from", "recorded", "against the version before"),
        (
            (row["version"], local(row["effective_from"]), local(row["recorded_at"]), change)
            for row, change in zip(rows, changes, strict=bool(rows))
        ),
        right=("version",),
    )


def _changes(before: Any, after: Any) -> str:
    found = differences(before, after)
    return "; ".join(f"{path} {shown(old)} → {shown(new)}" for path, (old, new) in found.items()) or "the same again"


# --- one row for each kind ---------------------------------------------------------------------------
def _rates(rates: dict[str, int]) -> tuple[int, int, int, int]:
    return rates["input"], rates["cached_input"], rates["cache_write"], rates["output"]


def _rate_card(item: dict[str, Any]) -> tuple[Any, ...]:
    more = [f"{len(item[name])} {text}" for name, text in (("tiers", "tiers"), ("off_peak", "off-peak")) if item[name]]
    return (item["operator"], item["model"], *_rates(item["rates"]), ", ".join(more))


def _plan(item: dict[str, Any]) -> tuple[Any, ...]:
    covered = [*item["scope"]["families"], *item["scope"]["models"]]
    return (
        item["operator"],
        item["plan"],
        item["name"],
        item["kind"],
        yuan(item["fee_fen"]),
        show_points(item["allowance"]),
        ", ".join(covered) or "all models",
        plan_terms(item),
    )


def plan_terms(item: dict[str, Any]) -> str:
    """Whatever else a plan says, in the order in which a subscriber meets it."""
    found = [_phase(phase) for phase in item["phases"]]
    if item["trial_days"]:
        found.append(f"{item['trial_days']} days")
    if item["bundle"]:
        found.append(f"with {item['bundle']['product']}")
    if item["discount_percent"]:
        found.append(f"{item['discount_percent']} % off the fee")
    if item["cycle"] == "anniversary":
        found.append("months from the day it was taken")
    if item["rollover"] == "limited":
        found.append(f"at most {show_points(item['rollover_max'])} points roll over")
    if item["overage"] == "payg":
        found.append(f"as you go {item['points_per_yuan']:,} points a yuan")
    if item["usage_discount_percent"]:
        found.append(f"{item['usage_discount_percent']} % off usage")
    if item["commitment_fen"]:
        found.append(f"at least {yuan(item['commitment_fen'])} yuan a month")
    if item["cap_fen"]:
        found.append(f"at most {yuan(item['cap_fen'])} yuan a month")
    if item["credit_limit"]:
        found.append(f"credit of {show_points(item['credit_limit'])} points")
    return "; ".join(found)


def _phase(phase: dict[str, Any]) -> str:
    months = "1 month" if phase["months"] == 1 else f"{phase['months']} months"
    name = f" ({phase['name']})" if phase["name"] else ""
    return f"first {months}{name} {yuan(phase['fee_fen'])} yuan for {show_points(phase['allowance'])} points"


def _tariff(item: dict[str, Any]) -> tuple[Any, ...]:
    own = any(item["rates"].values())
    price = "/".join(str(rate) for rate in _rates(item["rates"])) if own else f"{item['retail_percent']} % of retail"
    return (item["home"], item["serving"], item["model"], price, f"{item['discount_percent']} %")


def _fields(*names: str) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    return lambda item: tuple(shown(item[name]) for name in names)


RATE_COLUMNS = ("input", "cached", "cache write", "output")
WEIGHTS = ("price", "latency", "load", "carbon", "preference")
SHOWN: dict[Kind, tuple[tuple[str, ...], tuple[str, ...], Callable[[dict[str, Any]], tuple[Any, ...]]]] = {
    Kind.models: (
        ("model", "family", "developer", "context", "status", "successor"),
        ("context",),
        _fields("model", "family", "developer", "context_tokens", "status", "successor"),
    ),
    Kind.rates: (("operator", "model", *RATE_COLUMNS, "besides"), RATE_COLUMNS, _rate_card),
    Kind.plans: (
        ("operator", "plan", "name", "kind", "yuan", "points", "scope", "terms"),
        ("yuan", "points"),
        _plan,
    ),
    Kind.tariffs: (("home", "serving", "model", "wholesale", "discount"), ("discount",), _tariff),
    Kind.operators: (("operator", "name", "home region"), (), _fields("operator", "name", "home_region")),
    Kind.regions: (
        ("region", "name", "round trips, ms"),
        (),
        lambda i: (i["region"], i["name"], ", ".join(f"{name} {ms}" for name, ms in sorted(i["latency_ms"].items()))),
    ),
    Kind.data_centres: (
        ("data centre", "name", "region", "operator", "g CO2 per kWh", "residency"),
        ("g CO2 per kWh",),
        _fields("data_centre", "name", "region", "operator", "carbon_g_per_kwh", "residency"),
    ),
    Kind.deployments: (
        ("deployment", "model", "data centre", "operator", "tokens a minute", "calls at once"),
        ("tokens a minute", "calls at once"),
        _fields("deployment", "model", "data_centre", "operator", "tokens_per_minute", "concurrent_calls"),
    ),
    Kind.policies: (("operator", *WEIGHTS, "preferred"), WEIGHTS, _fields("operator", *WEIGHTS, "preferred")),
}
