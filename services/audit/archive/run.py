"""Archives all logs of a system: how far each, in which order, and by which checkpoint it is proved.

Everything that is archived ends at a signed checkpoint. Audit's own log, which nobody signs, is taken last and as far
as it speaks of nothing that is not archived. It must not know what the events mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import msgspec

from services.audit.archive.databases import Rows
from services.audit.archive.writing import Progress, write_log
from shared.archive.manifest import Manifest
from shared.archive.shredding import Row
from shared.errors import AuditFailed, NotCaughtUp

# In the order in which an audit asks for heads: what one refers to is in those behind it.
ORDER = ("quota", "billing", "catalog", "routing")
ALWAYS_WHOLE = ("catalog",)  # few events, and every debit and bill refers to its prices
PAUSE_S = 0.05
PAGE = 1000


class Caller(Protocol):
    """What this needs of a client: of audit's methods `seal`, `checkpoint` and `checkpoints`."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


class Logs(Protocol):
    """What this needs of the settings."""

    def logs(self, service: str) -> tuple[str, ...]: ...

    def database_url(self, service: str, shard: int = 0) -> str: ...


def write_archive(
    client: Caller,
    settings: Logs,
    folder: Path,
    *,
    before: date | None = None,
    to: Mapping[str, int] | None = None,
    progress: Progress = lambda _log, _done, _total: None,
    wait_s: float = 30.0,
) -> list[Manifest]:
    """Archive all logs: whole, or what was recorded before a day in Shanghai, or the logs in `to` up to a position.

    Each is archived up to the first checkpoint at or behind that place: at most a sealing interval more than was asked
    for. Running it again goes on from what is there. `wait_s`: how long audit may take to follow a log. Raises
    AuditFailed when a log is not the one that was signed, NotCaughtUp when no checkpoint reaches that far.
    """
    to = to or {}
    made = []
    for service in ORDER:
        for shard, log in enumerate(settings.logs(service)):
            if to and log not in to:
                continue
            with Rows(settings.database_url(service, shard)) as rows:
                place = to.get(log)
                if place is None and before is not None and service not in ALWAYS_WHOLE:
                    place = rows.before(before)
                sealed = (
                    _sealed_head(client, log, rows.head(), wait_s) if place is None else _sealed(client, log, place)
                )
                about = Manifest(
                    service=service, shard=shard, log=log, note=sealed["note"], verifier_key=sealed["verifier_key"]
                )
                made.append(write_log(folder, about, rows.read, sealed["size"], progress))
    if not to:
        sizes = {manifest.log: manifest.size for manifest in made}
        with Rows(settings.database_url("audit", 0)) as rows:
            about = Manifest(service="audit", shard=0, log="audit")
            made.append(write_log(folder, about, rows.read, _covered(rows.read, sizes), progress))
    return made


def _sealed_head(client: Caller, log: str, head: int, wait_s: float) -> Mapping[str, Any]:
    """A checkpoint of the whole log as it is now."""
    until = time.monotonic() + wait_s
    while True:
        try:
            sealed: Mapping[str, Any] = client.call("audit", "seal", log=log, position=head)
            return sealed
        except NotCaughtUp:
            if time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)


def _sealed(client: Caller, log: str, position: int) -> Mapping[str, Any]:
    """The first checkpoint of at least this size. They are numbered, and found by halving."""
    last: Mapping[str, Any] = client.call("audit", "checkpoint", log=log)
    if last["size"] < position:
        details = {"log": log, "position": last["size"], "head": position}
        raise NotCaughtUp(f"{log} is signed up to {last['size']}, not {position}", details)
    low, high = 0, int(last["version"])  # too small up to low, large enough at high
    while high - low > 1:
        middle = (low + high) // 2
        (found,) = client.call("audit", "checkpoints", log=log, after=middle - 1, limit=1)["checkpoints"]
        if found["size"] >= position:
            high, last = middle, found
        else:
            low = middle
    return last


def _covered(read: Callable[[int, int], list[Row]], sizes: Mapping[str, int]) -> int:
    """How far audit's own log goes without a checkpoint of more than is archived."""
    covered = 0
    while page := read(covered, PAGE):
        for row in page:
            try:
                event = msgspec.json.decode(row.state)
                if event["size"] > sizes.get(event["log"], 0):
                    return covered
            except (msgspec.DecodeError, LookupError, TypeError) as error:
                raise AuditFailed(f"audit's log has no checkpoint at position {row.position}") from error
            covered = row.position
    return covered
