"""Applying another log's pages to a read model: each event exactly once, in order.

The position moves in the same transaction as the result, by compare-and-set: of two replicas that
apply the same page, one wins and the other's transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from time import sleep
from typing import Any, Protocol, overload

import sqlalchemy as sa

from shared.errors import Conflict
from shared.eventstore.database import WRITES
from shared.eventstore.log import LoggedEvent
from shared.eventstore.schema import POSITIONS

SQLITE_AT_ONCE = 20_000  # events: while they are written nobody else in the process has a turn

_positions = sa.table(POSITIONS, sa.column("projection", sa.Text), sa.column("position", sa.BigInteger))
_fields = itemgetter(*LoggedEvent._fields)
_made = partial(tuple.__new__, LoggedEvent)  # an event as it travelled; calling the class takes three times as long


class Page(Sequence[LoggedEvent]):
    """A page as it came from the broker: an event is made when it is asked for.

    Of 100,000 made beforehand the first has left the processor's cache when its turn comes.
    """

    def __init__(self, page: Sequence[LoggedEvent | Mapping[str, Any]]) -> None:
        self._page = page

    def __len__(self) -> int:
        return len(self._page)

    def __iter__(self) -> Iterator[LoggedEvent]:
        return map(_event, self._page)

    @overload
    def __getitem__(self, index: int) -> LoggedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Page: ...
    def __getitem__(self, index: int | slice) -> LoggedEvent | Page:
        return Page(self._page[index]) if isinstance(index, slice) else _event(self._page[index])

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """The events' fields alone: to make the events costs three times as much."""
        return map(_tuple, self._page)

    def by_stream(self, count: int) -> list[Page]:
        """The page in so many parts: all events of a stream are in one of them, in their order."""
        parts: list[list[LoggedEvent | Mapping[str, Any]]] = [[] for _ in range(count)]
        for given in self._page:
            stream = given.stream if isinstance(given, LoggedEvent) else given["stream"]
            parts[hash(stream) % count].append(given)
        return [Page(part) for part in parts]


def _event(given: LoggedEvent | Mapping[str, Any]) -> LoggedEvent:
    return given if isinstance(given, LoggedEvent) else _made(_fields(given))


def _tuple(given: LoggedEvent | Mapping[str, Any]) -> tuple[Any, ...]:
    return given if isinstance(given, LoggedEvent) else _fields(given)


class Projection(Protocol):
    """What a room does with a page. All writes go through the given connection."""

    name: str

    def apply(self, connection: sa.Connection, page: Page) -> None: ...


class Projector:
    """Applies pages of one upstream to one projection."""

    def __init__(self, engine: sa.Engine, projection: Projection) -> None:
        self.engine = engine
        self.projection = projection
        self._writing = engine.execution_options(**{WRITES: True})

    def position(self) -> int:
        """The last upstream position that is in the read model; 0 before the first."""
        with self.engine.connect() as connection:
            return self.position_in(connection)

    def position_in(self, connection: sa.Connection) -> int:
        """As `position`, seen from a transaction that also reads the rows which stand at it."""
        found = connection.execute(
            sa.select(_positions.c.position).where(_positions.c.projection == self.projection.name)
        ).scalar()
        return int(found or 0)

    def apply(self, page: Sequence[LoggedEvent | Mapping[str, Any]]) -> int:
        """Apply a page that begins right after our position; returns the position then reached.

        Events at or before our position are skipped (a page delivered twice). Raises Conflict, having
        changed nothing, when the page leaves a gap or another replica was faster. SQLite takes a large page in parts.
        """
        at_once = SQLITE_AT_ONCE if self.engine.dialect.name == "sqlite" else max(1, len(page))
        position = self._apply(page[:at_once])
        for start in range(at_once, len(page), at_once):
            sleep(0)
            position = self._apply(page[start : start + at_once])
        return position

    def _apply(self, page: Sequence[LoggedEvent | Mapping[str, Any]]) -> int:
        positions: list[int] = [e.position if isinstance(e, LoggedEvent) else e["position"] for e in page]
        with self._writing.begin() as connection:
            at = self.position_in(connection)
            known = sum(position <= at for position in positions)
            fresh = positions[known:]
            if not fresh:
                return at
            if fresh != list(range(at + 1, at + 1 + len(fresh))):
                raise Conflict(f"{self.projection.name}: a page after {at} cannot begin at {fresh[0]}")
            self._advance(connection, at, fresh[-1])
            self.projection.apply(connection, Page(page[known:]))
        return fresh[-1]

    def _advance(self, connection: sa.Connection, at: int, to: int) -> None:
        name = self.projection.name
        faster = Conflict(f"{name}: another replica was faster")
        if at == 0:
            move: sa.Insert | sa.Update = sa.insert(_positions).values(projection=name, position=to)
        else:
            move = sa.update(_positions).values(position=to)
            move = move.where(_positions.c.projection == name, _positions.c.position == at)
        try:
            moved = connection.execute(move)
        except sa.exc.IntegrityError as error:
            raise faster from error
        if at and moved.rowcount != 1:  # an insert's count is not to be relied on, and it has no condition
            raise faster
