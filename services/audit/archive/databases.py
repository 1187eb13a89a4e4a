"""Between event databases and an archive: rows read with all that they have, and rows put back where there are none.

It reads the table that every service's log has, and must not know which service it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa
from eventsourcing.persistence import IntegrityError

from services.audit.archive.writing import day_of
from shared.archive.reading import LogArchive
from shared.archive.shredding import Row
from shared.errors import Conflict, Unavailable
from shared.eventstore.database import engine, migrate
from shared.eventstore.log import FAILURES, EventLog

RESTORED_AT_ONCE = 8192  # rows of a transaction

_READ = sa.text(
    "SELECT position, originator_id, originator_version, topic, state, request_key, trace FROM events"
    " WHERE position > :after ORDER BY position LIMIT :limit"
)


class Rows:
    """The events of a database, read in sections. Raises Unavailable when it cannot be reached."""

    def __init__(self, url: str) -> None:
        self._engine = engine(url)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    def read(self, after: int, limit: int) -> list[Row]:
        try:
            with self._engine.connect() as connection:
                found = connection.execute(_READ, {"after": after, "limit": limit})
                return [Row(p, s, v, t, bytes(state), key, trace) for p, s, v, t, state, key, trace in found]
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(f"the event database cannot be read: {type(error).__name__}") from error

    def head(self) -> int:
        try:
            with self._engine.connect() as connection:
                return connection.execute(sa.text("SELECT max(position) FROM events")).scalar() or 0
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(f"the event database cannot be read: {type(error).__name__}") from error

    def before(self, day: date) -> int:
        """The last position before the first event that was recorded on `day` in Shanghai, or later. Found by
        halving: clocks of several processes may disagree, so that the cut is near midnight and not on it."""
        low, high = 0, self.head()  # recorded before `day` up to low, not at high + 1
        while low < high:
            middle = (low + high + 1) // 2
            row = self.read(middle - 1, 1)[0]
            if (day_of(row.state) or "") < day.isoformat():
                low = middle
            else:
                high = middle - 1
        return low


def restore(
    archive: LogArchive, url: str, progress: Callable[[str, int, int], None] = lambda _log, _done, _total: None
) -> int:
    """Put a log's events back into its own, empty event database, which is migrated first; how many were put there.

    A restore that was killed goes on: what stands in the database already must be the log's beginning. Raises
    Conflict when it is anything else; then nothing is changed.
    """
    service = archive.manifest.service
    made = engine(url)
    migrate(made, service)
    made.dispose()
    log = EventLog(url)
    try:
        began = at = _common(archive, url, log.head())
        for rows in archive.rows(at):
            for start in range(0, len(rows), RESTORED_AT_ONCE):
                section = rows[start : start + RESTORED_AT_ONCE]
                _append(log, at, section)
                at = section[-1].position
                progress(archive.manifest.log, at, archive.manifest.size)
        return at - began
    finally:
        log.close()


def check_same(archive: LogArchive, url: str, first: int, last: int) -> None:
    """That a database's events at the positions `first` to `last` are the archived ones, in all that was stored with
    them. Raises Conflict, naming the first that is not."""
    with Rows(url) as rows:
        for section in archive.rows(first - 1):
            there = rows.read(section[0].position - 1, min(len(section), last - section[0].position + 1))
            for archived, stored in zip(section[: len(there)], there, strict=True):
                if archived != stored:
                    raise Conflict(f"event {archived.position} in the database is not the archived one")
            if not there or there[-1].position >= last:
                break
        if not there or there[-1].position != last:
            raise Conflict(f"database and archive do not both have the events {first} to {last}")


def _append(log: EventLog, after: int, rows: Sequence[Row]) -> None:
    recorder: Any = log.recorder
    packed = recorder.pack(after + 1, [row[1:] for row in rows])
    try:
        recorder.append_packed(packed, recorder.open())
    except IntegrityError as error:
        raise Conflict(f"somebody else writes into the database: position {after + 1} is taken") from error
    except FAILURES as error:
        raise Unavailable("the event database cannot be reached; run it again to go on") from error


def _common(archive: LogArchive, url: str, head: int) -> int:
    """How many events of the archive the database has already, and no others."""
    if head > archive.manifest.size:
        raise Conflict(f"the database has {head} events, the archive of {archive.manifest.log} fewer")
    with Rows(url) as rows:
        for section in archive.rows() if head else ():
            if section[0].position > head:
                break
            there: Sequence[Row] = rows.read(section[0].position - 1, len(section))
            if list(there) != section[: len(there)] or len(there) != min(len(section), head - section[0].position + 1):
                raise Conflict(f"the database has other events than the archive of {archive.manifest.log}")
    return head
