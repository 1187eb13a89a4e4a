"""What the catalog's commands have in common: instants as typed, kinds as named, and fields as shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.clock import SHANGHAI


def instant(text: str | None) -> str | None:
    """An instant of the command line; without a zone it is Shanghai's time. Raises BadParameter for what is none."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=SHANGHAI)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):  # the calendar's own ends have no place in every zone
        raise typer.BadParameter(f"{text!r} is no instant, such as 2026-07-01 or 2026-07-01T08:00:00+08:00") from None


def next_midnight() -> str:
    """In Shanghai."""
    now = datetime.now(SHANGHAI)
    return (datetime(now.year, now.month, now.day, tzinfo=SHANGHAI) + timedelta(days=1)).isoformat()


CatalogueArgument = Annotated[Path, typer.Argument(help="Catalogue in YAML.", show_default=False)]
From = Annotated[
    str | None,
    typer.Option(
        "--from", help="Instant from which it holds (ISO 8601); default: next midnight in Shanghai.", callback=instant
    ),
]
At = Annotated[str | None, typer.Option(help="As in force at this instant (ISO 8601); default: now.", callback=instant)]
KnownAt = Annotated[
    str | None,
    typer.Option(help="As it was known at this instant (ISO 8601); default: all that is known.", callback=instant),
]


class Kind(StrEnum):
    """Kinds of things, as they are asked for."""

    models = "models"
    rates = "rates"
    plans = "plans"
    tariffs = "tariffs"
    operators = "operators"
    regions = "regions"
    data_centres = "data-centres"
    deployments = "deployments"
    policies = "policies"


# Of each kind: the method that lists it, the name of its streams, and the field that --operator chooses by.
KINDS: dict[Kind, tuple[str, str, str | None]] = {
    Kind.models: ("models", "model", None),
    Kind.rates: ("rate_cards", "rate_card", "operator"),
    Kind.plans: ("plans", "plan", "operator"),
    Kind.tariffs: ("tariffs", "tariff", "home"),
    Kind.operators: ("operators", "operator", None),
    Kind.regions: ("regions", "region", None),
    Kind.data_centres: ("data_centres", "data_centre", "operator"),
    Kind.deployments: ("deployments", "deployment", "operator"),
    Kind.policies: ("policies", "policy", "operator"),
}
WORDS = {stream: stream.replace("_", " ") for _, stream, _ in KINDS.values()}
PLURALS = {stream: method.replace("_", " ") for method, stream, _ in KINDS.values()}


def shown(value: Any) -> str:
    """A field's value for people; nothing there is a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
