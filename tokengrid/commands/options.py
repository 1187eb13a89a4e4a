"""Options that many commands have, and how an answer is shown: tables for people, JSON for programs."""

from __future__ import annotations

import json as jsonlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared.clock import SHANGHAI, period_bounds
from shared.messaging.client import Client
from tokengrid.session import Against, session

# A command that is repeated has one effect; what the network or a restart swallows is asked again.
RETRIES = 3

Var = Annotated[Path, typer.Option("--var", envvar="TOKENGRID_VAR", help="Folder of all state.", show_default=True)]
VAR = Path("var")
Where = Annotated[
    Against,
    typer.Option("--against", help="`demo`: the data the last demo left; `up`: the services that run."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Operator = Annotated[str, typer.Argument(help="Operator, such as shanghai-telecom.", show_default=False)]
Account = Annotated[str, typer.Argument(help="Subscriber's account at the operator.", show_default=False)]


def not_empty(text: str | None) -> str | None:
    """A shell variable that was never set is no default: under a new id each repetition would count."""
    if text == "":
        raise typer.BadParameter("it is empty")
    return text


RequestKey = Annotated[
    str | None,
    typer.Option(
        "--request-id",
        help="Repeat a command under the same id: it has one effect. Default: a new one.",
        show_default=False,
        callback=not_empty,
    ),
]


BillNumber = Annotated[
    str, typer.Argument(help="Bill number, such as shanghai-telecom-2026-06-000001.", show_default=False)
]


def month(text: str) -> str:
    """A month as it was asked for. Raises BadParameter for what is none."""
    try:
        period_bounds(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no month, such as 2026-06") from None
    return text


def month_or_none(text: str | None) -> str | None:
    return text if text is None else month(text)


MonthOption = Annotated[
    str, typer.Option("--month", help="Month, in Shanghai.", metavar="YYYY-MM", callback=month_or_none)
]
AnyMonthOption = Annotated[
    str | None, typer.Option("--month", help="Of this month only.", metavar="YYYY-MM", callback=month_or_none)
]
MonthArgument = Annotated[str, typer.Argument(help="Month, in Shanghai.", metavar="YYYY-MM", callback=month_or_none)]

console = Console()


@contextmanager
def asking(against: Against, var: Path) -> Iterator[Any]:
    """`ask(service, method, **fields)` in a session."""
    with session(against, var) as client:
        yield lambda service, method, **fields: ask(client, service, method, **fields)


def ask(client: Client, service: str, method: str, **fields: Any) -> Any:
    """A method's answer; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return client.call(service, method, retries=RETRIES, **given)


def new_request_id() -> str:
    """Unique, and ordered by time."""
    return f"cli-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:12]}"


def print_json(value: Any) -> None:
    typer.echo(jsonlib.dumps(value, indent=1, ensure_ascii=False))


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]], right: Iterable[str] = ()) -> None:
    """A table; `right`: the columns of figures. Where no terminal limits the width, nothing is cut off."""
    to_the_right = set(right)
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in to_the_right else "left", overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
        count += 1
    shown = console if console.is_terminal else Console(width=200)
    shown.print(table if count else Text(f"{title}: none"), highlight=False)


def local(instant: str | None) -> str:
    """An ISO instant as Shanghai's wall time."""
    if not instant:
        return ""
    return datetime.fromisoformat(instant).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
