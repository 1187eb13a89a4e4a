"""The judge: reads the log with eyes of its own, asks the model what every event and answer must be, and compares.

`ledgers[n]` is the model after the first n events (None inside the events of one command).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from services.quota.schemas import Balance, Balances
from shared.contracts.base import Event, decode_event
from shared.errors import MalformedCommand
from shared.eventstore.intake import named
from shared.eventstore.writer import fingerprint
from tests.simulation.books import Fields, Market, Refused
from tests.simulation.clients import OPERATOR
from tests.simulation.faults import Process
from tests.simulation.model import Ledger
from tests.unit.test_quota_properties import books as folded_books

BOOKS = ("status", "version", "available", "reserved", "credit_limit", "credit_left", "overdrawn")
READ = "SELECT position, originator_id, originator_version, topic, state, request_key FROM events"


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
    def kind(self) -> str:
        return type(self.event).__name__


class Judge:
    """Everything that is known of a run, and what must be true of it."""

    def __init__(self, database: Path, market: Market) -> None:
        self._database = database
        self.log: list[Stored] = []
        self.ledgers: list[Ledger | None] = [Ledger(market)]
        self._makers: list[Fields | None] = []  # the command behind each event
        self._issued: dict[tuple[str, str], dict[str, Fields]] = {}  # by fingerprint
        self._acknowledged: dict[tuple[str, str], int] = {}  # the position that a client was told
        self._versions: dict[str, int] = {}

    def open(self) -> None:
        self._connection = sqlite3.connect(self._database, isolation_level=None)

    def close(self) -> None:
        self._connection.close()

    @property
    def head(self) -> int:
        return len(self.log)

    @property
    def ledger(self) -> Ledger:
        last = self.ledgers[-1]
        assert last is not None
        return last

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
    def observe(self, processes: Sequence[Process]) -> None:
        """Judge what has been stored since the last time."""
        rows = self._connection.execute(f"{READ} WHERE position > ? ORDER BY position", (self.head,)).fetchall()
        new = [Stored._make((*row, decode_event(row[3], row[4]))) for row in rows]
        for number, stored in enumerate(new, start=self.head + 1):
            assert stored.position == number, "positions run 1..n without a gap"
            self._versions[stored.stream] = self._versions.get(stored.stream, 0) + 1
            assert stored.version == self._versions[stored.stream], "versions run 1..m without a gap"
            assert stored.event.recorded_at in [process.now for process in processes], "written now"
        while new:
            events = self._made(new)
            for stored, must in zip(new, events, strict=False):
                _compare(stored, must)
            maker = self._maker(new[0])
            self.log += new[: len(events)]
            self._makers += [maker] * len(events)
            del new[: len(events)]

    def _made(self, new: Sequence[Stored]) -> list[Fields]:
        """What the model says the command behind the next event must have done; the ledger goes on."""
        first = new[0]
        if first.event.request_id.startswith("expire/"):
            thing = first.event.request_id.removeprefix("expire/")
            kind = "ReservationExpired" if first.kind == "ReservationExpired" else "GrantExpired"
            ledger, event = self.ledger.expire(first.account, kind, thing, first.event.at)
            assert first.key is None
            events = [event]
        else:
            maker = self._maker(first)
            assert maker is not None, f"{first.event.request_id}: nobody asked for it"
            assert first.key == f"{first.event.request_id}\t{first.stream}", "the first event bears the request's key"
            try:
                ledger, outcome = self.ledger.do(maker, first.event.recorded_at)
            except Refused as refusal:
                raise AssertionError(f"{first.event} is in the log, and had to be refused: {refusal}") from refusal
            assert not outcome.replayed, f"{first.event.request_id} has a second effect"
            events = outcome.events
            assert len(events) <= len(new), "all events of a command are stored, or none"
        ledger.account(first.account).check()
        self.ledgers += [*[None] * (len(events) - 1), ledger]
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
            ledger = self.ledgers[place]
            if ledger is None:
                continue
            try:
                foreseen.append(str(ledger.do(command, now)[1]))
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
        places = [place for place in range(before, self.head + 1) if self.ledgers[place] is not None]
        foreseen = []
        for place in places:
            ledger = self.ledgers[place if known_at is None else self._known(account, known_at, place)]
            assert ledger is not None
            model = ledger.account(account)
            foreseen.append(model.balance(now) if model.status else None)
        assert _balance(told) in foreseen, f"balance of {account}: {_balance(told)}, and must be {foreseen}"

    def _known(self, account: str, known_at: datetime, head: int) -> int:
        """How far the log had come, for an account, when it was told something after an instant."""
        later = (s.position for s in self.log[:head] if s.account == account and s.event.recorded_at > known_at)
        return next(later, head + 1) - 1

    def _end(self, position: int) -> int:
        """The position of the last event of the command whose first event this is."""
        return next(place for place in range(position, self.head + 1) if self.ledgers[place] is not None)

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
        self._usage()
        now = processes[0].now
        processes[0].restart()  # it folds everything anew; the other one has seen it happen
        fresh, old = (process.app for process in processes)
        old.writer.refresh()
        for name, account in self.ledger.accounts.items():
            stream = f"{OPERATOR}/{name}"
            folded = fresh.accounts.account(stream)
            assert folded_books(folded) == folded_books(old.accounts.account(stream)), "memory = what is folded"
            model = account.balance(now)
            assert _balance(fresh.balance(Balance(operator=OPERATOR, account=name, at=now))) == model, (
                "what is folded = the model"
            )
        self._read_model(fresh)

    def _usage(self) -> None:
        """Per model and rate: the sum of debits is the sum of tokens × rate."""
        debited: dict[tuple[str, str], int] = {}
        priced: dict[tuple[str, str], int] = {}
        for stored in self.log:
            if stored.kind == "TokensDebited":
                event = stored.event
                card = (event.model, event.rate_card)
                debited[card] = debited.get(card, 0) + sum(d.amount for d in event.draws) + event.overdrawn
                priced[card] = priced.get(card, 0) + event.rates.price(event.usage)
        assert debited == priced

    def _read_model(self, app: Any) -> None:
        answer = app.balances(Balances())
        assert answer["position"] == self.head
        rows = {row["account"]: row for row in answer["accounts"]}
        assert rows.keys() == self.ledger.accounts.keys()
        for name, account in self.ledger.accounts.items():
            row, grants = rows[name], dict(rows[name]["grants"])
            credit = grants.pop("credit", {"reserved": 0, "debited": 0, "reversed": 0})
            assert (credit["reserved"], credit["debited"] - credit["reversed"]) == (
                account.credit_held,
                account.credit_debited,
            )
            assert {g: tuple(book.values()) for g, book in grants.items()} == {
                g.name: account.book(g) for g in account.grants.values()
            }
            for field in ("status", "version", "credit_limit", "overdrawn"):
                assert row[field] == getattr(account, field), f"read model: {field} of {name}"
        live = self._connection.execute("SELECT account, name FROM reservations").fetchall()
        assert sorted(live) == sorted(
            (name, h.name) for name, a in self.ledger.accounts.items() for h in a.holds.values() if h.state == "held"
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
