"""`tokengrid catalog`: what can be bought, and publishing it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.catalog.files import dump_catalogue, load_catalogue
from services.catalog.sample import sample_catalogue
from shared.clock import SHANGHAI
from shared.units import show_points, yuan
from tokengrid.commands.options import (
    VAR,
    AsJson,
    RequestKey,
    Var,
    Where,
    asking,
    local,
    new_request_id,
    print_json,
    print_table,
)
from tokengrid.session import Against

app = typer.Typer(no_args_is_help=True, help="What can be bought: models, rates, plans, tariffs.")


class Kind(StrEnum):
    models = "models"
    rates = "rates"
    plans = "plans"
    tariffs = "tariffs"


Operator = Annotated[str | None, typer.Option(help="Of this operator only.", show_default=False)]


@app.command()
def show(
    kind: Annotated[Kind, typer.Argument(help="What to show.")] = Kind.models,
    operator: Operator = None,
    at: Annotated[str | None, typer.Option(help="As in force at this instant (ISO 8601); default: now.")] = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Show what is in force: models, rates (points per 1,000 tokens), plans or wholesale tariffs."""
    method, field = {
        Kind.models: ("models", None),
        Kind.rates: ("rate_cards", "operator"),
        Kind.plans: ("plans", "operator"),
        Kind.tariffs: ("tariffs", "home"),
    }[kind]
    if operator is not None and field is None:
        raise typer.BadParameter("models are of no operator: leave --operator out")
    chosen = {field: operator} if field is not None else {}
    with asking(against, var) as ask:
        rows: list[dict[str, Any]] = []
        while page := ask("catalog", method, at=_instant(at), after=rows[-1]["key"] if rows else None, **chosen):
            rows += page
    if json:
        print_json(rows)
        return
    columns, right, cells = SHOWN[kind]
    print_table(
        kind.value.capitalize(), (*columns, "version"), ((*cells(r["item"]), r["version"]) for r in rows), right
    )


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
        item["overage"],
    )


def _tariff(item: dict[str, Any]) -> tuple[Any, ...]:
    own = any(item["rates"].values())
    price = "/".join(str(rate) for rate in _rates(item["rates"])) if own else f"{item['retail_percent']} % of retail"
    return (item["home"], item["serving"], item["model"], price, f"{item['discount_percent']} %")


RATE_COLUMNS = ("input", "cached", "cache write", "output")
SHOWN: dict[Kind, tuple[tuple[str, ...], tuple[str, ...], Any]] = {
    Kind.models: (
        ("model", "family", "developer", "context", "status"),
        ("context",),
        lambda i: (i["model"], i["family"], i["developer"], f"{i['context_tokens']:,}", i["status"]),
    ),
    Kind.rates: (("operator", "model", *RATE_COLUMNS, "besides"), RATE_COLUMNS, _rate_card),
    Kind.plans: (
        ("operator", "plan", "name", "kind", "yuan", "points", "scope", "overage"),
        ("yuan", "points"),
        _plan,
    ),
    Kind.tariffs: (("home", "serving", "model", "wholesale", "discount"), ("discount",), _tariff),
}


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="Catalogue in YAML.", show_default=False)],
    effective_from: Annotated[
        str | None,
        typer.Option("--from", help="Instant from which it holds (ISO 8601); default: next midnight in Shanghai."),
    ] = None,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Publish a catalogue or a part of one, whole or not at all. What holds already is skipped."""
    catalogue = load_catalogue(file)
    start = _instant(effective_from) or _next_midnight().isoformat()
    with asking(against, var) as ask:
        answer = ask(
            "catalog",
            "publish",
            request_id=request_id or new_request_id(),
            effective_from=start,
            catalogue=msgspec.to_builtins(catalogue),
        )
    if json:
        print_json(answer)
        return
    for warning in answer["warnings"]:
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(
        f"{answer['published']} items published, {answer['skipped']} held already; in force from "
        f"{local(answer['effective_from'])} in Shanghai."
    )


@app.command()
def sample() -> None:
    """Print the sample catalogue as YAML: a file to start from."""
    typer.echo(dump_catalogue(sample_catalogue()), nl=False)


def _instant(text: str | None) -> str | None:
    """An instant of the command line; without a zone it is Shanghai's time."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no instant, such as 2026-07-01 or 2026-07-01T08:00:00+08:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=SHANGHAI)).astimezone(UTC).isoformat()


def _next_midnight() -> datetime:
    now = datetime.now(SHANGHAI)
    return datetime(now.year, now.month, now.day, tzinfo=SHANGHAI) + timedelta(days=1)
