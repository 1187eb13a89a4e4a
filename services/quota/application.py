"""Quota as an application of the event store: parses, decides through the writer, answers questions.

It knows nothing of nameko. The accounts in memory are a cache of the log, bounded, dropped at will.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.quota.books import books
from services.quota.domain.account import Account
from services.quota.domain.context import Context, ExpireGrant, ExpireReservation
from services.quota.domain.decisions import decide
from services.quota.history import account_as_of, page_of
from services.quota.readmodel import BalanceProjection, balances, due_grants, due_reservations
from services.quota.schemas import Balance, Balances, Find, Statement, Sweep
from services.quota.sections import Sections
from services.quota.sharding import keep_number
from services.quota.snapshots import Snapshots
from shared.catalogue.copy import CatalogueCopy
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.contracts import quota as q
from shared.contracts.base import COMMANDS, Event, Requested
from shared.errors import MalformedCommand, TokengridError, UnknownAccount
from shared.eventstore.application import RoomApplication
from shared.eventstore.batch import Stored
from shared.eventstore.database import snapshot
from shared.eventstore.intake import Intake, named, occurred, shown
from shared.eventstore.log import EventLog, LoggedEvent, NewEvent
from shared.eventstore.projection import Projector
from shared.eventstore.requests import Bodies, Request
from shared.eventstore.writer import Writer, receipt_json
from shared.sharding import shard_of

BODIES: Bodies[q.QuotaCommand] = Bodies(COMMANDS["quota"])  # type: ignore[arg-type] # each of them is one
NOTHING = msgspec.Raw(b"{}")
EXPIRIES = (ExpireReservation, ExpireGrant)


class Made(list[NewEvent]):
    """What the requests of a batch made, each its first event; looked through only when one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[tuple[str, str], Event] = {}
        self._read = 0

    def find(self, stream: str, name: str) -> Event | None:
        """The first event of a stream with this request_id."""
        for new in self[self._read :]:
            assert isinstance(new.event, Requested), "every event of quota answers a request"
            self._found.setdefault((new.stream, new.event.request_id), new.event)
        self._read = len(self)
        return self._found.get((stream, name))


class Accounts:
    """The writer's room: accounts in memory, loaded from the log when they are asked for."""

    def __init__(
        self, log: EventLog, catalogue: CatalogueCopy, snapshots: Snapshots, settings: Settings, clock: Clock
    ) -> None:
        self.log = log
        self.snapshots = snapshots
        self.catalogue = catalogue
        self.settings = settings
        self.clock = clock
        self.accounts: OrderedDict[str, Account] = OrderedDict()
        self._now = clock()
        # What requests made in the batch at hand, and in the one before it, which may be on its way to the log.
        self._batch, self._earlier = Made(), Made()
        self._needed = 0  # accounts of the batch at hand
        self._named: dict[str, LoggedEvent] = {}  # what the batch at hand refers to by its request, as far as stored

    def prepare(self, commands: Sequence[q.QuotaCommand]) -> None:
        self._earlier, self._batch = self._batch, Made()
        self._now = self.clock()
        streams = {_stream(command) for command in commands}
        # All at once: of what was dropped, the archive is read a section at a time.
        keys = [request_key(_stream(each), each.debit) for each in commands if isinstance(each, q.Reverse)]
        self._named = {key: e for key, e in self.log.known(keys).items() if isinstance(e, LoggedEvent)}
        self._bring(streams)
        earlier, self._needed = self._needed, len(streams)
        self._bound(earlier + self._needed)

    def account(self, stream: str) -> Account:
        """One account as it stands."""
        self._bring((stream,))
        self._bound(1)
        return self.accounts[stream]

    def _bring(self, streams: Collection[str]) -> None:
        missing = []
        for stream in streams:
            if stream in self.accounts:
                self.accounts.move_to_end(stream)
            else:
                missing.append(stream)
        self.accounts.update(self.snapshots.bring(missing))  # each whole, or not at all

    def _bound(self, needed: int) -> None:
        while len(self.accounts) > max(self.settings.accounts_cached_max, needed):
            self.snapshots.left(*self.accounts.popitem(last=False))

    def key(self, command: q.QuotaCommand) -> str | None:
        if isinstance(command, EXPIRIES):
            return None  # the state decides whether there is something to expire, and may do so again
        return request_key(_stream(command), command.request_id)

    def decide(self, command: q.QuotaCommand, fingerprint: str) -> list[NewEvent]:
        stream = _stream(command)
        account = self.accounts[stream]
        now = self._now
        at = now if command.occurred_at is None else self._occurred(command, now)
        events = decide(command, account, Context(at, now, fingerprint, self.catalogue.view, stream, self.find))
        made = [NewEvent(stream, account.version + n, event) for n, event in enumerate(events, start=1)]
        if made and not isinstance(command, EXPIRIES):  # nobody asked for theirs, and nobody can name the others
            self._batch.append(made[0])
        return made

    def find(self, stream: str, name: str) -> Event | None:
        """The account's event made by a request, in this batch or ever before; never one that the account in
        memory has not folded: what another writer appended just now is not known to half of a decision."""
        for made in (self._batch, self._earlier):
            here = made.find(stream, name)
            if here is not None:
                return here
        key = request_key(stream, name)
        logged = self._named.get(key) or self.log.event_of(key)
        return logged.event if logged and logged.version <= self.accounts[stream].version else None

    def evolve(self, stream: str, version: int, event: Event) -> None:
        account = self.accounts.get(stream)
        # A version we have folded already came to us by loading the stream.
        if account is not None and version == account.version + 1:
            account.evolve(version, event)

    def forget(self, streams: set[str]) -> None:
        self._batch, self._earlier = Made(), Made()
        for stream in streams:
            self.accounts.pop(stream, None)
            self.snapshots.forget(stream)

    def forget_all(self) -> None:
        """Drop every account."""
        self.forget(set(self.accounts))

    def answer(self, command: q.QuotaCommand, events: Sequence[Stored], replayed: bool) -> msgspec.Raw:
        if not events:
            return NOTHING
        return receipt_json(f'"operator":"{command.operator}","account":"{command.account}",', events, replayed)

    def _occurred(self, command: q.QuotaCommand, now: datetime) -> datetime:
        if isinstance(command, EXPIRIES) and command.occurred_at is not None:
            return command.occurred_at  # due then, however late the sweep
        return occurred(command.occurred_at, now, self.settings)


class QuotaApplication(RoomApplication):
    """One shard of quota: its database, its log, its accounts."""

    def __init__(self, settings: Settings, clock: Clock = system_clock, shard: int = 0) -> None:
        super().__init__("quota", settings, clock, shard)
        keep_number(self.engine, shard, settings.quota_shards)
        self.catalogue = CatalogueCopy(self.engine)
        self.projector = Projector(self.engine, BalanceProjection())
        self.sections = Sections(self.engine)
        self.snapshots = Snapshots(self.engine, self.log, settings.snapshot_every)
        self.accounts = Accounts(self.log, self.catalogue, self.snapshots, settings, clock)
        self.writer: Writer[q.QuotaCommand] = self.writer_for(self.accounts, self.log.head(), self.accounts.forget_all)
        self.intake = Intake(
            self.writer,
            _read,
            settings.batch_max,
            bodies=BODIES,
            check=self._refuse_others if settings.quota_shards > 1 else None,
        )

    @property
    def busy(self) -> bool:
        return self.writer.busy

    # -- commands -------------------------------------------------------------------------------
    def submit(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One command by its method's name. Raises its refusal."""
        return self.intake.submit(name, fields)

    def execute(self, commands: Any) -> list[dict[str, Any]]:
        """A batch: one `{"ok"}` or `{"error"}` per command, in order, one transaction."""
        return self.intake.execute(commands)

    def serve(self, requests: Sequence[Request]) -> list[bytes | Exception]:
        """Requests of several callers in one commit; per request the answer as JSON, or its refusal."""
        return self.intake.serve(requests)

    def sweep(self, query: Sweep) -> dict[str, Any]:
        """Expire holds and grants that are due. What happened, happened at its due time."""
        latest = self.clock() + timedelta(seconds=self.settings.future_max_s)
        until = min(query.until or self.clock(), latest)
        limit = min(max(query.limit, 1), self.settings.page_max)
        with self.engine.connect() as connection:
            holds = due_reservations(connection, until, query.operator, limit)
            lots = due_grants(connection, until, query.operator, limit - len(holds))
        commands: list[q.QuotaCommand] = [
            ExpireReservation(
                operator=d.operator,
                account=d.account,
                request_id=f"expire/{d.name}",
                occurred_at=d.expires_at,
                reservation=d.name,
            )
            for d in holds
        ]
        commands += [
            ExpireGrant(
                operator=d.operator,
                account=d.account,
                request_id=f"expire/{d.name}",
                occurred_at=d.expires_at,
                grant=d.name,
            )
            for d in lots
        ]
        answers = self.writer.execute(commands) if commands else []
        done = [answer is not NOTHING and not isinstance(answer, TokengridError) for answer in answers]
        return {
            "expired_reservations": sum(done[: len(holds)]),
            "expired_grants": sum(done[len(holds) :]),
            # When nothing could be done, the read model lags behind the log: to ask again at once is no use.
            "remaining": len(commands) >= limit and any(done),
        }

    def take_snapshots(self) -> int:
        """Take the snapshots of accounts that are due; how many were written."""
        return self.snapshots.take(self.accounts.accounts, self.writer.ask)

    # -- questions ------------------------------------------------------------------------------
    def balance(self, query: Balance) -> dict[str, Any]:
        """An account's books, now or as of a past instant: by event time, by recorded time, or by both."""
        stream = f"{query.operator}/{query.account}"
        now = self.clock()
        at = query.at or now
        if query.known_at is None and at >= now:
            return self.writer.ask(lambda: self._books(query, self.accounts.account(stream), at))
        account = account_as_of(self.log, stream, at if at < now else None, query.known_at)
        return self._books(query, account, at)

    def statement(self, query: Statement) -> dict[str, Any]:
        """A page of an account's events. It costs what it shows, however long the account's history is."""
        stream = f"{query.operator}/{query.account}"
        limit = min(max(query.limit, 1), self.settings.page_max)
        last = self.log.last_version(stream)
        if not last:
            raise UnknownAccount(f"no account {stream}", {"operator": query.operator, "account": query.account})
        page = page_of(self.log, self.sections, stream, last, query, limit, self.settings.page_max)
        return {"events": [shown(e) for e in page.events], "more": page.next is not None, "next": page.next}

    def find(self, query: Find) -> dict[str, Any]:
        stream = f"{query.operator}/{query.account}"
        key = request_key(stream, query.name)
        found = self.log.event_of(key)
        return {"event": shown(found) if found else None}

    def balances(self, query: Balances) -> dict[str, Any]:
        limit = min(max(query.limit, 1), self.settings.page_max)
        with snapshot(self.engine) as connection:
            found = balances(connection, query.after, limit)
            position = self.projector.position_in(connection)
        return {"accounts": found, "position": position, "more": len(found) == limit}

    def status(self) -> dict[str, Any]:
        return {
            "head": self.log.head(),
            "followed": {"catalog": self.catalogue.view.position, "quota": self.projector.position()},
            "accounts_cached": len(self.accounts.accounts),
        }

    # -- following ------------------------------------------------------------------------------
    def follow_catalog(self, page: Sequence[Mapping[str, Any]]) -> int:
        return self.catalogue.follow(page)

    def follow_quota(self, page: Sequence[Mapping[str, Any]]) -> int:
        return self.projector.apply(page) if page else self.projector.position()

    def _refuse_others(self, command: q.QuotaCommand) -> None:
        right = shard_of(command.operator, command.account, self.settings.quota_shards)
        if right != self.shard:  # the caller counts other shards than we
            complaint = f"is in shard {right} of {self.settings.quota_shards}, not in {self.shard}"
            raise MalformedCommand("account of another shard", {"fields": {"account": [complaint]}})

    def _books(self, query: Balance, account: Account, at: datetime) -> dict[str, Any]:
        if account.status is None:
            raise UnknownAccount(
                f"no account {query.operator}/{query.account}", {"operator": query.operator, "account": query.account}
            )
        return {"operator": query.operator, "account": query.account, **books(account, at)}


def request_key(stream: str, request_id: str) -> str:
    """Request id first: a time-ordered id keeps the index's newest pages together. A tab is in neither part."""
    return f"{request_id}\t{stream}"


def _stream(command: q.QuotaCommand) -> str:
    return f"{command.operator}/{command.account}"


def _read(name: Any, fields: Any) -> q.QuotaCommand:
    command = named("quota", name, fields)
    assert isinstance(command, q.QuotaCommand), "every quota command names its account"
    return command
