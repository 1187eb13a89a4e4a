"""`RoomApplication`: what every room's application stands on: its own database, migrated, its log, one writer.

It knows nothing of what the room decides, and nothing of nameko.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.clock import Clock
from shared.config import Settings
from shared.contracts.base import Command
from shared.errors import SetupFailed
from shared.eventstore.batch import Room
from shared.eventstore.database import engine, migrate
from shared.eventstore.dropped import Archived
from shared.eventstore.log import EventLog
from shared.eventstore.writer import Writer
from shared.telemetry import current_traceparent

C = TypeVar("C", bound=Command)


class RoomApplication:
    """A service's database and log, or those of one `shard` of it. `on_commit` is told the log's head after each
    commit."""

    def __init__(self, service: str, settings: Settings, clock: Clock, shard: int = 0) -> None:
        url = settings.database_url(service, shard)
        self.settings = settings
        self.clock = clock
        self.shard = shard
        self.log_name = settings.logs(service)[shard]
        self.on_commit: Callable[[int], None] = lambda _head: None
        self.engine = engine(url)
        migrate(self.engine, service)
        self.log = EventLog(url, _archived(settings, self.log_name), settings.partition_events)

    @property
    def shards(self) -> Sequence[RoomApplication]:
        """Its shards, in order: a service that has no several is its own only one."""
        return (self,)

    def writer_for(self, room: Room[C], position: int, forget_all: Callable[[], None] | None = None) -> Writer[C]:
        """The one writer of this process; `position`: up to where the room's memory needs nothing of the log.
        `forget_all`: drops all of it, if it is nothing but what the log says; then the writer is a hopeful one."""
        return Writer(
            self.log,
            room,
            batch_max=self.settings.batch_max,
            waiting_max=self.settings.waiting_max,
            on_commit=self.committed,
            trace=current_traceparent,
            position=position,
            forget_all=forget_all,
        )

    @property
    def busy(self) -> bool:
        """Whether commands are waiting or at work: what is in no hurry may wait then."""
        return False

    def committed(self, head: int) -> None:
        """Called by the writer after each commit."""
        self.on_commit(head)

    def close(self) -> None:
        self.log.close()
        self.engine.dispose()


def _archived(settings: Settings, log_name: str) -> Archived | None:
    if settings.archive is None:
        return None
    try:
        from shared.archive.events import ArchivedLog
    except ModuleNotFoundError as error:
        raise SetupFailed(
            f"TOKENGRID_ARCHIVE needs {error.name}, which is not installed: pip install 'tokengrid[archive]'."
        ) from error
    return ArchivedLog(settings.archive, log_name)
