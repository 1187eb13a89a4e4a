"""The judge: reads the log with the auditor's eyes, asks the model what every event and answer must be, and compares.

Of each place in the log between two commands the books can be had again: what was refused is judged by them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from services.audit.replay.answers import Answers
from services.audit.replay.prices import Prices
from services.audit.replay.reader import LogReader
from services.quota.schemas import Balance, Balances
from shared.contracts.base import Event, decode_event
from shared.errors import MalformedCommand
from shared.eventstore.batch import fingerprint
from shared.eventstore.intake import named
from tests.simulation.books import Books, Effect, Entry, Fields, balance
from tests.simulation.clients import OPERATOR
from tests.simulation.faults import Process
from tests.simulation.model import decide, expire
from tests.simulation.rules import Refused
from tests.unit.quota_world import books as folded_books

BOOKS = ("status", "version", "available", "reserved", "credit_limit", "credit_left", "overdrawn")
COLUMNS = ("position", "stream", "version", "topic", "state", "key")
READ = (
    "SELECT position, originator_id, originator_version, topic, state, request_key FROM events "
    "WHERE position > ? ORDER BY position LIMIT ?"
)


class Stored(NamedTuple):
    """A row of the log, and what is in it."""

    position: int
    stream: str
    version: int
    topic: str
    state: bytes
    key: str | None
    event: Any

    @property
    def account(self) -> str:
        return self.stream.split("/", 1)[1]

    @property
    def entry(self) -> Entry:
        return Entry(self.stream, self.topic, msgspec.json.decode(self.state))

    @property
    def kind(self) -> str:
        return type(self.event).__name__


class Judge:
    """Everything that is known of a run, and what must be true of it."""

    def __init__(self, database: Path, prices: Prices) -> None:
        self._database = database
        self.books = Books(prices)
        self.log: list[Stored] = []
        self._new: list[Stored] = []
        self._reader = LogReader(self, "quota", self._take, self.books.findings)  # order and versions are its business
        self._makers: list[Fields | None] = []  # the command behind each event
        self._issued: dict[tuple[str, str], dict[str, Fields]] = {}  # by fingerprint
        self._acknowledged: dict[tuple[str, str], int] = {}  # the position that a client was told

    def open(self) -> None:
        self._connection = sqlite3.connect(self._database, isolation_level=None)

    def close(self) -> None:
        self._connection.close()

    @property
    def head(self) -> int:
        return len(self.log)

    def issued(self, fields: Fields) -> None:
        try:
            given = {name: value for name, value in fields.items() if value is not None and name != "command"}
            print_ = fingerprint(named("quota", fields["command"], given))
        except MalformedCommand:
            return
        self._issued.setdefault((fields["account"], fields["request_id"]), {})[print_] = fields

    def some_time(self, dice: Random) -> datetime | None:
        return dice.choice(self.log).event.recorded_at if self.log else None

    # -- the log ------------------------------------------------------------------------------------
    def call(self, _service: str, method: str, /, **asked: Any) -> Any:
        """What the auditor asks for. The log it gets past the service, from the database itself."""
        if method == "balances":
            return self._answering.balances(Balances(**asked))
        if method == "head":
            return self._connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        self._rows = self._connection.execute(READ, (asked["after"], asked["limit"])).fetchall()
        events = [dict(zip(COLUMNS, row, strict=True)) for row in self._rows]
        return {"events": [{**event, "state": bytes(event["state"]).decode()} for event in events]}

    def _take(self, position: int, _stream: str, topic: str, _raw: Fields) -> None:
        row = self._rows[position - self._rows[0][0]]
        self._new.append(Stored._make((*row, decode_event(topic, row[4]))))

    def observe(self, processes: Sequence[Process]) -> None:
        """Judge what has been stored since the last time."""
        self._reader.read_on()
        new, self._new = self._new, []
        for stored in new:
            assert stored.event.recorded_at in [process.now for process in processes], "written now"
        while new:
            maker = self._maker(new[0])
            events = self._must(new[0], maker)
            assert len(events) <= len(new), "all events of a command are stored, or none"
            made, new = new[: len(events)], new[len(events) :]
            for stored, must in zip(made, events, strict=True):
                _compare(stored, must)
            self.log += made
            self._makers += [maker] * len(made)
            self.books.append(Effect(maker, [s.entry for s in made]))

    def _must(self, first: Stored, maker: Fields | None) -> list[Fields]:
        """What the model says the command behind the next event must have done."""
        if first.event.request_id.startswith("expire/"):
            thing = first.event.request_id.removeprefix("expire/")
            kind = "ReservationExpired" if first.kind == "ReservationExpired" else "GrantExpired"
            assert first.key is None
            return [expire(self.books, first.account, kind, thing, first.event.at)]
        assert maker is not None, f"{first.event.request_id}: nobody asked for it"
        assert first.key == f"{first.event.request_id}\t{first.stream}", "the first event bears the request's key"
        try:
            events = decide(maker, self.books, first.event.recorded_at)
        except Refused as refusal:
            raise AssertionError(f"{first.event} is in the log, and had to be refused: {refusal}") from refusal
        assert events is not None, f"{first.event.request_id} has a second effect"
        return events

    def _maker(self, stored: Stored) -> Fields | None:
        commands = self._issued.get((stored.account, stored.event.request_id), {})
        return commands.get(stored.event.fingerprint)

    # -- answers ------------------------------------------------------------------------------------
    def answers(self, commands: Sequence[Fields], answers: Sequence[Fields], before: int, now: datetime) -> None:
        """What a call was answered that began when the log had `before` events."""
        new = [a["ok"]["position"] for a in answers if "ok" in a and not a["ok"]["replayed"]]
        # What is stored was decided right there; where nothing was, it may have been decided at any time of the call.
        places = [min(new) - 1] if new else list(range(before, self.head + 1))
        for command, answer in zip(commands, answers, strict=True):
            if "ok" in answer:
                self._receipt(command, answer["ok"], before)
                if not answer["ok"]["replayed"]:
                    places = [self._end(answer["ok"]["position"])]
            else:
                self._refusal(command, answer["error"], places, now)

    def _receipt(self, command: Fields, receipt: Fields, before: int) -> None:
        position = receipt["position"]
        assert 1 <= position <= self.head, f"{command} was answered and is not in the log"
        stored = self.log[position - 1]
        assert self._makers[position - 1] == command, f"{command} was answered with another command's event"
        assert receipt["replayed"] or position > before, "said to be new, and was there before"
        state = msgspec.json.decode(stored.state)
        told = {"operator": OPERATOR, "account": command["account"], "kind": stored.kind, "version": stored.version}
        assert receipt == {**state, **told, "position": position, "replayed": receipt["replayed"]}

    def _refusal(self, command: Fields, error: Fields, places: Sequence[int], now: datetime) -> None:
        foreseen = []
        for place in places:
            books = self.books.up_to(place)
            if books is None:
                continue
            try:
                foreseen.append(str(decide(command, books, now)))
            except Refused as refusal:
                if refusal.code == error["code"] and refusal.details.items() <= error["details"].items():
                    return
                foreseen.append(str(refusal))
        raise AssertionError(f"{command} was refused with {error}; it must be: {foreseen}")

    def acknowledged(self, command: Fields, answer: Fields) -> None:
        """A client got this answer: it must hold for good."""
        if "ok" in answer:
            position = answer["ok"]["position"]
            first = self._acknowledged.setdefault((command["account"], command["request_id"]), position)
            assert first == position, f"{command} was answered in two ways"

    def balance(self, account: str, told: Fields | None, now: datetime, known_at: datetime | None, before: int) -> None:
        """An answer to `balance`, asked when the log had `before` events."""
        foreseen = []
        for place in range(before, self.head + 1):
            if self.books.up_to(place) is None:
                continue
            known = self.books.up_to(place if known_at is None else self._known(account, known_at, place))
            assert known is not None
            books = known.account(account)
            foreseen.append(balance(books, now) if books.status else None)
        assert _balance(told) in foreseen, f"balance of {account}: {_balance(told)}, and must be {foreseen}"

    def _known(self, account: str, known_at: datetime, head: int) -> int:
        """How far the log had come, for an account, when it was told something after an instant."""
        later = (s.position for s in self.log[:head] if s.account == account and s.event.recorded_at > known_at)
        return next(later, head + 1) - 1

    def _end(self, position: int) -> int:
        """The position of the last event of the command whose first event this is."""
        return next((begin for begin in self.books.effects if begin >= position), self.head)

    # -- the end ------------------------------------------------------------------------------------
    def final(self, processes: Sequence[Process]) -> None:
        """When everything is quiet: log, memory, a fresh process, the read model and the model are one."""
        effects: dict[tuple[str, str], list[int]] = {}
        for stored in self.log:
            if stored.key is not None:
                effects.setdefault((stored.account, stored.event.request_id), []).append(stored.position)
        for key, position in self._acknowledged.items():
            assert effects.get(key) == [position], f"{key} was acknowledged: exactly one effect, where it was told"
        assert all(len(positions) == 1 for positions in effects.values()), "nothing is doubled"
        now = processes[0].now
        processes[0].restart()  # it folds everything anew; the other one has seen it happen
        fresh, old = (process.app for process in processes)
        old.writer.refresh()
        self.books.ledger.finish()
        self.books.check(set(self.books.ledger.accounts))
        for name, account in self.books.accounts.items():
            stream = f"{OPERATOR}/{name}"
            folded = fresh.accounts.account(stream)
            assert folded_books(folded) == folded_books(old.accounts.account(stream)), "memory = what is folded"
            told = fresh.balance(Balance(operator=OPERATOR, account=name, at=now))
            assert _balance(told) == balance(account, now), "what is folded = the auditor's books"
        self._read_model(fresh)

    def _read_model(self, app: Any) -> None:
        self._answering = app
        Answers(self, self.books.findings).check_balances(self.books.ledger, self.head, lambda _: self.head, 0)
        self.books.check(set())
        live = self._connection.execute("SELECT account, name FROM reservations").fetchall()
        assert sorted(live) == sorted(
            (name, hold) for name, a in self.books.accounts.items() for hold, h in a.holds.items() if not h.expired
        )


def _balance(told: Fields | None) -> Fields | None:
    """An answer to `balance` in the form of the model's."""
    if told is None:
        return None
    names = ("granted", "reserved", "debited", "reversed", "expired", "voided", "available", "ended")
    kept = {name: told[name] for name in BOOKS}
    return kept | {"grants": {g["grant"]: tuple(g[name] for name in names) for g in told["grants"]}}


def _compare(stored: Stored, must: Fields) -> None:
    event: Event = stored.event
    for name, expected in must.items():
        told: Any = stored.kind if name == "kind" else getattr(event, name)
        if name in ("draws", "freed"):
            told = [(draw.grant, draw.amount) for draw in told]
        elif name == "regranted":
            told = list(told)
        elif name == "usage":
            told = {k: v for k, v in msgspec.to_builtins(told).items() if v}
        assert told == expected, f"{name} of {event} must be {expected}"
