"""Answers as they were before events were dropped from the database: what it lacks is read from the archive.

That events were dropped shows in what the database answers: a gap before the first position or version. Then, and only
then, it is asked how far, so whoever has dropped nothing pays nothing. Must not know how archives are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from shared.errors import Unavailable

Row = tuple[int, str, int, str, bytes, str | None]  # position, stream, version, topic, state, trace


class Dropped(NamedTuple):
    """The positions up to `last` are not in the database, but in the archive that had this size and root."""

    last: int
    archive_size: int
    archive_root: str


class Archived(Protocol):
    """A log's archive. Raises Unavailable when it cannot give what is asked of it, or is not the one it should be."""

    def expect(self, size: int, root: str) -> None:
        """It must go on from the archive that had this size and root (hex)."""

    def rows(self, after: int, limit: int) -> Sequence[Row]:
        """Exactly `limit` events behind position `after`."""

    def stream(self, stream: str, after: int, until: int) -> Sequence[Row]:
        """A stream's events with the versions `after + 1` to `until`, all of them."""

    def at(self, positions: Sequence[int]) -> Sequence[Row]:
        """The events at these positions, in this order."""


class Past:
    """Completes what a database answers. `dropped`: asks it how far; None where nothing was dropped."""

    def __init__(self, dropped: Callable[[], Dropped | None], archived: Archived | None) -> None:
        self._dropped = dropped
        self._archived = archived

    def page(self, after: int, limit: int, rows: list[Row]) -> list[Row]:
        """A section of the log, of which the database gave `rows`."""
        if not rows or rows[0][0] == after + 1 or (dropped := self._dropped()) is None or dropped.last <= after:
            return rows
        count = min(limit, dropped.last - after)
        return [*self._archive(dropped).rows(after, count), *rows[: limit - count]]

    def stream(self, stream: str, after: int, limit: int | None, rows: list[Row]) -> list[Row]:
        """A stream's events behind version `after`, of which the database gave `rows`: its end for good."""
        if not rows or rows[0][2] == after + 1 or (dropped := self._dropped()) is None:
            return rows
        until = rows[0][2] - 1
        if rows[0][0] <= dropped.last:  # carried: where the archive is asked, it is believed
            until, rows = rows[0][2], rows[1:]
        if limit is not None:
            until = min(until, after + limit)
        found = [*self._archive(dropped).stream(stream, after, until), *rows]
        return found if limit is None else found[:limit]

    def at(self, positions: Sequence[int]) -> Sequence[Row]:
        """Events that the database knows to have been there."""
        dropped = self._dropped()
        if dropped is None:  # a key without its event: the database was tampered with
            raise Unavailable("an event is missing in the database")
        return self._archive(dropped).at(positions)

    def _archive(self, dropped: Dropped) -> Archived:
        if self._archived is None:
            raise Unavailable(
                f"the events up to position {dropped.last} were dropped from the database, and TOKENGRID_ARCHIVE names "
                "no archive of them",
                {"dropped": dropped.last},
            )
        self._archived.expect(dropped.archive_size, dropped.archive_root)
        return self._archived
