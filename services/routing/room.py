"""The writer's room for routing: decisions from memory, and memory folded from the log's recent events.

Two kinds of memory. The *calls* are a bounded cache of streams, read again from the log when missing:
correctness rests on the log's request keys and versions. The *fleet* (leases, health) is soft.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from services.routing.domain.choice import Choice, choose, leased_tokens
from services.routing.domain.fleet import Fleet, epoch_ms
from services.routing.domain.market import Market, survey
from shared.catalogue.copy import CatalogueCopy
from shared.catalogue.view import CatalogueView, Version
from shared.clock import Clock
from shared.config import Settings
from shared.contracts import catalog as c
from shared.contracts import routing as r
from shared.contracts.base import Event
from shared.errors import UnknownCall
from shared.eventstore.batch import Stored
from shared.eventstore.intake import occurred
from shared.eventstore.log import EventLog, NewEvent
from shared.eventstore.writer import receipt

CALLS_MAX = 50_000  # streams in memory, some 500 bytes each: calls in flight, or just ended
MARKETS_MAX = 4_096  # surveys in memory: operators x models x regions in use
MARKET_KINDS: tuple[type[Any], ...] = (
    c.Operator,
    c.Model,
    c.RateCard,
    c.Region,
    c.DataCentre,
    c.Deployment,
    c.Tariff,
    c.Policy,
)
NO_SCORE = {"price": 0, "latency": 0, "load": 0, "carbon": 0, "preference": 0}
NO_RATES = {"input": 0, "cached_input": 0, "cache_write": 0, "output": 0}
END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class CallRecord:
    """What is remembered of a call: its version, and who serves each deployment it was or may be sent to."""

    __slots__ = ("complete", "model", "servers", "version")

    def __init__(self) -> None:
        self.version = 0
        self.model = ""
        self.servers: dict[str, str] = {}
        self.complete = True  # folded from its first event on

    def fold(self, version: int, event: Event) -> None:
        if version <= self.version:
            return  # read from the log before it was caught up with
        if version > self.version + 1:
            self.complete = False
        self.version = version
        if isinstance(event, r.CallRouted):
            self.model = event.model
            self.servers[event.deployment] = event.serving_operator
            for score in event.scores:
                if score.deployment in event.fallbacks:
                    self.servers[score.deployment] = score.serving_operator


class RoutingRoom:
    """Decides routes and reports. See `shared.eventstore.writer.Room`."""

    def __init__(self, log: EventLog, catalogue: CatalogueCopy, settings: Settings, clock: Clock) -> None:
        self.fleet = Fleet()
        self.calls: OrderedDict[str, CallRecord] = OrderedDict()
        self._log = log
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock
        self._now = clock()
        self._now_ms = epoch_ms(self._now)
        self._decided: Event | None = None  # decided last: folded before it is stored
        # What was decided and folded, and is not yet known to be stored:
        self._routes: set[str] = set()
        self._reports: list[tuple[str, r.CallServed]] = []
        self._caught_up = False  # with another writer, since the last attempt to store
        self._doubtful: set[str] = set()  # not in memory, yet perhaps in the log
        self._markets: dict[tuple[int, str, str, str], Market] = {}
        self._markets_position = -1
        self._changes: list[datetime] = []  # instants at which something in the catalogue takes effect

    # -- the writer's protocol --------------------------------------------------------------------
    def prepare(self, commands: Sequence[r.RoutingCommand]) -> None:  # noqa: ARG002 - calls are read when missed
        if self._caught_up:
            self._doubtful.clear()  # the conflict was another writer's progress, folded by now
        self._caught_up = False
        self._now = self._clock()
        self._now_ms = epoch_ms(self._now)

    def key(self, command: r.RoutingCommand) -> str | None:
        """Call first: a time-ordered id keeps the index's newest pages together. No part has a tab or a comma.

        A route's key has what it excludes: the same call with other exclusions is a new request. A report's
        has its deployment: one report for each place a call was sent to.
        """
        if isinstance(command, r.Report):
            return f"{command.call}\t{command.operator}\treport\t{command.deployment}"
        assert isinstance(command, r.Route)
        return f"{command.call}\t{command.operator}\troute\t{','.join(command.exclude)}"

    def decide(self, command: r.RoutingCommand, fingerprint: str) -> list[NewEvent]:
        at = occurred(command.occurred_at, self._now, self._settings)
        if isinstance(command, r.Report):
            new = self._report(command, at, fingerprint)
        else:
            assert isinstance(command, r.Route)
            new = self._route(command, at, fingerprint)
        self._decided = new.event
        return [new]

    def evolve(self, stream: str, version: int, event: Event) -> None:
        decided = event is self._decided
        self._caught_up |= not decided
        record = self.calls.get(stream)
        if isinstance(event, r.CallRouted):
            if record is None:
                record = self._remembered(stream)
            self.fleet.routed(stream, event)
            if decided:
                self._routes.add(stream)
        elif isinstance(event, r.CallServed):
            self.fleet.served(stream, event)
            if decided:
                self._reports.append((stream, event))
            else:
                self.fleet.learn(stream, event)
        if record is not None:
            record.fold(version, event)

    def forget(self, streams: set[str]) -> None:
        for stream in streams:
            self.calls.pop(stream, None)
            if stream in self._routes:
                self.fleet.withdraw(stream)
        self._doubtful = set(streams)
        self._routes.clear()
        self._reports.clear()
        self._caught_up = False

    def answer(self, command: r.RoutingCommand, events: Sequence[Stored], replayed: bool) -> dict[str, Any]:
        answer = {"operator": command.operator, "call": command.call, **receipt(events, replayed)}
        # Defaults are left out of events; an answer has every field that a caller may want to read.
        if isinstance(command, r.Route):
            answer["fallbacks"] = list(answer.get("fallbacks", ()))
            answer["rejected"] = list(answer.get("rejected", ()))
            answer["scores"] = [{**NO_SCORE, **score} for score in answer["scores"]]
            answer["rates"] = {**NO_RATES, **answer.get("rates", {})}
        return answer

    # -- memory -----------------------------------------------------------------------------------
    def stored(self) -> None:
        """What was decided is in the log: now its reports count for health, each once."""
        for stream, event in self._reports:
            self.fleet.learn(stream, event)
        self._routes.clear()
        self._reports.clear()

    def _remembered(self, stream: str) -> CallRecord:
        record = self.calls[stream] = CallRecord()
        self.calls.move_to_end(stream)
        if len(self.calls) > CALLS_MAX:
            self.calls.popitem(last=False)
        return record

    def _record(self, stream: str) -> CallRecord | None:
        """The call as the log has it."""
        events = self._log.stream(stream)
        if not events:
            return None
        record = self._remembered(stream)
        for logged in events:
            record.fold(logged.version, logged.event)
        return record

    def market(self, operator: str, model: str, region: str, at: datetime) -> Market:
        """The survey, made anew when the catalogue has grown or something in it has taken effect."""
        view = self._catalogue.view
        if view.position != self._markets_position:
            self._markets.clear()
            self._changes = _changes(view)
            self._markets_position = view.position
        key = (bisect_right(self._changes, at), operator, model, region)
        market = self._markets.get(key)
        if market is None:
            if len(self._markets) >= MARKETS_MAX:
                self._markets.clear()
            market = self._markets[key] = survey(view, operator, model, region, at)
        return market

    # -- decisions --------------------------------------------------------------------------------
    def _route(self, command: r.Route, at: datetime, fingerprint: str) -> NewEvent:
        market = self.market(command.operator, command.model, command.region, at)
        choice = choose(market, self.fleet, command, at, self._now_ms)
        stream = f"{command.operator}/{command.call}"
        record = self.calls.get(stream)
        # A call that excludes nothing is new, or its request key would be known; were it not, the log refuses the
        # version, and the call is doubtful at the next attempt.
        if record is None and (command.exclude or stream in self._doubtful):
            record = self._record(stream)
        event = self._routed(command, market, choice, at, fingerprint)
        return NewEvent(stream, record.version + 1 if record is not None else 1, event)

    def _routed(self, command: r.Route, market: Market, choice: Choice, at: datetime, fingerprint: str) -> r.CallRouted:
        return r.CallRouted(
            at=at,
            recorded_at=self._now,
            request_id=command.call,
            fingerprint=fingerprint,
            account=command.account,
            model=command.model,
            deployment=choice.chosen.deployment,
            serving_operator=choice.chosen.serving_operator,
            rate_card=market.rate_card,
            rates=choice.rates,
            tariff=choice.chosen.tariff,
            policy_version=market.policy_version,
            region=market.region,
            tokens=leased_tokens(command),
            excluded=command.exclude,
            fallbacks=choice.fallbacks,
            scores=choice.scores,
            rejected=choice.rejected,
            lease_expires_at=self._now + timedelta(seconds=command.lease_s),
        )

    def _report(self, command: r.Report, at: datetime, fingerprint: str) -> NewEvent:
        stream = f"{command.operator}/{command.call}"
        record = self.calls.get(stream)
        if record is None or (command.deployment not in record.servers and not record.complete):
            record = self._record(stream)
        if record is None or command.deployment not in record.servers:
            raise UnknownCall(
                f"no call {command.call!r} of {command.operator} was routed to {command.deployment}",
                {
                    "operator": command.operator,
                    "call": command.call,
                    "deployment": command.deployment,
                    "routed": sorted(record.servers) if record is not None else [],
                },
            )
        event = r.CallServed(
            at=at,
            recorded_at=self._now,
            request_id=command.call,
            fingerprint=fingerprint,
            model=record.model,
            deployment=command.deployment,
            serving_operator=record.servers[command.deployment],
            outcome=command.outcome,
            usage=command.usage,
            ttft_ms=command.ttft_ms,
            detail=command.detail,
        )
        return NewEvent(stream, record.version + 1, event)


def _changes(view: CatalogueView) -> list[datetime]:
    """The instants at which anything a survey reads takes effect, in order."""
    found: set[datetime] = set()
    for kind in MARKET_KINDS:
        latest: Iterator[Version[Any]] = view.items(kind, END_OF_TIME)
        for last in latest:
            found.update(version.effective_from for version in view.versions(kind, last.item.key))
    return sorted(found)
