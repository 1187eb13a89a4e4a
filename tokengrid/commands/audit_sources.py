"""Where `tokengrid audit replay` reads the logs: from the services, or without them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from services.audit.replay.reader import Caller
from services.audit.sources import StreamSource, snapshot, urls_in
from shared.config import SERVICES
from shared.errors import SetupFailed
from shared.messaging.streams import Offset, connected
from shared.transparency.keys import VerifierKey
from tokengrid import up
from tokengrid.session import Against, demo_folder, embedded_settings, session


class Source(StrEnum):
    """`rpc`: the services; `stream`: RabbitMQ's copies of the logs; `archive`: Parquet files; `snapshot`: the services'
    databases."""

    rpc = "rpc"
    stream = "stream"
    archive = "archive"
    snapshot = "snapshot"


Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help="A log's verifier key, `name+id+…`, known from elsewhere; once a log. Default: what the service names; "
        "without services none, and signatures stay unproven.",
        metavar="KEY",
        show_default=False,
    ),
]


def keys_by_log(keys: list[str] | None) -> dict[str, str] | None:
    """Verifier keys by the log that they name; None where none is given. Raises MalformedCommand for what is no key."""
    parsed = [VerifierKey.parse(text) for text in keys or ()]
    return {key.name.rpartition("/")[2]: str(key) for key in parsed} or None


@contextmanager
def opened(
    source: Source,
    against: Against,
    var: Path,
    broker: str = "",
    database: str = "",
    start: Offset = "first",
    archive: Path | None = None,
) -> Iterator[Caller]:
    """What a replay asks. `broker`, `database`: addresses, if they are not those of `against`; `start`: in a stream;
    `archive`: its folder. SetupFailed, Unavailable: there is nothing to be read."""
    if source is Source.rpc:
        with session(against, var) as client:
            yield client
    elif source is Source.stream:
        with connected(broker or _settings(against, var).broker) as connection:
            yield StreamSource(connection, start)
    elif source is Source.archive:
        if archive is None:
            raise SetupFailed("Where is the archive? Say so with --archive FOLDER.")
        yield archive_module("services.audit.archive.source").ArchiveSource(archive)
    else:
        with snapshot(_databases(against, var, database)) as logs:
            yield logs


def _settings(against: Against, var: Path) -> Any:
    return up.client_settings(var) if against is Against.up else embedded_settings(demo_folder(var))


def _databases(against: Against, var: Path, database: str) -> dict[str, str]:
    if database:
        return _from_template(database)
    if against is Against.up:
        return up.database_urls(var)
    return urls_in(demo_folder(var) if demo_folder(var).is_dir() else var)


def _from_template(database: str) -> dict[str, str]:
    if "{service}" not in database:
        raise SetupFailed("Write {service} into --database, which stands for catalog, quota and so on.")
    return {log: database.replace("{service}", log.replace("-", "_")) for log in SERVICES}


def archive_module(name: str) -> ModuleType:
    """A module of archives, by its whole name. SetupFailed: what it needs is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("pyarrow", "duckdb", "numpy"):
            raise SetupFailed(
                f"Archives need {error.name}, which is not installed: pip install 'tokengrid[archive]'."
            ) from None
        raise
