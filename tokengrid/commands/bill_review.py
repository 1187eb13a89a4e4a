"""`tokengrid bill what-if`: a month's bills under another catalogue, beside what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from services.billing.whatif import Rerated, what_if
from services.billing.whatif_chart import what_if_chart
from services.billing.whatif_sums import Sum, Sums, as_csv, movers, sums
from services.catalog.files import load_catalogue
from shared.units import yuan
from tokengrid.commands.bill_files import whole
from tokengrid.commands.options import VAR, AsJson, MonthArgument, Var, Where, print_json, print_table
from tokengrid.screen import Screen, console_for
from tokengrid.session import Against, session

FEN = ("in fact", "what-if", "difference")


def what_if_month(
    month: MonthArgument,
    file: Annotated[
        Path, typer.Argument(help="Catalogue (YAML): all of it, or what is different.", show_default=False)
    ],
    operator: Annotated[
        list[str] | None, typer.Option(help="Of this operator only; may be repeated.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write a row per subscriber, in fen.", metavar="FILE", dir_okay=False)
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", help="Write a chart (SVG).", metavar="FILE", dir_okay=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Subscribers listed: those whose bill changes most.")] = 10,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """What a month's issued bills would have come to under another catalogue. Nothing is changed anywhere.

    Rate cards and plans of the file hold for the whole month, in place of those of the same key; what the file leaves
    out stays. Calls are priced anew and points drawn anew: what a dearer call needs beyond its grants is charged, what
    a cheaper one saves is there for later calls.

    Not modelled: who would have been refused, or called more or less; other days, cycles, trials or rollover of a
    plan; late usage and periods of earlier months, which stay as they are; what operators owe each other.
    """
    other = load_catalogue(file)
    screen = Screen(console_for(json), quiet=json)
    with session(against, var) as client:
        rerated = what_if(client, month, other, operator or (), screen.stage)
    found = sums(rerated)
    # Shown first: it took long, and a file may not come to be.
    if json:
        print_json(_report(month, found, movers(rerated, limit)))
    else:
        _show(month, found, movers(rerated, limit))
    if csv is not None:
        with whole(csv) as out:
            out.writelines(as_csv(rerated))
    if chart is not None:
        totals = [(each.name, each.actual_fen, each.what_if_fen) for each in found.operators]
        title = f"The bills of {month}, under {file.name.encode(errors='replace').decode()}"  # a name need not be UTF-8
        with whole(chart) as out:
            out.write(what_if_chart(title, [one.difference_fen for one in rerated], totals))
    for written in (csv, chart):
        if written is not None and not json:
            typer.echo(f"{written}: {len(rerated):,} subscribers")


def _show(month: str, found: Sums, most: list[Rerated]) -> None:
    print_table(
        f"What-if of {month}: whose bill changes most, yuan",
        ("operator", "account", "bill", *FEN),
        (
            (
                one.issued.operator,
                one.issued.account,
                one.issued.number,
                *_yuan(Sum("", one.issued.total_fen, one.other.total_fen)),
            )
            for one in most
        ),
        right=FEN,
    )
    for title, rows in (("By kind of line, yuan", found.kinds), ("By operator, yuan", found.operators)):
        shown = [*rows, found.total] if len(rows) > 1 else rows
        print_table(title, ("", *FEN), ((row.name, *_yuan(row)) for row in shown), right=FEN)
    typer.echo(f"{found.more:,} pay more, {found.less:,} less, {found.same:,} the same.")
    if found.unlike:
        typer.echo(
            f"{len(found.unlike):,} bills cannot be computed again as they were issued, such as {found.unlike[0]}: "
            "run `tokengrid audit replay`."
        )


def _yuan(row: Sum) -> tuple[str, str, str]:
    sign = "+" if row.difference_fen > 0 else ""
    return yuan(row.actual_fen), yuan(row.what_if_fen), f"{sign}{yuan(row.difference_fen)}"


def _report(month: str, found: Sums, most: list[Rerated]) -> dict[str, Any]:
    return {
        "period": month,
        **_fen(found.total),
        **{name: getattr(found, name) for name in ("more", "less", "same")},
        "operators": [{"operator": each.name, **_fen(each)} for each in found.operators],
        "kinds": [{"kind": each.name, **_fen(each)} for each in found.kinds],
        "movers": [
            {
                "operator": one.issued.operator,
                "account": one.issued.account,
                "bill": one.issued.number,
                **_fen(Sum("", one.issued.total_fen, one.other.total_fen)),
            }
            for one in most
        ],
        "not_computed_again": found.unlike,
    }


def _fen(row: Sum) -> dict[str, int]:
    return {"actual_fen": row.actual_fen, "what_if_fen": row.what_if_fen, "difference_fen": row.difference_fen}
