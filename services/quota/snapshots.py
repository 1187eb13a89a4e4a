"""Snapshots of accounts: loading a long account costs what happened since its last one, not all that ever did.

They affect cost, never meaning. A snapshot is taken of what is in the log, and in no command's way: by a timer, of
accounts that have grown and of those that left memory. One that cannot be written or read, or that does
not fit the log, is as if it were not there. It must not know what an account's state means.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from time import sleep
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.quota.domain.account import Account
from services.quota.domain.snapshot import FORMAT, freeze, size, thaw
from shared.errors import TokengridError, Unavailable
from shared.eventstore.log import EventLog, LoggedEvent

log = logging.getLogger(__name__)

DUE_MAX = 1000  # accounts that left memory and wait for their snapshot; of those over it one is taken another time
AT_ONCE = 2000  # things in accounts that are encoded between two commits: about a millisecond
LOOKED_AT = 5000  # accounts looked at, or
FOLDED = 1000  # events folded, before others get their turn
BROUGHT = 100  # accounts asked for at once, with at most `FOLDED` events each

meta = sa.MetaData()
snapshots = sa.Table(
    "snapshots",
    meta,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger),
    sa.Column("format", sa.Integer),
    sa.Column("event_digest", sa.LargeBinary),  # of the event at `version`: it must be in the log as it was then
    sa.Column("digest", sa.LargeBinary),
    sa.Column("state", sa.LargeBinary),
)


class Loaded(NamedTuple):
    """An account as the log has it, and the version of the snapshot that it was made from (0: from none)."""

    account: Account
    kept: int


class Snapshots:
    """The snapshots in one database. One is due `every` so many events of an account."""

    def __init__(self, engine: sa.Engine, events: EventLog, every: int) -> None:
        self._engine = engine
        self._events = events
        self._every = every
        self._kept: dict[str, int] = {}  # of accounts in memory: the version of their snapshot
        self._due: deque[str] = deque(maxlen=DUE_MAX)

    # -- reading --------------------------------------------------------------------------------
    def load(self, stream: str, until: int | None = None) -> Loaded:
        """The account folded from its newest usable snapshot and the events behind it, or from all its events; up
        to version `until`, if given."""
        row = self._rows([stream]).get(stream)
        if row is not None and until is not None and row.version > until:
            row = None
        return self._load(stream, row, self._events.whole_stream(stream, row.version - 1 if row else 0), until)

    def _load(self, stream: str, row: Any, behind: Iterator[LoggedEvent], until: int | None = None) -> Loaded:
        """`behind`: all its events, from the one that the snapshot was taken at if there is one."""
        if row is not None:
            try:
                account = self._thawed(stream, row)
                first = next(behind, None)
                if first is None or first.version != row.version or _event_digest(first) != row.event_digest:
                    raise ValueError("the log has no such event")
                return Loaded(_folded(account, behind, until), row.version)
            except ValueError as error:
                log.warning("snapshot of %s at version %s is not used: %s", stream, row.version, error)
            behind = self._events.whole_stream(stream)
        return Loaded(_folded(Account(), behind, until), 0)

    def bring(self, streams: Sequence[str]) -> Iterator[tuple[str, Account]]:
        """As `load`, for accounts that come into memory, some at a time: remembers how much their snapshots hold."""
        for start in range(0, len(streams), BROUGHT):
            part = streams[start : start + BROUGHT]
            rows = self._rows(part)
            pages = self._events.streams({s: rows[s].version - 1 if s in rows else 0 for s in part}, FOLDED)
            for stream in part:
                page = pages.get(stream, [])
                rest = self._events.whole_stream(stream, page[-1].version) if len(page) == FOLDED else ()
                account, kept = self._load(stream, rows.get(stream), chain(page, rest))
                if kept:
                    self._kept[stream] = kept
                yield stream, account

    def _rows(self, streams: Sequence[str]) -> dict[str, Any]:
        """The snapshots of these accounts that are of our format."""
        wanted = sa.select(snapshots).where(snapshots.c.stream.in_(streams), snapshots.c.format == FORMAT)
        try:
            with self._engine.connect() as connection:
                return {row.stream: row for row in connection.execute(wanted)}
        except sa.exc.SQLAlchemyError:
            return {}

    @staticmethod
    def _thawed(stream: str, row: Any) -> Account:
        """Raises ValueError for a row that nobody wrote like that."""
        if row.version < 1 or row.digest != _digest(stream, row.version, row.event_digest, row.state):
            raise ValueError("its digest is another's")
        account = thaw(row.state)
        if account.version != row.version:
            raise ValueError("it is of another version")
        return account

    # -- taking ---------------------------------------------------------------------------------
    def left(self, stream: str, account: Account) -> None:
        """An account leaves memory. Costs nothing here."""
        if account.version - self._kept.pop(stream, 0) >= self._every:
            self._due.append(stream)

    def forget(self, stream: str) -> None:
        """An account is dropped that may be in another state than the log."""
        self._kept.pop(stream, None)

    def take(self, accounts: Mapping[str, Account], ask: Callable[[Callable[[], Any]], Any]) -> int:
        """Take the snapshots that are due; how many were written. Called by a timer, never in a command's way.

        `accounts`: those in memory, which may hold what is not stored yet, but not while `ask` asks.
        """
        grown = self._grown(accounts)
        taken = 0
        while grown:
            frozen: list[tuple[str, int, bytes]] = ask(partial(self._freeze_some, accounts, grown))
            for stream, version, state in frozen:
                if self._write(stream, version, state):
                    taken += 1
                    if stream in accounts:
                        self._kept[stream] = version
        while self._due:
            stream = self._due.popleft()
            account, kept = self.load(stream)
            # Of what is in memory again a snapshot will be due by and by, unless it is a large account.
            if account.version - kept >= self._every and self._write(stream, account.version, freeze(account)):
                taken += 1
                if stream in accounts:
                    self._kept[stream] = account.version
        return taken

    def behind(self, first: int, last: int) -> list[str]:
        """The streams with events at these positions whose snapshot is older than the last of those."""
        asked = sa.text(
            "SELECT e.originator_id FROM events e"
            " LEFT JOIN snapshots s ON s.stream = e.originator_id AND s.format = :format"
            " WHERE e.position BETWEEN :first AND :last GROUP BY e.originator_id, s.version"
            " HAVING coalesce(s.version, 0) < max(e.originator_version) ORDER BY e.originator_id"
        )
        with self._engine.connect() as connection:
            values = {"format": FORMAT, "first": first, "last": last}
            return [stream for (stream,) in connection.execute(asked, values)]

    def keep(self, stream: str) -> None:
        """Take an account's snapshot now. Raises Unavailable when it cannot be written."""
        account, _ = self.load(stream)
        if not self._write(stream, account.version, freeze(account)):
            raise Unavailable(f"the snapshot of {stream} cannot be written")

    def _grown(self, accounts: Mapping[str, Account]) -> list[str]:
        """Those in memory that have grown by many events; looked for, so that no command has to count."""
        every, kept = self._every, self._kept
        grown = []
        for number, (stream, account) in enumerate(list(accounts.items())):
            more = account.version - kept.get(stream, 0)
            # A large account costs more to keep: it is kept less often.
            if more >= every and more >= size(account):
                grown.append(stream)
            if number % LOOKED_AT == LOOKED_AT - 1:
                sleep(0)
        return grown

    def _freeze_some(self, accounts: Mapping[str, Account], streams: list[str]) -> list[tuple[str, int, bytes]]:
        """The next of these accounts, as many as may be encoded while commands wait."""
        frozen: list[tuple[str, int, bytes]] = []
        left = AT_ONCE
        while streams and left > 0:
            account = accounts.get(streams[-1])
            things = 1 + size(account) if account else 0
            if account is not None and things > AT_ONCE:
                self._due.append(streams.pop())  # to be folded from the log: commands do not wait for that
                continue
            if things > left:
                break
            left -= things
            stream = streams.pop()
            if account is not None:
                frozen.append((stream, account.version, freeze(account)))
        return frozen

    def _write(self, stream: str, version: int, state: bytes) -> bool:
        """Put a snapshot into the place of the one before. False if it could not be: a later one will be."""
        try:
            taken_at = self._events.stream(stream, version - 1, 1)
            if not taken_at or taken_at[0].version != version:
                return False
            event_digest = _event_digest(taken_at[0])
            row = {
                "stream": stream,
                "version": version,
                "format": FORMAT,
                "event_digest": event_digest,
                "digest": _digest(stream, version, event_digest, state),
                "state": state,
            }
            insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert
            statement = insert(snapshots).values(row)
            values = {name: statement.excluded[name] for name in row if name != "stream"}
            with self._engine.begin() as connection:
                connection.execute(statement.on_conflict_do_update(index_elements=["stream"], set_=values))
        except (TokengridError, sa.exc.SQLAlchemyError) as error:
            log.warning("snapshot of %s at version %s is not written: %s", stream, version, error)
            return False
        return True


def _folded(account: Account, behind: Iterable[LoggedEvent], until: int | None) -> Account:
    for number, logged in enumerate(behind, start=1):
        if number % FOLDED == 0:
            sleep(0)
        if until is not None and logged.version > until:
            break
        account.evolve(logged.version, logged.event)
    return account


def _event_digest(event: LoggedEvent) -> bytes:
    return hashlib.blake2b(f"{event.position}\n{event.topic}\n{event.state}".encode(), digest_size=16).digest()


def _digest(stream: str, version: int, event_digest: bytes, state: bytes) -> bytes:
    """Of all that a snapshot says: bytes that were damaged, or are another account's, are not believed."""
    said = f"{FORMAT}\n{stream}\n{version}\n".encode() + event_digest + state
    return hashlib.blake2b(said, digest_size=16).digest()
