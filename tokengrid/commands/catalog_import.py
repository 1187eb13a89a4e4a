"""`tokengrid catalog import`: list prices of the installed package as a file of rate cards, to be looked at first."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.catalog.files import dump_catalogue
from services.catalog.sample import AS_OF, import_prices
from tokengrid.commands.catalog_compare import print_unpriced


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day, such as 2026-11-01") from None


def import_(
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="The list prices of this day (noon, UTC); default: today.", metavar="YYYY-MM-DD"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write here.", show_default="standard output")] = None,
) -> None:
    """Write the list prices of the sample's models as rate cards in YAML, and where they came from."""
    catalogue, imported = import_prices(datetime.combine(_day(as_of), AS_OF.timetz()))
    text = dump_catalogue(catalogue, imported)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text, "utf-8")
    print_unpriced(imported, ())
    typer.echo(
        f"{out}: {len(catalogue.rate_cards)} rate cards of {imported.priced} models, {len(imported.unpriced)} without "
        f"a price; {imported.package} {imported.package_version} as of {imported.as_of:%Y-%m-%d}."
    )
