"""The writer's room: the catalogue in memory, folded from the catalog's own log.

It knows publications and nothing of how they are asked for. The view is a cache: dropped and folded
again from the log whenever what was folded was not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.catalog.answers import comparison
from services.catalog.domain.compare import compare
from services.catalog.domain.kinds import Place, places
from services.catalog.domain.margins import margin_warnings
from services.catalog.domain.publication import decide, judge
from shared.catalogue.view import CatalogueView
from shared.clock import Clock
from shared.contracts import catalog as c
from shared.contracts.base import Event
from shared.eventstore.batch import Stored
from shared.eventstore.log import EventLog, LoggedEvent, NewEvent

PAGE = 5000


class CatalogueRoom:
    """What the writer needs of the catalog. `tolerance_s`: see `domain.publication.decide`."""

    def __init__(self, log: EventLog, clock: Clock, tolerance_s: int) -> None:
        self._log = log
        self._clock = clock
        self._tolerance_s = tolerance_s
        self._empty()

    def _empty(self) -> None:
        self.view = CatalogueView()
        self.imports: list[tuple[int, c.PricesImported]] = []
        self._versions: dict[str, int] = {}
        self._recorded_at: datetime | None = None

    # -- the writer's protocol --------------------------------------------------------------------------
    def prepare(self, commands: Sequence[c.Publish]) -> None:
        """Everything is in memory already."""

    def key(self, command: c.Publish) -> str:
        return f"publish:{command.request_id}"

    def decide(self, command: c.Publish, fingerprint: str) -> list[NewEvent]:
        now = self._now()
        new = decide(self.view, command, now, self._tolerance_s).new
        recorded_at = self._recording_instant(now)
        envelope: dict[str, Any] = {
            "at": recorded_at,
            "recorded_at": recorded_at,
            "request_id": command.request_id,
            "fingerprint": fingerprint,
            "effective_from": command.effective_from,
        }
        made: list[NewEvent] = []
        if command.imported is not None and not self._imported_last(command.imported):
            stream, version = self._next(f"import:{command.imported.package}")
            fields = msgspec.structs.asdict(command.imported)
            made.append(NewEvent(stream, version, c.PricesImported(**envelope, **fields, version=version)))
        for place in new:
            stream, version = self._next(place.stream)
            event = place.kind.event(**envelope, version=version, item=place.item)  # type: ignore[call-arg]
            made.append(NewEvent(stream, version, event))
        return made

    def evolve(self, stream: str, version: int, event: Event) -> None:
        if version <= self._versions.get(stream, 0):
            return  # folded already, by folding the whole log again
        self._versions[stream] = version
        self._recorded_at = event.recorded_at
        # Positions have no gaps and all events come through here in order: counting gives the position.
        position = self.view.position + 1
        self.view.apply(position, event)
        if isinstance(event, c.PricesImported):
            self.imports.append((position, event))

    def forget(self, streams: set[str]) -> None:  # noqa: ARG002
        """Fold the log again: a publication touches too many streams to be taken out of the view one by one."""
        self._empty()
        while page := self._log.read(self.view.position, PAGE):
            for logged in page:
                self.evolve(logged.stream, logged.version, logged.event)

    def answer(self, command: c.Publish, events: Sequence[Stored], replayed: bool) -> dict[str, Any]:
        """See `schemas.Published`. A replay brings the first event only; the others stand right behind it."""
        if replayed:
            events = self._whole(events[0])
        published = [logged.event for logged in events]
        items = [event.item for event in published if not isinstance(event, c.PricesImported)]  # type: ignore[attr-defined]
        warnings: list[str] = []
        if events:
            warnings = margin_warnings(self.view, items, command.effective_from, published[0].recorded_at)
        return {
            "published": len(items),
            "skipped": sum(1 for _ in places(command.catalogue)) - len(items),
            "first_position": events[0].position if events else 0,
            "last_position": events[-1].position if events else 0,
            "effective_from": msgspec.to_builtins(command.effective_from),
            "warnings": warnings,
            "replayed": replayed,
        }

    def check(self, command: c.Publish) -> dict[str, Any]:
        """See `schemas.Checked`: what would be decided now, and what would then be different."""
        now = self._now()
        found = judge(self.view, command, now, self._tolerance_s)
        after = {(place.kind.name, place.key): place.item for place in places(command.catalogue)}
        held = {each: self.view.in_force(type(item), each[1], command.effective_from) for each, item in after.items()}
        differs = compare({each: version.item for each, version in held.items() if version is not None}, after)
        answer = comparison(differs)
        del answer["gone"]
        faults = [{"path": fault.path, "key": fault.key, "text": fault.text} for fault in found.faults]
        return answer | {
            "faults": faults,
            "warnings": [] if faults else self._warnings(command, found.new, self._recording_instant(now)),
            "newly_unpriced": self._newly_unpriced(command),
        }

    # -- its own ------------------------------------------------------------------------------------------
    def _now(self) -> datetime:
        """Not before the last recording: the past begins there, whatever our clock says."""
        now = self._clock()
        return now if self._recorded_at is None else max(now, self._recorded_at)

    def _recording_instant(self, now: datetime) -> datetime:
        """Later than every recording before it, whatever the replicas' clocks say: what was known at an
        instant is then always a beginning of the log."""
        if self._recorded_at is not None and now <= self._recorded_at:
            return self._recorded_at + timedelta(microseconds=1)
        return now

    def _next(self, stream: str) -> tuple[str, int]:
        return stream, self._versions.get(stream, 0) + 1

    def _imported_last(self, imported: c.Import) -> bool:
        fields = msgspec.structs.asdict(imported)
        last = self._last_import(imported.package)
        return last is not None and all(getattr(last, name) == value for name, value in fields.items())

    def _warnings(self, command: c.Publish, new: Sequence[Place], now: datetime) -> list[str]:
        """Of a publication that is not published: as its answer would have them."""
        view = self.view.copy()
        for place in new:
            version = self._versions.get(place.stream, 0) + 1
            event = place.kind.event(  # type: ignore[call-arg]
                at=now,
                recorded_at=now,
                request_id=command.request_id,
                effective_from=command.effective_from,
                version=version,
                item=place.item,
            )
            view.apply(view.position + 1, event)
        return margin_warnings(view, [place.item for place in new], command.effective_from, now)

    def _newly_unpriced(self, command: c.Publish) -> list[str]:
        if command.imported is None:
            return []
        before = self._last_import(command.imported.package)
        known = set() if before is None else set(before.unpriced)
        sold = {version.item.model for version in self.view.items(c.RateCard, command.effective_from)}
        return sorted((set(command.imported.unpriced) & sold) - known)

    def _last_import(self, package: str) -> c.PricesImported | None:
        return next((event for _, event in reversed(self.imports) if event.package == package), None)

    def _whole(self, first: Stored) -> list[LoggedEvent]:
        """All events of the publication that began with `first`."""
        request_id = first.event.request_id  # type: ignore[attr-defined]
        found: list[LoggedEvent] = []
        after = first.position - 1
        while page := self._log.read(after, PAGE):
            for logged in page:
                if logged.event.request_id != request_id:  # type: ignore[attr-defined]
                    return found
                found.append(logged)
            after = page[-1].position
        return found
