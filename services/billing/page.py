"""A bill as a page for people: HTML that prints on A4 and needs nothing from elsewhere.

Every text that came from outside is escaped by the template engine. It must not know where bills are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from services.billing.answers import due_fen
from services.billing.chart import OTHERS, colours, month_chart
from shared.clock import day_of, period_bounds
from shared.contracts.billing import BillIssued, BillVoided, CreditNoteIssued
from shared.units import points, round_half_away, yuan

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(
    count=lambda number: f"{number:,}",
    points=lambda amount: _signed(round_half_away(points(amount))),
    granted=lambda amount: f"{'+' if amount > 0 else ''}{_signed(round_half_away(points(amount)))}",
    calls=lambda count: f"{count:,} {'call' if count == 1 else 'calls'}",
    yuan=lambda fen: f"{'−' if fen < 0 else ''}{_grouped(abs(fen))}",
)

KINDS = {
    "plan_fee": "Plan",
    "discount": "Discount",
    "bundle": "Bundle",
    "purchase": "Purchase",
    "trial": "Trial",
    "plan_credit": "Plan credit",
    "usage": "Usage",
    "late_usage": "Late usage",
    "cap": "Cap",
    "commitment": "Commitment",
    "credit": "Credit",
}


def render_bill(
    issued: BillIssued,
    daily: Sequence[Mapping[str, Any]],
    *,
    operator_name: str = "",
    credit_notes: Sequence[CreditNoteIssued] = (),
    paid_fen: int = 0,
    void: BillVoided | None = None,
) -> str:
    """The page of an issued bill, and of what happened to it. `daily`: rows with `day`, `model`, `calls`, `usage`
    (tokens by class), `amount` (millipoints), as `reading.daily_usage` gives them."""
    bill = issued.bill
    days = [(row["day"], row["model"], row["amount"]) for row in daily]
    credited = sum(note.fen for note in credit_notes)
    due = due_fen(bill.total_fen, paid_fen, credited, void is not None)
    dates = _dates(bill.period)
    return _templates.get_template("bill.html").render(
        bill=bill,
        operator_name=operator_name or bill.operator,
        first_day=dates[0],
        last_day=dates[-1],
        issued_day=day_of(issued.at),
        kinds=KINDS,
        chart=Markup(month_chart(dates, days)) if days else None,  # made by us; ElementTree escaped its texts
        models=_models(daily, colours(days)),
        usage_amount=bill.debited,
        credit_notes=[(note, day_of(note.at)) for note in credit_notes],
        paid_fen=paid_fen,
        due_fen=due,
        void=void,
        void_day=day_of(void.at) if void else "",
        net_fen=bill.total_fen - bill.vat_fen,
        sha256=issued.bill_sha256,
        catalogue_position=bill.catalog_position,
    )


def _dates(period: str) -> list[str]:
    start, end = period_bounds(period)
    first, after = date.fromisoformat(day_of(start)), date.fromisoformat(day_of(end))
    return [(first + timedelta(days=n)).isoformat() for n in range((after - first).days)]


def _models(daily: Sequence[Mapping[str, Any]], colour: Mapping[str, str]) -> list[dict[str, Any]]:
    """Usage by model, biggest first; with its colour in the chart and its share in tenths of a per cent."""
    found: dict[str, dict[str, int]] = {}
    for row in daily:
        sums = found.setdefault(row["model"], dict.fromkeys(("calls", "input", "cached", "output", "amount"), 0))
        sums["calls"] += row["calls"]
        sums["input"] += row["usage"]["input"] + row["usage"]["cache_write"]
        sums["cached"] += row["usage"]["cached_input"]
        sums["output"] += row["usage"]["output"]
        sums["amount"] += row["amount"]
    whole = sum(max(0, sums["amount"]) for sums in found.values())
    return [
        {"model": model, "colour": colour.get(model, colour[OTHERS]), "share": _share(sums["amount"], whole), **sums}
        for model, sums in sorted(found.items(), key=lambda item: (-item[1]["amount"], item[0]))
    ]


def _share(part: int, whole: int) -> str:
    tenths = max(0, part) * 1000 // whole if whole else 0
    return f"{tenths // 10}.{tenths % 10}%"


def _signed(points: int) -> str:
    return f"{'−' if points < 0 else ''}{abs(points):,}"


def _grouped(fen: int) -> str:
    whole, _, cents = yuan(fen).partition(".")
    return f"{int(whole):,}.{cents}"
