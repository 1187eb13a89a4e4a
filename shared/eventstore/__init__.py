"""Where events live: the eventsourcing library's application and recorders, tuned; migrations; projections.

`EventLog` is one service's log. `Writer` is the one path every command takes. `Projector` applies
another log's pages to a read model, each exactly once. Nothing here knows nameko or eventlet.
"""

from shared.eventstore.batch import Room
from shared.eventstore.log import EventLog, LoggedEvent, NewEvent
from shared.eventstore.projection import Projector
from shared.eventstore.writer import Writer

__all__ = ["EventLog", "LoggedEvent", "NewEvent", "Projector", "Room", "Writer"]
