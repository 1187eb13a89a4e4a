"""`tokengrid bill`: the files that are made of issued bills, and the checks of their receivers."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from services.billing.chargecheck import check_charge_file
from services.billing.focus.check import check_focus
from shared.errors import TokengridError
from tokengrid.chromium import print_pdf
from tokengrid.commands.options import VAR, MonthArgument, Var, Where, asking, console
from tokengrid.screen import Screen
from tokengrid.session import Against

FOCUS_PAGE = 200  # bills at a time: about a megabyte
CHARGES_PAGE = 1000

FileToWrite = Annotated[Path, typer.Argument(help="File to write.", dir_okay=False, show_default=False)]
FileToCheck = Annotated[
    Path, typer.Argument(help="File to check.", exists=True, dir_okay=False, readable=True, show_default=False)
]


def focus(
    month: MonthArgument,
    file: FileToWrite,
    operator: Annotated[str | None, typer.Option(help="Of this operator only.", show_default=False)] = None,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Write a month's bills, and the credit notes issued in it, as FOCUS 1.2 (CSV)."""
    with asking(against, var) as ask, whole(file) as out:
        screen, rows, after, more = Screen(console), 0, "", True
        with screen.stage(f"writing {file}", "rows") as tick:
            while more:
                page = ask("billing", "focus", operator=operator, period=month, after=after, limit=FOCUS_PAGE)
                header, _, body = page["csv"].partition("\r\n")
                out.write(body if after else f"{header}\r\n{body}")
                rows, after, more = rows + page["count"], page["last"], page["more"]
                tick(rows)


def check_focus_file(file: FileToCheck) -> None:
    """Check a FOCUS 1.2 file (CSV), of whomever. Exit code 1 if it breaks the specification."""
    found = (
        f"{file}:{line}: {column or 'the record'}: {said} ({rule})"
        for line, column, rule, said in check_focus(_text(file))
    )
    _report(file, found)


def charge_file(
    month: MonthArgument,
    file: FileToWrite,
    operator: Annotated[str, typer.Option(help="Whose charges.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, max=5000, help="Charges a file at most.")] = CHARGES_PAGE,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Write a month's charges for the phone bill's run (CSV); several files have numbers: charges-1.csv."""
    with asking(against, var) as ask:
        behind, more, number = {"after": "", "voids_after": 0}, True, 0
        while more:
            made = ask("billing", "charge_file", operator=operator, period=month, limit=limit, **behind)
            behind = {"after": made["last"], "voids_after": made["voids_last"]}
            number, more = number + 1, made["more"] or made["voids_more"]
            wrong = check_charge_file(made["csv"])
            if wrong:
                raise TokengridError(f"The charge file came damaged: {wrong[0].message}.")
            several = more or number > 1
            target = file.with_name(f"{file.stem}-{number}{file.suffix}") if several else file
            target.write_text(made["csv"], encoding="utf-8", newline="")
            typer.echo(f"{target}: {made['count']:,} charges, {made['sum_fen']:,} fen")


def check_charges(file: FileToCheck) -> None:
    """Check a charge file's control totals and hash. Exit code 1 if it was cut, doubled or changed."""
    _report(file, (f"{file}:{line}: {said}" for line, said in check_charge_file(_text(file))))


def pdf(
    number: Annotated[
        str, typer.Argument(help="Bill number, such as shanghai-telecom-2026-06-000001.", show_default=False)
    ],
    file: FileToWrite,
    against: Where = Against.demo,
    var: Var = VAR,
) -> None:
    """Write one bill as a PDF, by the Chromium of this machine (TOKENGRID_CHROMIUM names another)."""
    with asking(against, var) as ask:
        page = ask("billing", "bill_page", number=number)
    print_pdf(page["html"], file)
    typer.echo(f"{file}: bill {number}")


@contextmanager
def whole(file: Path) -> Iterator[TextIO]:
    """A text to write that becomes `file` only once it is complete."""
    if not file.parent.is_dir():  # told by the name that was given
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _text(file: Path) -> str:
    """As it is, line ends and all."""
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise TokengridError(f"{file}: not UTF-8, at byte {error.start}.") from None


def _report(file: Path, found: Iterable[str]) -> None:
    count = 0
    for line in found:
        typer.echo(line)
        count += 1
    if count:
        raise typer.Exit(1)
    typer.echo(f"{file}: nothing wrong")
