"""A log of ordinary debits in an archive, and the whole audit over it: read, hashed, held against signatures, folded.

The events are those that the application wrote for one account, told again for ten thousand with request ids,
fingerprints, times and usage of their own; the archive is written as any. It needs the extra `archive`. Must not know
how a replay works.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from services.audit.archive.source import ArchiveSource
from services.audit.archive.writing import write_log
from services.audit.keys import key_of
from services.audit.replay import run_audit
from services.catalog.application import CatalogApplication
from services.catalog.sample import sample_publication
from services.quota.application import QuotaApplication
from shared import collector
from shared.archive import manifest as m
from shared.archive.hashing import Tiles
from shared.archive.reading import LogArchive
from shared.archive.shredding import Row as Event
from shared.clock import system_clock
from shared.config import Settings
from shared.transparency.checkpoint import Checkpoint, sign_checkpoint
from shared.transparency.keys import SigningKey
from shared.transparency.leaf import hasher
from tokengrid.bench import calls, engine
from tokengrid.bench.goals import ARCHIVED, REPLAYED
from tokengrid.bench.measure import Progress, Row, first_error

DEBITS = 500_000
SOME = 5_000  # more events than the templates are
TOGETHER = 200  # debits of one instant, as a batch of a busy service has
APART = timedelta(milliseconds=7)  # between such batches: 30,000 debits a second
INPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX = 20_000, 4_000
ROUNDS = 3
ORIGIN = "bench.example"


def rows(
    folder: Path, progress: Progress, stores: Sequence[str], accounts: int = calls.ACCOUNTS, debits: int = DEBITS
) -> list[Row]:
    """The rows; `folder` must be empty. The replay's ratios are to the engines of the same run, on these `stores`."""
    against = tuple(f"{store}: engine, {engine.USUAL:,} a batch" for store in stores)
    progress(f"archive: {debits:,} debits of {accounts:,} accounts")
    archive, keys = written(folder, accounts, debits)
    quota = LogArchive.open(archive, "quota").manifest
    progress(f"archive: replayed {ROUNDS} times by a process of its own")
    asked = Asked(str(archive), keys, accounts, quota.size)
    # As `audit replay` is: what else a benchmark has in its memory takes a quarter of the rate.
    command = [sys.executable, "-m", __name__, msgspec.json.encode(asked).decode()]
    rates: list[float] = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout)
    found = [Row(REPLAYED, statistics.median(rates), "events/s", None, row) for row in against]
    return [*found, Row(ARCHIVED, _bytes_a_debit(quota, accounts), "bytes")]


class Asked(msgspec.Struct):
    """What a process is to replay, and what it must find there."""

    archive: str
    keys: dict[str, str]
    accounts: int
    size: int


def replayed(asked: Asked) -> list[float]:
    """Events a second, of each round. Raises AssertionError when a replay does not agree."""
    archive, rates = Path(asked.archive), []
    month = datetime.now(UTC).strftime("%Y-%m")
    events = sum(LogArchive.open(archive, log).manifest.size for log in m.logs_of(archive))
    collector.suit_batches()  # as the command does
    for _ in range(ROUNDS):
        start = time.perf_counter()
        report = run_audit(ArchiveSource(archive), month, verifier_keys=asked.keys, asks=False)
        rates.append(events / (time.perf_counter() - start))
        assert report.ok, report.differences[:5]
        assert report.checkpoints["quota"]["verifier_key"] == asked.keys["quota"]
        assert (report.accounts, report.events["quota"]) == (asked.accounts, asked.size)
    return rates


def _bytes_a_debit(quota: m.Manifest, accounts: int) -> float:
    """Files and tiles over debits, in the parts that have nothing else."""
    parts = [part for part in quota.parts if part.first > 2 * accounts] or list(quota.parts)
    tiles = sum(tile.bytes for tile in quota.tiles) / quota.size
    return sum(part.file.bytes for part in parts) / sum(part.last - part.first + 1 for part in parts) + tiles


def written(folder: Path, accounts: int, debits: int) -> tuple[Path, dict[str, str]]:
    """An archive of a catalogue and of debits by chance, its checkpoints signed; and the logs' verifier keys."""
    settings = Settings(var=folder / "templates")
    app = engine.priced(settings, settings)
    told = _Told(app, accounts, debits)
    catalog = CatalogApplication(settings)
    prices = [
        Event(e.position, e.stream, e.version, e.topic, e.state.encode(), None, None)
        for e in catalog.log.read(0, 5_000)
    ]
    for each in (app, catalog):
        each.close()
    key = SigningKey.generate(ORIGIN)
    archive, signed = folder / "archive", []
    for log, events in (("catalog", iter(prices)), ("quota", told.events())):
        signed.append(_archived(archive, log, events, key))
    for log in ("billing", "routing"):  # nothing happened there
        m.save(_made(m.log_folder(archive, log)), m.Manifest(service=log, shard=0, log=log))
    _archived(archive, "audit", iter(signed), None)
    return archive, {log: str(key_of(key, log).verifier) for log in ("catalog", "quota")}


def _archived(archive: Path, log: str, events: Iterator[Event], key: SigningKey | None) -> Event:
    """Write a log's archive; the event of audit's log that signs it. It is signed first, as it would be."""
    tree, leaf_hash = Tiles(), hasher(log)
    whole = list(events)
    tree.append([leaf_hash(*event[:5]) for event in whole])
    about = m.Manifest(service=log, shard=0, log=log)
    note = ""
    if key is not None:
        own = key_of(key, log)
        note = str(sign_checkpoint(Checkpoint(own.name, len(whole), tree.root()), own))
        about = msgspec.structs.replace(about, note=note, verifier_key=str(own.verifier))
    write_log(archive, about, lambda after, limit: whole[after : after + limit], len(whole))
    said = {"log": log, "size": len(whole), "root_sha256": tree.root().hex(), "note": note}
    at = _text(datetime.now(UTC))
    position = 1 if log == "catalog" else 2
    state = msgspec.json.encode({"at": at, "recorded_at": at, **said})
    return Event(position, log, 1, "audit.CheckpointSigned:1", state, None, None)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


class _Told:
    """Accounts opened and funded, then debits of them by chance: each of a model by chance, and of usage of its own."""

    def __init__(self, app: QuotaApplication, accounts: int, debits: int) -> None:
        self._accounts, self._debits = accounts, debits
        first_error(app.execute(engine.funded([0])))
        first_error(app.execute(_one_of_each_model()))
        self._opened, self._granted, *debited = app.log.read(0, SOME)
        self._topic = debited[0].topic
        self._models = [msgspec.json.decode(e.state) for e in debited]
        for event, logged in zip(self._models, debited, strict=True):
            assert logged.state.endswith(_rest(event, event["usage"])), "we would tell it otherwise than it is"
        self._began = datetime.now(UTC)

    def events(self) -> Iterator[Event]:
        for version, life in enumerate((self._opened, self._granted), start=1):
            key = "open" if version == 1 else "grant"
            for of in range(self._accounts):
                position, stream = (version - 1) * self._accounts + of + 1, calls.stream(of)
                yield Event(position, stream, version, life.topic, life.state.encode(), f"{key}\t{stream}", None)
        chance, whose = random.Random(0), calls.uniform(self._accounts)
        versions = [2] * self._accounts
        for n in range(self._debits):
            if not n % TOGETHER:
                at = _text(self._began + n // TOGETHER * APART)
            of, request = next(whose), calls.ordered_key(n)
            versions[of] += 1
            state = (
                f'{{"at":"{at}","recorded_at":"{at}","request_id":"{request}",'
                f'"fingerprint":"{chance.getrandbits(64):016x}","call":"{request}"'
                f"{_rest(chance.choice(self._models), _usage(chance))}"
            )
            stream = calls.stream(of)
            position = 2 * self._accounts + n + 1
            yield Event(position, stream, versions[of], self._topic, state.encode(), f"{request}\t{stream}", None)


def _rest(event: dict[str, Any], usage: dict[str, int]) -> str:
    """A debit's JSON from its model on, of other usage."""
    rates = event["rates"]
    amount = sum(tokens * rates[name] for name, tokens in usage.items())
    fields = {name: event[name] for name in ("model", "rate_card", "rates")}
    fields |= {"usage": usage, "amount": amount, "draws": [["grant", amount]]}
    return "," + msgspec.json.encode(fields).decode()[1:]


def _one_of_each_model() -> list[dict[str, Any]]:
    """Debits of an account, of all models whose price does not change with the hour or the length of what is sent."""
    chance = random.Random(1)
    cards = sample_publication(system_clock())["catalogue"]["rate_cards"]
    usual = [c for c in cards if c["operator"] == calls.OPERATOR and not c.get("off_peak") and not c.get("tiers")]
    return [
        {"command": "debit", **calls.debit(n, 0), "model": card["model"], "usage": _usage(chance)}
        for n, card in enumerate(usual)
    ]


def _usage(chance: random.Random) -> dict[str, int]:
    used = {"input": chance.randrange(1, INPUT_TOKENS_MAX)}
    if chance.random() < 0.5:
        used["cached_input"] = chance.randrange(1, INPUT_TOKENS_MAX)
    return used | {"output": chance.randrange(1, OUTPUT_TOKENS_MAX)}


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(replayed(msgspec.json.decode(sys.argv[1], type=Asked))))
