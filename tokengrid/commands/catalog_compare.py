"""`tokengrid catalog validate` and `compare`: what is wrong with a file, and what it would change.

Nothing is published here. Every reason is told with its line in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.catalog.files import CatalogueFile, Imported, load_file, read_file
from shared.errors import MalformedCommand
from tokengrid.commands.catalog_options import (
    PLURALS,
    WORDS,
    CatalogueArgument,
    From,
    KnownAt,
    instant,
    next_midnight,
    shown,
)
from tokengrid.commands.options import VAR, AsJson, Var, Where, asking, new_request_id, print_json, print_table
from tokengrid.session import Against

Row = dict[str, Any]


def publication(file: CatalogueFile, effective_from: str | None, request_id: str | None) -> Row:
    """The arguments of `catalog.publish` and `catalog.check` for a file."""
    return {
        "request_id": request_id or new_request_id(),
        "effective_from": effective_from or next_midnight(),
        "catalogue": msgspec.to_builtins(file.catalogue),
        "imported": file.imported and msgspec.to_builtins(file.imported.recorded()),
    }


def refuse_faulty(file: CatalogueFile, checked: Row) -> None:
    """Raises MalformedCommand with every reason that the service gave, each with its line."""
    if checked["faults"]:
        found = [file.document.fault(fault["path"], fault["key"], fault["text"]) for fault in checked["faults"]]
        raise file.refusal(found, "cannot be published")


def validate(
    file: CatalogueArgument,
    effective_from: From = None,
    against: Annotated[
        Against | None,
        typer.Option(
            "--against", help="Also against what is published there: `demo` or `up`. Default: the file alone."
        ),
    ] = None,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Check a catalogue file: every error at once, each with its line. Exit code 1 where there is one."""
    try:
        read = read_file(file)
    except MalformedCommand as error:
        if not json or "found" not in error.details:
            raise
        print_json({"faults": error.details["found"], "warnings": []})
        raise typer.Exit(1) from None
    faults, warnings = list(read.faults), []
    if against is not None:
        with asking(against, var) as ask:
            checked = ask("catalog", "check", **publication(read, effective_from, None))
        # The service finds what the file says of itself as well.
        faults += [read.document.fault(*(each[name] for name in ("path", "key", "text"))) for each in checked["faults"]]
        warnings = checked["warnings"]
    faults = sorted(set(faults))
    if json:
        print_json({"faults": [fault._asdict() for fault in faults], "warnings": warnings})
        raise typer.Exit(1 if faults else 0)
    _say_warnings(warnings)
    if faults:
        raise read.refusal(faults, "is no catalogue" if read.faults else "cannot be published")
    count = sum(len(getattr(read.catalogue, name)) for name in read.catalogue.__struct_fields__)
    whole = "by itself" if against is None else "against what is published"
    typer.echo(f"{read.name}: {count} items, nothing wrong {whole}.")


def compare(
    file: Annotated[Path | None, typer.Argument(help="Catalogue in YAML.", show_default=False)] = None,
    effective_from: From = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Instead of a file: what holds at this instant…", callback=instant)
    ] = None,
    other: Annotated[str | None, typer.Option("--with", help="…with what holds at this one.", callback=instant)] = None,
    known_at: KnownAt = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Show what publishing a file would change, or what differs between two instants, field by field."""
    if file is None:
        if at is None or other is None or effective_from is not None:
            raise typer.BadParameter("name a file, or two instants: --at and --with")
        with asking(against, var) as ask:
            found = ask("catalog", "compare", before=at, after=other, known_at=known_at)
        _print_comparison(found, json)
        return
    if at is not None or other is not None or known_at is not None:
        raise typer.BadParameter(
            "a file is compared with what holds when it takes effect: leave out --at, --with, --known-at"
        )
    read = load_file(file)
    with asking(against, var) as ask:
        checked = ask("catalog", "check", **publication(read, effective_from, None))
    _print_comparison(checked, json)
    if not json:
        print_unpriced(read.imported, checked["newly_unpriced"])
        _say_warnings(checked["warnings"])
        refuse_faulty(read, checked)
    elif checked["faults"]:
        raise typer.Exit(1)


def summary(found: Row) -> str:
    """`2 new (1 plan, 1 rate card), 1 changed (1 rate card), 9 unchanged`."""
    parts = [
        f"{len(found[name])} {name}{_by_kind(found[name])}" for name in ("new", "gone", "changed") if name in found
    ]
    return ", ".join([*parts, f"{found['unchanged']} unchanged"])


def _by_kind(named: Iterable[Row]) -> str:
    counted = Counter(each["kind"] for each in named)
    return (
        f" ({', '.join(f'{n} {(WORDS if n == 1 else PLURALS)[kind]}' for kind, n in counted.items())})"
        if counted
        else ""
    )


def _print_comparison(found: Row, json: bool) -> None:
    if json:
        print_json(found)
        return
    for name, title in (("new", "New"), ("gone", "No longer there")):
        if found.get(name):
            print_table(title, ("kind", "key"), ((WORDS[each["kind"]], each["key"]) for each in found[name]))
    # A source alone is told by its number: an import of another day words every one of them anew.
    told = [each for each in found["changed"] if each["fields"].keys() != {"source"}]
    if told:
        print_table(
            "Changed",
            ("kind", "key", "field", "before", "after"),
            (
                (WORDS[each["kind"]], each["key"], path, shown(old), f"→ {shown(new)}")
                for each in told
                for path, (old, new) in each["fields"].items()
                if path != "source"
            ),
            right=("before",),
        )
    typer.echo(f"{_sentence(summary(found))}.")
    if len(told) < len(found["changed"]):
        typer.echo(f"Of what is changed, only the source differs in {len(found['changed']) - len(told)}.")


def print_unpriced(imported: Imported | None, newly: Iterable[str]) -> None:
    """The models that an import could not price; those that had a price until now come first."""
    if imported is None or not imported.unpriced:
        return
    lost = set(newly)
    print_table(
        "Without a list price",
        ("model", "reason", ""),
        (
            (model, reason, "NEW: its rates in force stay as they are" if model in lost else "")
            for model, reason in sorted(imported.unpriced.items(), key=lambda each: (each[0] not in lost, each[0]))
        ),
    )


def _say_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
