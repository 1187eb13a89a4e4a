"""Ordinary debits folded a section at a time, against the ledger that folds an event at a time.

Random logs, honest ones and tampered ones, come to the same books, sums and roots, and the same findings in one order.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

from services.audit.replay import debits as debits_module
from services.audit.replay import reader as reader_module
from services.audit.replay.debits import Debits
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.reader import LogReader
from services.audit.replay.usage import Metered
from shared.archive import reading
from shared.archive.shredding import Row, shred
from shared.errors import AuditFailed

Raw = dict[str, Any]
JUNE = "2026-06"
START = "2026-01-01T00:00:00Z"
AT = "2026-06-18T04:{:02d}:{:02d}.{:06d}Z"  # noon in Shanghai
BASE = {"input": 1000, "cached_input": 100, "cache_write": 1000, "output": 4000}
NIGHT = {name: rate // 2 for name, rate in BASE.items()}
MODELS = ("flat", "tiered", "hourly", "twice")
OPERATORS = ("east", "west")
DEBIT = "quota.TokensDebited:1"


def prices() -> Prices:
    known = Prices()
    cards: list[tuple[str, int, str, Raw]] = [
        ("flat", 1, START, {}),
        ("tiered", 1, START, {"tiers": [{"above_input_tokens": 900, "rates": {"input": 7}}]}),
        ("hourly", 1, START, {"off_peak": [{"from_minute": 730, "to_minute": 1400, "rates": NIGHT}]}),
        ("twice", 1, START, {}),
        ("twice", 2, "2026-06-18T04:30:00Z", {}),  # in the middle of the log
    ]
    for position, (model, version, start, terms) in enumerate(cards, start=1):
        for operator in OPERATORS:
            item = {"operator": operator, "model": model, "rates": BASE, **terms}
            fields = {"at": START, "recorded_at": START, "version": version, "effective_from": start, "item": item}
            known.apply(position, f"rate_card:{operator}/{model}", "catalog.RateCardPublished:1", fields)
    return known


class Market:
    """Events as quota writes them, of few accounts; now and then something that is no ordinary debit."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.accounts = [f"{chance.choice(OPERATORS)}/a{n}" for n in range(chance.randrange(1, 12))]
        self.unusual = chance.choice((0.0, 0.01, 0.05, 0.2))
        self.versions = dict.fromkeys(self.accounts, 0)
        self.rows: list[list[Any]] = []
        self.second = 0
        self.requests = 0

    def add(self, stream: str, topic: str, fields: Raw) -> None:
        self.versions[stream] += 1
        state = json.dumps(fields, separators=(",", ":")).encode()
        self.rows.append([len(self.rows) + 1, stream, self.versions[stream], topic, state])

    def now(self) -> Raw:
        self.second += self.chance.choice((0, 0, 1, 20))
        at = AT.format(self.second // 60 % 60, self.second % 60, self.chance.randrange(2))
        return {"at": at, "recorded_at": at}

    def request(self) -> str:
        self.requests += 1
        return self.chance.choice((f"{self.requests:032x}", f"r{self.requests}", f"{self.requests:08d}"))

    def log(self, count: int) -> list[list[Any]]:
        for stream in self.accounts:
            opened = self.now() | {"request_id": self.request(), "credit_limit": 10**9}
            self.add(stream, "quota.AccountOpened:1", opened)
            for name, scope in (("g1", {}), ("g2", {}), ("only", {"models": ["flat"]})):
                granted = self.now() | {"request_id": name, "amount": 10**9, "source": "purchase", "scope": scope}
                self.add(stream, "quota.PointsGranted:1", {**granted, "effective_at": granted["at"]})
        for _ in range(count):
            stream = self.chance.choice(self.accounts)
            if self.chance.random() >= self.unusual:
                self.debit(stream)
            else:
                self.another(stream)
        return self.rows

    def debit(self, stream: str, **fields: Any) -> None:
        model, request = self.chance.choice(MODELS), self.request()
        used = {"input": self.chance.randrange(1200), "output": self.chance.randrange(50)}
        used |= {"cached_input": 9} if self.chance.random() < 0.5 else {}
        made = self.now() | {"request_id": request, "fingerprint": f"{self.chance.getrandbits(64):016x}"}
        made |= {"call": request} if self.chance.random() < 0.8 else {}
        rates = {"input": 7} if model == "tiered" and used["input"] + used.get("cached_input", 0) > 900 else BASE
        minute = 12 * 60 + self.second // 60 % 60
        rates = NIGHT if model == "hourly" and 730 <= minute < 1400 else rates
        version = 2 if model == "twice" and minute >= 750 else 1
        amount = sum(tokens * rates.get(name, 0) for name, tokens in used.items())
        draws = [[self.chance.choice(("g1", "g1", "g1", "g2", "credit")), amount]]
        if self.chance.random() < self.unusual and amount > 1:
            draws = self.chance.choice(([["g1", 1], ["g2", amount - 1]], [["only", amount]]))
        operator = stream.partition("/")[0]
        made |= {"model": model, "rate_card": f"{operator}/{model}@{version}", "rates": rates, "usage": used}
        self.add(stream, DEBIT, made | {"amount": amount, "draws": draws} | fields)

    def another(self, stream: str) -> None:
        kind = self.chance.choice(("limit", "suspend", "resume", "void", "serving", "overdrawn"))
        head = self.now() | {"request_id": self.request()}
        if kind == "limit":
            self.add(stream, "quota.CreditLimitSet:1", {**head, "credit_limit": self.chance.choice((0, 10**6, 10**9))})
        elif kind in ("suspend", "resume"):
            self.add(stream, f"quota.Account{'Suspended' if kind == 'suspend' else 'Resumed'}:1", head)
        elif kind == "void" and self.chance.random() < 0.2:
            self.add(stream, "quota.GrantVoided:1", {**head, "grant": "g2", "amount": self.chance.choice((0, 10**9))})
        elif kind == "serving":
            self.debit(stream, serving_operator="west", deployment="d1")
        else:
            self.debit(stream, overdrawn=self.chance.choice((0, 5)))


def other(state: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(state) | fields, separators=(",", ":")).encode()


def replaced(state: bytes, name: str, text: str) -> bytes:
    """Another text for a field, whatever it is."""
    own = json.dumps(json.loads(state)[name], separators=(",", ":"))
    return state.replace(f'"{name}":{own}'.encode(), f'"{name}":{text}'.encode(), 1)


def repriced(state: bytes, rates: Raw) -> bytes:
    """A debit that agrees with itself, by other rates."""
    event = json.loads(state)
    amount = sum(tokens * rates.get(name, 0) for name, tokens in event["usage"].items())
    return other(state, rates=rates, amount=amount, draws=[["g1", amount]])


# What a row of the log may become.
TAMPERED: dict[str, Callable[[list[Any]], object]] = {
    "amount": lambda r: r.__setitem__(4, other(r[4], amount=json.loads(r[4])["amount"] + 1)),
    "amount of a draw": lambda r: r.__setitem__(4, other(r[4], draws=[["g1", 1]])),
    "huge": lambda r: r.__setitem__(4, other(r[4], amount=2**70, draws=[["g1", 2**70]])),
    "negative": lambda r: r.__setitem__(4, other(r[4], amount=-5, usage={"input": -5}, draws=[["g1", -5]])),
    "a fraction": lambda r: r.__setitem__(4, other(r[4], amount=1.5)),
    "no draws": lambda r: r.__setitem__(4, other(r[4], draws=[])),
    "another grant": lambda r: r.__setitem__(4, replaced(r[4], "draws", '[["g9",5]]')),
    "an escaped grant": lambda r: r.__setitem__(4, replaced(r[4], "draws", '[["\\u0067\\u0031",5]]')),
    "huge tokens": lambda r: r.__setitem__(4, other(r[4], usage={"input": 2**40})),
    "no tokens": lambda r: r.__setitem__(4, other(r[4], usage={"input": None})),
    "tokens twice": lambda r: r.__setitem__(4, replaced(r[4], "usage", '{"input":1,"input":3}')),
    "tokens that are none": lambda r: r.__setitem__(4, replaced(r[4], "usage", '{"input":true,"other":9}')),
    "usage that is none": lambda r: r.__setitem__(4, other(r[4], usage=[1])),
    "rates": lambda r: r.__setitem__(4, other(r[4], rates={"input": 1})),
    "by day": lambda r: r.__setitem__(4, repriced(r[4], BASE)),
    "by night": lambda r: r.__setitem__(4, repriced(r[4], NIGHT)),
    "by a tier": lambda r: r.__setitem__(4, repriced(r[4], {"input": 7})),
    "rates that are none": lambda r: r.__setitem__(4, other(r[4], rates="free")),
    "card": lambda r: r.__setitem__(4, other(r[4], rate_card="east/flat@9")),
    "another's card": lambda r: r.__setitem__(4, other(r[4], rate_card="west/flat@1", model="flat")),
    "a card too early": lambda r: r.__setitem__(4, other(r[4], rate_card="east/twice@2", model="twice")),
    "model": lambda r: r.__setitem__(4, other(r[4], model=7)),
    "time": lambda r: r.__setitem__(4, other(r[4], at="2026-06-18T04:00:00+00:00")),
    "long ago": lambda r: r.__setitem__(4, other(r[4], at="2020-06-18T04:00:00Z")),
    "another month": lambda r: r.__setitem__(4, other(r[4], at="2026-07-18T04:00:00Z")),
    "no time": lambda r: r.__setitem__(4, other(r[4], at="2026-06-31T04:00:00Z")),
    "no record": lambda r: r.__setitem__(4, other(r[4], recorded_at=None)),
    "request": lambda r: r.__setitem__(4, other(r[4], request_id=5)),
    "a strange request": lambda r: r.__setitem__(4, other(r[4], request_id='a"b\\c\u00e9')),
    "a long request": lambda r: r.__setitem__(4, other(r[4], request_id="x" * 300)),
    "spaces": lambda r: r.__setitem__(4, json.dumps(json.loads(r[4])).encode()),
    "no JSON": lambda r: r.__setitem__(4, r[4][:-1]),
    "a field that is twice there": lambda r: r.__setitem__(4, r[4].replace(b"{", b'{"amount":1,', 1)),
    "no fields": lambda r: r.__setitem__(4, b"{}"),
    "one field more": lambda r: r.__setitem__(4, other(r[4], late=True)),
    "a final part": lambda r: r.__setitem__(4, other(r[4], final=False)),
    "a reservation": lambda r: r.__setitem__(4, other(r[4], reservation="h1")),
    "topic": lambda r: r.__setitem__(3, "quota.TokensDebited:2"),
    "version": lambda r: r.__setitem__(2, r[2] + 1),
    "first version": lambda r: r.__setitem__(2, 1),
    "stream": lambda r: r.__setitem__(1, "east/nobody"),
}  # fmt: skip


class Pages:
    """A log, as a service answers it."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        self.rows = rows

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        if method == "head":
            return len(self.rows)
        names = ("position", "stream", "version", "topic", "state")
        found = self.rows[asked["after"] : asked["after"] + asked["limit"]]
        return {"events": [dict(zip(names, row, strict=True)) | {"state": row[4].decode()} for row in found]}


class ByColumns(Pages):
    """The same, by columns as an archive has them."""

    def __init__(self, rows: Sequence[Sequence[Any]]) -> None:
        super().__init__(rows)
        table = shred([Row(*row, None, None) for row in rows])
        names = [name for name in table.column_names if name.startswith(reading.FIELD)]
        fields = {name[len(reading.FIELD) :]: reading.field_of(table, name[len(reading.FIELD) :]) for name in names}
        index = table.schema.get_field_index("shape")
        table = table.set_column(index, "shape", table.column("shape").dictionary_encode())
        self.group = reading.Group(1, table, fields, "the test")
        self.sections = 0

    def columns(self, service: str, after: int, limit: int) -> Any:
        self.sections += 1
        return self.group.sliced(after, limit)


class Replayed:
    """What came of a log."""

    def __init__(self, source: Pages, cut_offs: dict[str, list[int]], wanted: set[int]) -> None:
        self.findings = Findings()
        known = prices()
        self.metered = Metered(JUNE, cut_offs, {})
        self.latest = ""

        def heard(position: int, account: Any, topic: str, event: Raw) -> None:
            self.latest = max(self.latest, event["recorded_at"]) if position <= 60 else self.latest
            if topic in (DEBIT, "quota.PointsGranted:1"):
                self.metered.heard(position, account, topic, event)

        self.reader = LogReader(source, "quota", lambda *event: self.ledger.apply(*event), self.findings)
        self.ledger = Ledger(known, self.findings, heard, lambda at: self.reader.event_at(at)[1:])
        self.reader.wanted = set(wanted)
        self.debits: Debits | None = None
        if isinstance(source, ByColumns):
            self.debits = self.reader.debits = Debits(self.ledger, known)
            self.debits.metered, self.debits.until = self.metered, 60
        self.reader.read_on()
        self.folded = 0 if self.debits is None else self.debits.folded
        self.ledger.finish()

    def result(self) -> dict[str, Any]:
        usage = {
            stream: {key: (s.calls, s.amount, s.charged, s.tokens) for key, s in sums.items()}
            for stream, sums in self.metered.usage.items()
        }
        pairs = {pair: sorted(rows) for pair, rows in self.metered.wholesale.items()}
        return {
            "accounts": {stream: account.state() for stream, account in self.ledger.accounts.items()},
            "debited": self.ledger.debited,
            "findings": self.findings.differences,
            "counts": self.findings.counts,
            "roots": self.reader.roots | {self.reader.tree.size: self.reader.tree.root()},
            "usage": usage,
            "pairs": (pairs, self.metered.pairs),
            "latest": max(self.latest, self.debits.latest if self.debits else ""),
        }


def compare(rows: Sequence[Sequence[Any]], chance: random.Random) -> tuple[Replayed, Replayed]:
    streams = sorted({row[1] for row in rows})
    cut_offs = {s: sorted(chance.sample(range(1, len(rows) + 1), 2)) for s in streams if chance.random() < 0.5}
    wanted = set(chance.sample(range(1, len(rows) + 1), 5))
    one = Replayed(Pages(rows), cut_offs, wanted)
    many = Replayed(ByColumns(rows), cut_offs, wanted)
    assert many.result() == one.result()
    return one, many


@pytest.fixture(autouse=True)
def small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "SECTION", 40)
    monkeypatch.setattr(debits_module, "PIECE", 16)


@pytest.mark.parametrize("number", range(12))
def test_random_logs_are_folded_alike(seed: int, number: int) -> None:
    chance = random.Random(f"{seed}/{number}")
    compare(Market(chance).log(250), chance)


@pytest.mark.parametrize("name", TAMPERED)
def test_what_is_tampered_with_is_found_alike(seed: int, name: str) -> None:
    chance = random.Random(f"{seed}/{name}")
    rows = Market(chance).log(120)
    for row in chance.sample([row for row in rows if row[3] == DEBIT], 2):
        TAMPERED[name](row)
    compare(rows, chance)


def test_everything_tampered_with_at_once_is_found_alike(seed: int) -> None:
    for number in range(10):
        chance = random.Random(f"{seed}/all/{number}")
        rows = Market(chance).log(200)
        for row in chance.sample([row for row in rows if row[3] == DEBIT], 40):
            TAMPERED[chance.choice(list(TAMPERED))](row)
        one, _ = compare(rows, chance)
        assert one.findings.count


def test_a_request_that_has_two_effects_is_found_however_both_were_folded(seed: int) -> None:
    for number in range(10):
        chance = random.Random(f"{seed}/twice/{number}")
        rows = Market(chance).log(200)
        debited = [row for row in rows if row[3] == DEBIT]
        first = debited[0]
        second = chance.choice([row for row in debited if row[1] == first[1]][1:])
        second[4] = other(second[4], request_id=json.loads(first[4])["request_id"])
        one, _ = compare(rows, chance)
        assert "request has two effects" in [d.what for d in one.findings.differences]


def test_most_of_an_honest_log_is_folded_by_the_section() -> None:
    """Else all that is compared here would be the ledger with itself."""
    folded = debits = 0
    for number in range(10):
        chance = random.Random(f"share/{number}")
        market = Market(chance)
        _, many = compare(market.log(250), chance)
        debits += sum(row[3] == DEBIT for row in market.rows)
        folded += many.folded
    assert folded > 0.4 * debits, (folded, debits)


def test_a_section_that_does_not_go_on_is_refused() -> None:
    rows = Market(random.Random(1)).log(20)
    source = ByColumns(rows)
    source.columns = lambda service, after, limit: source.group.sliced(after + 1, limit)  # type: ignore[method-assign]
    with pytest.raises(AuditFailed, match="does not go on"):
        Replayed(source, {}, set())
