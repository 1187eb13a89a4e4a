"""A market of some days and its archive, for the archive's tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.audit.archive.databases import Rows
from services.audit.archive.run import write_archive
from services.audit.replay.account import Account
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.proofs import Proofs
from services.audit.replay.reader import LogReader
from shared.archive import manifest as m
from tests.unit.audit_world import CATALOGUE, EAST, JUNE, LONG_AGO, WEST, InProcess, Market


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


class Client(InProcess):
    """The market's client, with the methods that finding a checkpoint needs."""

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        for method in ("checkpoint", "checkpoints"):
            ask = getattr(market.audit, method)
            self._methods["audit", method] = lambda _ask=ask, **query: _ask(query)


def a_few_days(folder: Path, happenings: int = 150, shards: int = 1, **chosen: Any) -> Market:
    """A market in June, billed in July."""
    market = Market(folder, 7, shards, **chosen)
    market.publish(LONG_AGO, **CATALOGUE)
    market.follow()
    for n in range(3):
        market.open(EAST, f"e{n}", "payg", 10**9)
        market.open(WEST, f"w{n}", "family", 0)
        market.grant((EAST, f"e{n}"))
        market.grant((WEST, f"w{n}"))
    for n in range(happenings):
        market.happen()
        if not n % 10:
            market.follow()  # and seal
    market.clock.now = datetime(2026, 7, 2, tzinfo=UTC)
    market.close_period(JUNE)
    return market


class World:
    """A market of some days, and its archive."""

    def __init__(self, folder: Path) -> None:
        self.market = a_few_days(folder / "market")
        assert self.market.quota.shards[0].log.head() > 256, "a tile of level 1 is wanted"
        self.client = Client(self.market)
        self.settings = self.market.quota.settings
        self.archive = folder / "archive"
        self.manifests = write_archive(self.client, self.settings, self.archive)
        self.rows = Rows(self.settings.database_url("quota"))

    @property
    def size(self) -> int:
        """How many events of quota are archived."""
        return self.manifests[0].size

    def about(self, note: str | None = None) -> m.Manifest:
        """What archives quota's log: the empty manifest with the checkpoint."""
        made = self.manifests[0]
        return m.Manifest(
            service="quota", shard=0, log="quota", note=made.note if note is None else note,
            verifier_key=made.verifier_key,
        )  # fmt: skip

    def checkpoints(self) -> dict[int, str]:
        """All that was signed of quota's log: notes by size."""
        listed = self.client.call("audit", "checkpoints", log="quota", limit=1000)["checkpoints"]
        return {c["size"]: c["note"] for c in listed}

    def close(self) -> None:
        self.market.close()


def replayed(client: Any, keys: dict[str, str] | None = None) -> tuple[dict[str, Account], Findings, Proofs]:
    """What the auditor's ledger says of quota's log, and what it finds of the signatures."""
    findings = Findings()
    prices = Prices()
    proofs = Proofs(client, keys, findings, seed=1)
    LogReader(client, "audit", proofs.apply, findings).read_on()
    catalog = LogReader(client, "catalog", prices.apply, findings)
    catalog.read_on()
    readers: dict[str, LogReader] = {}
    ledger = Ledger(prices, findings, lambda *_: None, lambda p: readers["quota"].event_at(p)[1:])
    readers["quota"] = LogReader(client, "quota", ledger.apply, findings)
    for log in ("routing", "billing"):
        readers[log] = LogReader(client, log, lambda *_: None, findings)
    for reader in readers.values():
        reader.wanted.update(proofs.signed.get(reader.log, {}))
        reader.read_on()
        proofs.check(reader, reader.read_on, wait_s=0)
    ledger.finish()
    return ledger.accounts, findings, proofs


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}
