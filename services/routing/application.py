"""Routing as an application of the event store: parses, decides through the writer, answers questions.

It knows nothing of nameko. A start folds only the log's recent end: leases and health are soft state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.routing.domain.fleet import Fleet, epoch_ms, instant
from services.routing.domain.health import Health
from services.routing.room import RoutingRoom
from services.routing.schemas import Call, Deployments
from shared.catalogue.copy import CatalogueCopy
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts import routing as r
from shared.errors import UnknownCall
from shared.eventstore.application import RoomApplication
from shared.eventstore.intake import Intake, named, shown
from shared.eventstore.log import EventLog
from shared.eventstore.writer import Writer

WARM_S = 600  # longer than most leases and the window of health: what is older says nothing about now
WARM_EVENTS_MAX = 100_000  # folded within seconds, whatever the load was


class RoutingApplication(RoomApplication):
    """Where calls run: one database, its log, and what the process has learnt of the deployments."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        super().__init__("routing", settings, clock)
        self.catalogue = CatalogueCopy(self.engine)
        self.room = RoutingRoom(self.log, self.catalogue, settings, clock)
        self.writer: Writer[r.RoutingCommand] = self.writer_for(self.room, warm_position(self.log, clock()))
        self.intake = Intake(self.writer, _read, settings.batch_max)
        self.refresh()

    # -- commands -------------------------------------------------------------------------------
    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        return self.intake.submit(name, fields)

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order, one transaction."""
        return self.intake.execute(commands)

    def refresh(self) -> int:
        """Learn what other replicas have stored; the position of the log then reached."""
        return self.writer.refresh()

    # -- questions ------------------------------------------------------------------------------
    def call(self, query: Call) -> dict[str, Any]:
        """Where a call was sent and why, and how it went."""
        events = self.log.stream(f"{query.operator}/{query.call}")
        if not events:
            raise UnknownCall(
                f"{query.operator} routed no call {query.call!r}", {"operator": query.operator, "call": query.call}
            )
        return {"operator": query.operator, "call": query.call, "events": [shown(e) for e in events]}

    def deployments(self, query: Deployments) -> dict[str, Any]:
        """Limits, health and load of deployments, as this process sees them now."""
        self.refresh()
        now = self.clock()
        now_ms = epoch_ms(now)
        limit = min(max(query.limit, 1), self.settings.page_max)
        self.room.fleet.capacity.expire(now_ms)
        found = [
            _seen(version.item, self.room.fleet, now_ms)
            for version in self.catalogue.view.items(c.Deployment, now)
            if version.item.deployment > query.after and query.model in (None, version.item.model)
        ]
        return {"deployments": found[:limit], "more": len(found) > limit}

    def status(self) -> dict[str, Any]:
        return {
            "head": self.log.head(),
            "followed": {"catalog": self.catalogue.view.position, "routing": self.writer.position},
            "calls_cached": len(self.room.calls),
        }

    # -- following ------------------------------------------------------------------------------
    def follow_catalog(self, page: Sequence[Mapping[str, Any]]) -> int:
        return self.catalogue.follow(page)

    def committed(self, head: int) -> None:
        self.room.stored()
        self.on_commit(head)


def warm_position(log: EventLog, now: datetime) -> int:
    """After which position a start folds the log: the last `WARM_S` seconds, at most `WARM_EVENTS_MAX` events.

    Found by halving, since events are recorded in order (but for the clocks of replicas).
    """
    since = now - timedelta(seconds=WARM_S)
    high = log.head()
    low = max(0, high - WARM_EVENTS_MAX)
    while low < high:
        middle = (low + high) // 2
        if log.read(middle, 1)[0].event.recorded_at < since:
            low = middle + 1
        else:
            high = middle
    return low


def _seen(deployment: c.Deployment, fleet: Fleet, now_ms: int) -> dict[str, Any]:
    health = fleet.health.get(deployment.deployment) or Health()
    open_until_ms = health.open_until_ms()
    return {
        "deployment": deployment.deployment,
        "model": deployment.model,
        "data_centre": deployment.data_centre,
        "serving_operator": deployment.operator,
        "circuit": health.state(now_ms),
        "open_until": instant(open_until_ms).isoformat() if open_until_ms is not None else None,
        "consecutive_failures": health.consecutive_failures,
        "error_share_percent": health.error_share_percent(now_ms),
        "throttled": health.throttled(now_ms),
        "ttft_ms": health.ttft.percentile(now_ms),
        "calls": fleet.capacity.calls(deployment.deployment),
        "concurrent_calls": deployment.concurrent_calls,
        "tokens_last_minute": fleet.capacity.tokens(deployment.deployment, now_ms),
        "tokens_per_minute": deployment.tokens_per_minute,
    }


def _read(name: Any, fields: Any) -> r.RoutingCommand:
    command = named("routing", name, fields)
    if isinstance(command, r.Route):
        # The order of names and their repetition ask for nothing: without them equal requests are equal.
        plain = tuple(sorted(set(command.exclude)))
        return command if plain == command.exclude else msgspec.structs.replace(command, exclude=plain)
    assert isinstance(command, r.Report), "routing has no other command"
    return command
