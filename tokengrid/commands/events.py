"""`tokengrid events`: a service's log, as people can read it."""

from __future__ import annotations

import json as jsonlib
import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from shared.clock import SHANGHAI
from shared.eventstore.log import LoggedEvent
from tokengrid.commands.options import VAR, AsJson, Var, Where, asking
from tokengrid.session import Against

PAGE = 1000
FOLLOW_POLL_S = 0.5
# Told by the first columns, or for machines alone.
NOT_SHOWN = {"at", "recorded_at", "fingerprint"}
VALUE_MAX = 60


class Log(StrEnum):
    catalog = "catalog"
    quota = "quota"
    routing = "routing"
    billing = "billing"
    audit = "audit"


def events(
    service: Annotated[Log, typer.Argument(help="Whose log.", show_default=False)],
    after: Annotated[
        int | None, typer.Option(min=0, help="Behind this position; default: the last of them.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Events at most.")] = 20,
    shard: Annotated[int, typer.Option(min=0, max=1023, help="Of quota's shards, which one's log.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    against: Where = Against.demo,
    var: Var = VAR,
    json: AsJson = False,
) -> None:
    """Read a service's event log: the last events, or those behind a position."""
    with asking(against, var) as ask:
        position = max(0, ask(service.value, "head", shard=shard) - limit) if after is None else after
        left = limit
        while left > 0 or follow:
            count = PAGE if follow else min(PAGE, left)
            page = ask(service.value, "events", after=position, limit=count, shard=shard)["events"]
            for fields in page:
                typer.echo(_as_json(fields) if json else line(LoggedEvent(**fields)))
            left -= len(page)
            if page:
                position = page[-1]["position"]
            elif follow:
                time.sleep(FOLLOW_POLL_S)
            else:
                return


def _as_json(fields: dict[str, Any]) -> str:
    return jsonlib.dumps({**fields, "state": jsonlib.loads(fields["state"])}, ensure_ascii=False)


def line(logged: LoggedEvent) -> str:
    """One event on one line: position, Shanghai's time, stream and version, kind, and what it says."""
    state = jsonlib.loads(logged.state)
    kind = logged.topic.partition(".")[2].partition(":")[0]
    at = logged.event.at.astimezone(SHANGHAI)
    said = " ".join(f"{name}={_short(value)}" for name, value in state.items() if name not in NOT_SHOWN)
    return f"{logged.position:>8}  {at:%Y-%m-%d %H:%M:%S}  {logged.stream} v{logged.version}  {kind}  {said}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = " ".join(text.split())
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}…"
