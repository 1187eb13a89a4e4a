"""`tokengrid`: the command line. Says in one sentence what went wrong; knows nothing of how anything is done.

Exit codes: 0 done; 1 refused, failed or not in agreement; 2 asked wrongly; 130 interrupted.
"""

import shared.messaging.patch  # isort: skip  # noqa: F401 - before anything else that does I/O

import functools
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import typer
from nameko.exceptions import RemoteError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from shared import collector
from shared.errors import TokengridError
from tokengrid.commands import account, audit, bench, bill, catalog, demo, events, servers, subscription
from tokengrid.traces import UnreadableTrace

USAGE = 2
INTERRUPTED = 130
SHOW_CURSOR = "\x1b[?25h"

app = typer.Typer(
    name="tokengrid",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="The meter, ledger and biller behind AI tokens sold as a utility.\n\n"
    "Start with [bold]tokengrid demo[/bold]: a month of calls, billed, settled and audited, on this machine. "
    "Then ask about what it left: [bold]tokengrid bill list[/bold], "
    "[bold]tokengrid account balance shanghai-mobile 000001[/bold]. "
    "[bold]tokengrid up[/bold] starts the production shape; [bold]--against up[/bold] asks that one instead.",
)

LOOK = "Look into it"
RUN = "Run it"
app.command(rich_help_panel=RUN)(demo.demo)
app.command(rich_help_panel=RUN)(servers.up)
app.command(rich_help_panel=RUN)(servers.down)
app.command(rich_help_panel=RUN)(servers.status)
app.command(rich_help_panel=RUN)(servers.serve)
app.command(rich_help_panel=RUN)(bench.bench)
app.add_typer(catalog.app, name="catalog", rich_help_panel=LOOK)
app.add_typer(account.app, name="account", rich_help_panel=LOOK)
app.add_typer(subscription.app, name="subscription", rich_help_panel=LOOK)
app.add_typer(bill.app, name="bill", rich_help_panel=LOOK)
app.add_typer(audit.app, name="audit", rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK)(events.events)


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs the command and ends the process with its exit code."""
    signal.signal(signal.SIGINT, _interrupted)
    collector.suit_batches()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    try:
        result = _command()(args=arguments, prog_name="tokengrid", standalone_mode=False)
    except typer.TyperException as error:
        _say(error.format_message())
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _say("Interrupted.")
        return INTERRUPTED
    except TokengridError as error:
        _say(_sentence(error))
    except UnreadableTrace as error:
        _say(str(error))
    except ValidationError as error:
        wrong = "; ".join(f"TOKENGRID_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        _say(f"Correct the configuration: {wrong}")
        return USAGE
    except RemoteError as error:
        _say(f"The service failed: {error}")
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        _say(f"The database cannot be used: {why.splitlines()[0].rstrip('.')}.")
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _say(f"{error.filename or 'A file'}: {error.strerror or error}")
    else:
        return result if isinstance(result, int) else 0
    return 1


@functools.cache
def _command() -> Any:
    """The commands as they are parsed; to make them of their functions' signatures takes a tenth of a second."""
    return typer.main.get_command(app)


def _sentence(error: TokengridError) -> str:
    """What was refused, and for a malformed command which fields."""
    fields = {name: " ".join(map(str, said)) for name, said in sorted(error.details.get("fields", {}).items())}
    named = "; ".join(f"{name}: {said}" for name, said in fields.items() if said not in str(error))
    text = f"{str(error).rstrip('.')}: {named}" if named else str(error)
    if text.partition(" ")[0].isalpha():  # not the name of a file
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _discard_output() -> None:
    """Whoever read our output has gone; the interpreter must not stumble over that at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """End at once: whatever is acknowledged is durable, and everything that runs in this process ends with it.

    Raising would hit whichever green thread happens to run.
    """
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())
    os.write(sys.stderr.fileno(), b"\nInterrupted.\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
