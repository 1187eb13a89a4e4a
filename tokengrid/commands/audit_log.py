"""`tokengrid audit log`: a part of one log, counted and hashed, from any source."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from services.audit.partial import Part, load_part, read_part, save_part
from services.audit.replay.findings import Findings
from services.audit.replay.proofs import Proofs
from services.audit.replay.reader import Caller, LogReader
from shared.config import SERVICES
from tokengrid.commands.audit_progress import Rate
from tokengrid.commands.audit_sources import Keys, Source, keys_by_log, opened
from tokengrid.commands.options import VAR, AsJson, Var, Where, print_json, print_table
from tokengrid.session import Against

FIRST = "first"


def log(
    name: Annotated[str, typer.Argument(help="A log: catalog, quota, quota-0, routing, billing.", metavar="LOG")],
    source: Annotated[Source, typer.Option("--from", help="Where it is read: see `audit replay`.")] = Source.rpc,
    position: Annotated[
        int | None, typer.Option("--from-position", min=1, help="Begin at this event.", show_default=False)
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", min=0, help="Begin at this message of a stream.", show_default=False)
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", help="Begin with what came into a stream at this time (UTC).", show_default=False),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Keep how far it was read, and go on behind it.", metavar="FILE"),
    ] = None,
    key: Keys = None,
    broker: Annotated[str, typer.Option("--broker", help="RabbitMQ to read streams from.", metavar="URI")] = "",
    database: Annotated[str, typer.Option("--database", help="Databases to read.", metavar="URL")] = "",
    archive: Annotated[Path | None, typer.Option("--archive", help="The archive's folder.", metavar="FOLDER")] = None,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Count and hash a log, or a part of it, and compare it with what was signed. No arithmetic: see `audit replay`.

    From the beginning on, the Merkle root at each signed size is compared. From the middle on the content hash says
    whether two readers have read the same. Exit code 0 only if there is no gap and every root is the signed one.
    """
    service, shard = _of(name)
    if (offset is not None or since is not None) and source is not Source.stream:
        raise typer.BadParameter("--offset and --since are places in a stream: add --from stream")
    if sum(given is not None for given in (position, offset, since)) > 1:
        raise typer.BadParameter("name one beginning: --from-position, --offset or --since")
    part = load_part(state, name) if state is not None else Part(name)
    if (part.first and (offset, since) != (None, None)) or (part.first and position not in (None, part.first)):
        raise typer.BadParameter(f"{state} begins at {part.first}: leave the beginning away, or name another file")
    start = offset if offset is not None else since.replace(tzinfo=UTC) if since is not None else FIRST
    where = (source, against, var, broker, database)
    with opened(*where, archive=archive) as whole:
        signed, unproven = _signed(whole, name, keys_by_log(key), asks=source is Source.rpc)
    begin = None if start != FIRST else position or 1
    with opened(*where, start=start, archive=archive) as client, Rate() as rate:
        read_part(
            client,
            service,
            shard,
            part,
            start=begin,
            signed=signed,
            save=lambda read: save_part(state, read) if state is not None else None,
            progress=rate.update,
        )
    shown = {
        "log": part.log,
        "first": part.first,
        "position": part.position,
        "events": part.events,
        "content_sha256": part.content_sha256,
        "root_sha256": part.root_sha256,
        "checked": part.checked,
        "proven": bool(part.checked) and not unproven,
    }
    if json:
        print_json(shown | {"topics": dict(sorted(part.topics.items()))})
        return
    print_table(name, ("", ""), shown.items())
    print_table("Events", ("topic", "count"), sorted(part.topics.items()), right=("count",))


def _of(name: str) -> tuple[str, int]:
    """Service and shard of a log."""
    found = re.fullmatch(r"(?P<service>[a-z]+)(-(?P<shard>[0-9]{1,4}))?", name)
    if not found or found["service"] not in SERVICES or (found["shard"] and found["service"] != "quota"):
        raise typer.BadParameter(f"{name!r} is no log: name one of {', '.join(SERVICES)}, or a shard as quota-0")
    return found["service"], int(found["shard"] or 0)


def _signed(client: Caller, log: str, keys: dict[str, str] | None, asks: bool) -> tuple[dict[int, bytes], bool]:
    """The signed roots of a log by size, and whether nobody could verify their signatures."""
    findings = Findings()
    proofs = Proofs(client, keys, findings, seed=0, asks=asks)
    LogReader(client, "audit", proofs.apply, findings).read_on()
    for difference in findings.differences:
        if difference.log in (log, "audit"):
            typer.echo(f"audit's log at {difference.position}: {difference.what}: {difference.found}", err=True)
    if findings.count:
        raise typer.Exit(1)
    return {size: root for size, (root, _) in proofs.signed.get(log, {}).items()}, log not in proofs.logs
