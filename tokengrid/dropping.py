"""Drops from quota's databases what an archive has, so that every answer stays as it was.

Before a partition goes: the archive is verified, its events are compared with the database's one by one, and every
account in it gets a snapshot, so that commands do not need the archive but where they repeat an old request or refer to
one. It must not know how partitions are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from services.audit.archive.databases import check_same
from services.audit.archive.verifying import verify_log
from services.quota.application import QuotaApplication
from shared.archive.reading import LogArchive
from shared.clock import system_clock
from shared.config import Settings
from shared.errors import SetupFailed

Progress = Callable[[str], None]


class DroppedPart(NamedTuple):
    """A partition that was dropped: its events' positions, and how many accounts got a snapshot for it."""

    log: str
    first: int
    last: int
    accounts: int


def drop_archived(
    settings: Settings,
    archive: Path,
    log: str,
    *,
    until: int | None = None,
    verifier_key: str | None = None,
    progress: Progress = lambda _doing: None,
) -> list[DroppedPart]:
    """Drop the partitions of one of quota's logs that the archive has whole, up to position `until`; the log's last
    partition stays. Killed at any point and run again it goes on.

    Raises AuditFailed when the archive is not what it says, Conflict when the database has other events, SetupFailed
    for a log without partitions, Busy when the table was in use: then nothing more was dropped.
    """
    progress(f"{log}: verifying the archive")
    verify_log(archive, log, verifier_key)
    found = LogArchive.open(archive, log)
    about = found.manifest
    if about.service != "quota" or not about.note:
        raise SetupFailed(f"Only what is archived and signed of quota's logs can be dropped, not {log}.")
    settings = settings.model_copy(update={"archive": archive})
    url = settings.database_url("quota", about.shard)
    if not url.startswith("postgresql"):
        raise SetupFailed("Only PostgreSQL's logs have partitions that can be dropped.")
    application = QuotaApplication(settings, system_clock, about.shard)
    made = []
    try:
        for partition in application.log.droppable(about.size if until is None else min(about.size, until)):
            progress(f"{log}: comparing events {partition.first:,} to {partition.last:,}")
            check_same(found, url, partition.first, partition.last)
            kept = 0
            while streams := application.snapshots.behind(partition.first, partition.last):
                for number, stream in enumerate(streams):
                    progress(f"{log}: {number:,} of {len(streams):,} accounts have a snapshot")
                    application.snapshots.keep(stream)
                kept += len(streams)
            application.log.drop(partition, (about.size, about.root_sha256))
            made.append(DroppedPart(log, partition.first, partition.last, kept))
    finally:
        application.close()
    return made
