"""`tokengrid catalog`: what can be bought, and publishing it; its other commands have modules of their own."""

from __future__ import annotations

import typer

from services.catalog.files import dump_catalogue, load_file
from services.catalog.sample import sample_catalogue
from shared.errors import CatalogueConflict
from tokengrid.commands import catalog_compare, catalog_import, catalog_show
from tokengrid.commands.catalog_options import CatalogueArgument, From
from tokengrid.commands.options import VAR, AsJson, RequestKey, Var, Where, asking, local, print_json
from tokengrid.session import Against

LOOK, MAKE = "What is published", "Publish"
app = typer.Typer(no_args_is_help=True, help="What can be bought: models, rates, plans, tariffs.")
app.command(rich_help_panel=LOOK)(catalog_show.show)
app.command(rich_help_panel=LOOK)(catalog_show.history)
app.command(rich_help_panel=LOOK)(catalog_compare.compare)
app.command("import", rich_help_panel=MAKE)(catalog_import.import_)
app.command(rich_help_panel=MAKE)(catalog_compare.validate)


@app.command(rich_help_panel=MAKE)
def publish(
    file: CatalogueArgument,
    effective_from: From = None,
    request_id: RequestKey = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Publish a catalogue or a part of one, whole or not at all. What holds already is skipped."""
    read = load_file(file)
    publication = catalog_compare.publication(read, effective_from, request_id)
    with asking(against, var) as ask:
        checked = ask("catalog", "check", **publication)
        try:
            # A request that was answered before is answered again, whatever speaks against it by now.
            answer = ask("catalog", "publish", **publication)
        except CatalogueConflict:
            # Looked at again: what speaks against it may have come in between.
            catalog_compare.refuse_faulty(read, ask("catalog", "check", **publication))
            raise
    if json:
        print_json(answer)
        return
    for warning in answer["warnings"]:
        typer.echo(f"Warning: {warning}", err=True)
    catalog_compare.print_unpriced(read.imported, checked["newly_unpriced"])
    typer.echo(
        f"{answer['published']} items published, {answer['skipped']} held already; in force from "
        f"{local(answer['effective_from'])} in Shanghai."
    )
    typer.echo(f"Against what held: {catalog_compare.summary(checked)}.")


@app.command(rich_help_panel=MAKE)
def sample() -> None:
    """Print the sample catalogue as YAML: a file to start from."""
    typer.echo(dump_catalogue(sample_catalogue()), nl=False)
