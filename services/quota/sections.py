"""Where in a long account's stream to look for a time: the times of whole sections of it, folded from the log.

Only complete sections have a row, so short accounts cost nothing; a section without a row is looked through. It
knows that events have times and nothing else of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shared.clock import EARLIEST
from shared.contracts.base import decode_event
from shared.eventstore.log import LoggedEvent

SECTION = 1024  # events; section n holds the versions from n * SECTION + 1 to (n + 1) * SECTION

meta = sa.MetaData()
sections = sa.Table(
    "sections",
    meta,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("section", sa.BigInteger, primary_key=True),
    # Microseconds since 1970: what databases do to instants differs.
    sa.Column("first_at", sa.BigInteger),
    sa.Column("last_at", sa.BigInteger),
    sa.Column("last_recorded_at", sa.BigInteger),
)
_events = sa.table(
    "events",
    sa.column("originator_id", sa.Text),
    sa.column("originator_version", sa.BigInteger),
    sa.column("topic", sa.Text),
    sa.column("state", sa.LargeBinary),
)


def complete(connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
    """Write the sections whose last event is in this page of the log, which is in the same database."""
    ended = [(logged.stream, logged.version // SECTION - 1) for logged in page if logged.version % SECTION == 0]
    if rows := [row for stream, section in ended if (row := _row(connection, stream, section))]:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
        connection.execute(insert(sections).on_conflict_do_nothing(), rows)


def _row(connection: sa.Connection, stream: str, section: int) -> dict[str, Any] | None:
    version = _events.c.originator_version
    found = connection.execute(
        sa.select(_events.c.topic, _events.c.state).where(
            _events.c.originator_id == stream, version > section * SECTION, version <= (section + 1) * SECTION
        )
    )
    times = [(event.at, event.recorded_at) for event in (decode_event(topic, state) for topic, state in found)]
    if len(times) < SECTION:
        return None  # a page of a log that is not here
    return {
        "stream": stream,
        "section": section,
        "first_at": _micros(min(at for at, _ in times)),
        "last_at": _micros(max(at for at, _ in times)),
        "last_recorded_at": _micros(max(recorded_at for _, recorded_at in times)),
    }


class Sections:
    """What the sections of a database's streams can be asked."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def without(self, stream: str, since: datetime | None, until: datetime | None) -> set[int]:
        """The sections in which nothing happened from `since` on and before `until`."""
        outside = []
        if since is not None:
            outside.append(sections.c.last_at < _micros(since))
        if until is not None:
            outside.append(sections.c.first_at >= _micros(until))
        return self._numbers(stream, sa.or_(*outside))

    def known(self, stream: str, known_at: datetime) -> set[int]:
        """The sections that had been recorded by an instant, to their last event."""
        return self._numbers(stream, sections.c.last_recorded_at <= _micros(known_at))

    def _numbers(self, stream: str, condition: Any) -> set[int]:
        statement = sa.select(sections.c.section).where(sections.c.stream == stream, condition)
        with self._engine.connect() as connection:
            return set(connection.execute(statement).scalars())


def _micros(at: datetime) -> int:
    return (at - EARLIEST) // timedelta(microseconds=1)
