"""`ArchiveSource`: an archive that answers as the services do, so that the replay reads it without knowing.

It has the logs (`head`, `events`) and what audit signed of them (`status`, `checkpoint`, `seal`, `inclusion`,
`consistency`). It has no read models: what the services say of balances and bills is no part of an archive.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.archive import manifest as m
from shared.archive.reading import Group, LogArchive
from shared.errors import MalformedCommand, NotCaughtUp
from shared.transparency.merkle import SIZE_MAX, consistency_proof, inclusion_proof

PAGE_MAX = 5000  # events of an answer


class ArchiveSource:
    """The logs of an archive. Raises SetupFailed where there is none, AuditFailed for one that was changed."""

    def __init__(self, folder: Path, page_max: int = PAGE_MAX) -> None:
        self.folder = folder
        self.logs = {log: LogArchive.open(folder, log) for log in m.logs_of(folder)}
        self._page_max = page_max
        self._methods: dict[str, Callable[..., Any]] = {
            "status": self._status, "checkpoint": self._checkpoint, "seal": self._seal,
            "inclusion": self._inclusion, "consistency": self._consistency,
        }  # fmt: skip

    def call(self, service: str, method: str, /, **asked: Any) -> Any:
        """A method's answer, as the service would give it. Raises MalformedCommand for what is not in an archive."""
        try:
            if method == "head":
                return self._head(service, **asked)
            if method == "events":
                return self._events(service, **asked)
            if service == "audit" and method in self._methods:
                return self._methods[method](**asked)
        except TypeError as error:  # arguments that the method has not
            raise MalformedCommand(f"{service}.{method}: {error}") from None
        raise MalformedCommand(f"{service}.{method} cannot be answered from an archive.")

    def columns(self, service: str, after: int, limit: int, shard: int = 0) -> Group:
        """Events behind a position by columns, at most `limit` and of one row group, as a replay takes them in. Raises
        MalformedCommand where there are none."""
        log = self._log_of(service, shard)
        _bound("after", after, 0, log.manifest.size - 1)
        return log.section(after, limit)

    # -- as every service with a log -------------------------------------------------------------------
    def shards(self, service: str) -> list[LogArchive]:
        """The logs of a service, by shard."""
        found = sorted(
            (log for log in self.logs.values() if log.manifest.service == service), key=lambda log: log.manifest.shard
        )
        if [log.manifest.shard for log in found] != list(range(len(found))) or not found:
            raise MalformedCommand(f"The archive in {self.folder} has not all logs of {service}.")
        return found

    def _head(self, service: str, shard: int = 0) -> int:
        return self._log_of(service, shard).manifest.size

    def _events(self, service: str, after: int = 0, limit: int = 1000, shard: int = 0) -> dict[str, Any]:
        log = self._log_of(service, shard)
        _bound("after", after, 0, SIZE_MAX)
        _bound("limit", limit, 1, self._page_max)
        return {"log": log.manifest.log, "head": log.manifest.size, "events": log.page(after, limit)}

    def _log_of(self, service: str, shard: int) -> LogArchive:
        shards = self.shards(service)
        _bound("shard", shard, 0, len(shards) - 1)
        return shards[shard]

    # -- as audit -------------------------------------------------------------------------------------
    def _status(self) -> dict[str, Any]:
        signed = {name: log.manifest for name, log in self.logs.items() if log.manifest.note}
        sizes = {name: manifest.size for name, manifest in signed.items()}
        keys = {name: manifest.verifier_key for name, manifest in signed.items()}
        audit = self.logs.get("audit")
        head = audit.manifest.size if audit else 0
        return {"head": head, "followed": sizes, "sealed": sizes, "verifier_keys": keys}

    def _checkpoint(self, log: str) -> dict[str, Any]:
        found = self._signed(log).manifest
        return {
            "log": log, "size": found.size, "root_sha256": found.root_sha256, "note": found.note,
            "verifier_key": found.verifier_key, "at": None, "version": 0,
        }  # fmt: skip

    def _seal(self, log: str, position: int) -> dict[str, Any]:
        """The checkpoint that the archive has: nothing is signed here."""
        size = self._signed(log).manifest.size
        _bound("position", position, 0, SIZE_MAX)
        if position > size:
            details = {"log": log, "position": size, "head": position}
            raise NotCaughtUp(f"{log} is archived up to {size}, not {position}", details)
        return self._checkpoint(log)

    def _inclusion(self, log: str, position: int, size: int | None = None) -> dict[str, Any]:
        archive, size = self._sized(log, size)
        _bound("position", position, 1, size)
        hashes = archive.hashes(size)
        proof = inclusion_proof(hashes, position - 1, size)
        return {
            "log": log, "position": position, "size": size,
            "leaf_sha256": hashes(0, position - 1).hex(), "proof": [node.hex() for node in proof],
        }  # fmt: skip

    def _consistency(self, log: str, first: int, second: int | None = None) -> dict[str, Any]:
        archive, second = self._sized(log, second)
        _bound("first", first, 1, second)
        proof = consistency_proof(archive.hashes(second), first, second)
        return {"log": log, "first": first, "second": second, "proof": [node.hex() for node in proof]}

    def _sized(self, log: str, size: int | None) -> tuple[LogArchive, int]:
        archive = self._signed(log)
        head = archive.manifest.size
        size = head if size is None else size
        _bound("size", size, 0, SIZE_MAX)
        if size > head:
            raise NotCaughtUp(
                f"{log} is archived up to {head}, not {size}", {"log": log, "position": head, "head": size}
            )
        return archive, size

    def _signed(self, log: str) -> LogArchive:
        found = self.logs.get(log) if isinstance(log, str) else None
        if found is None or not found.manifest.note:
            raise MalformedCommand("The archive has no signed log of this name.", {"fields": {"log": ["unknown"]}})
        return found


def _bound(name: str, value: object, least: int, most: int) -> None:
    complaint = ""
    if not isinstance(value, int) or isinstance(value, bool):
        complaint = "Not a valid integer."
    elif not least <= value <= most:
        complaint = f"Must be from {least} to {most}."
    if complaint:
        raise MalformedCommand("This is nothing an archive can answer.", {"fields": {name: [complaint]}})
