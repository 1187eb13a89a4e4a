"""Audit as an application of the event store: follows logs into trees, signs checkpoints, gives proofs.

It knows nothing of nameko, and nothing of what the events mean; the replay, which does, shares no code with it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from services.audit import trees
from services.audit.keys import key_of, load_key, load_next_key
from services.audit.room import Asked, Sealer, Signed, last_signed, shown, signed
from services.audit.schemas import SERVICES, CheckpointOf, Checkpoints, Consistency, Inclusion, ManyOf, TileOf
from services.audit.witnessed import with_cosignatures
from shared import telemetry
from shared.clock import Clock, system_clock
from shared.config import Settings
from shared.contracts.audit import Cosign, Refuse, Seal
from shared.contracts.base import Command
from shared.contracts.schema import parse
from shared.errors import AuditFailed, LimitExceeded, MalformedCommand, NotCaughtUp, SetupFailed, TokengridError
from shared.eventstore.application import RoomApplication
from shared.eventstore.projection import Projector
from shared.eventstore.writer import Writer
from shared.transparency import note
from shared.transparency.keys import COSIGNATURE, VerifierKey
from shared.transparency.merkle import consistency_proof, inclusion_proof
from shared.transparency.multiproof import multiproof
from shared.transparency.tiles import TILE_HEIGHT, TILE_WIDTH, Tile, tile_bytes

K = TypeVar("K", bound=Command)

PROVEN_MAX = 100_000  # events of one proof


class AuditApplication(RoomApplication):
    """The trees and checkpoints of all logs, in audit's own database."""

    def __init__(self, settings: Settings, clock: Clock = system_clock) -> None:
        super().__init__("audit", settings, clock)
        self._key, self._next = load_key(settings), load_next_key(settings)
        if self._next is not None and (self._next == self._key or self._next.name != self._key.name):
            raise SetupFailed("The next signing key must be another one, under the same name.")
        self.logs = logs(settings)
        self._refuse_other_key()
        self.projectors = {log: Projector(self.engine, trees.TreeProjection(log)) for log in self.logs}
        self._witnesses = [_witness(text) for text in settings.witness_keys]
        room = Sealer(self.engine, self._key, clock, self._witnesses, self._next)
        self.writer: Writer[Asked] = self.writer_for(room, self.log.head())

    # -- following ------------------------------------------------------------------------------
    def follow(self, log: str, page: Sequence[Mapping[str, Any]]) -> int:
        """Append a page of a log to its tree; the position then reached. An empty page only asks for it."""
        projector = self.projectors[log]
        return projector.apply(page) if page else projector.position()

    # -- sealing ----------------------------------------------------------------------------------
    def seal(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Sign a checkpoint of a log now, or give the one that its present size has."""
        return self._cosigned(self.writer.submit(self._of_a_log(parse(Seal, fields))))

    def seal_grown(self) -> list[str]:
        """Seal every log that has grown since its last checkpoint; which ones were. Raises the first refusal,
        after all were tried."""
        with self.engine.begin() as connection:
            sizes = trees.sizes(connection, self.logs)
            sealed = {log: _sealed(last_signed(connection, log)) for log in self.logs}
        for log in self.logs:
            lag = telemetry.gauge("tokengrid.sealing.lag", "{event}", "Events followed and not signed yet.")
            lag.set(sizes[log] - sealed[log], {"log": log})
        grown = [log for log in self.logs if sizes[log] > sealed[log]]
        answers = self.writer.execute([Seal(log=log, position=0) for log in grown]) if grown else []
        for answer in answers:
            if isinstance(answer, TokengridError):
                raise answer
        return grown

    # -- witnesses --------------------------------------------------------------------------------
    def cosign(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a witness's cosignature."""
        return self.writer.submit(self._of_a_log(parse(Cosign, fields)))

    def refuse(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a witness's refusal: an alarm."""
        return self.writer.submit(self._of_a_log(parse(Refuse, fields)))

    def _cosigned(self, answer: dict[str, Any], connection: Any = None) -> dict[str, Any]:
        """A checkpoint's answer with what witnesses have put under it."""
        if not answer["note"] or not self._witnesses:
            return answer
        if connection is None:
            with self.engine.begin() as own:
                return self._cosigned(answer, own)
        return answer | {"note": with_cosignatures(connection, answer["log"], answer["size"], answer["note"])}

    # -- questions ------------------------------------------------------------------------------
    def checkpoint(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(CheckpointOf, fields))
        with self.engine.begin() as connection:
            return self._cosigned(shown(self._key, query.log, last_signed(connection, query.log)), connection)

    def checkpoints(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(Checkpoints, fields))
        limit = min(max(query.limit, 1), self.settings.page_max)
        with self.engine.begin() as connection:
            found = signed(connection, query.log, query.after, limit + 1)
            pages = [self._cosigned(shown(self._key, query.log, each), connection) for each in found[:limit]]
        return {"checkpoints": pages, "more": len(found) > limit}

    def inclusion(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(Inclusion, fields))
        with self.engine.begin() as connection:
            size = self._size(connection, query.log, query.size)
            if not 1 <= query.position <= size:
                raise _malformed("position", f"must be from 1 to {size}")
            reader = trees.hashes(connection, query.log, size)
            leaf = reader(0, query.position - 1)
            proof = inclusion_proof(reader, query.position - 1, size)
        return {
            "log": query.log,
            "position": query.position,
            "size": size,
            "leaf_sha256": leaf.hex(),
            "proof": [node.hex() for node in proof],
        }

    def consistency(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(Consistency, fields))
        with self.engine.begin() as connection:
            second = self._size(connection, query.log, query.second)
            if not 1 <= query.first <= second:
                raise _malformed("first", f"must be from 1 to {second}")
            proof = consistency_proof(trees.hashes(connection, query.log, second), query.first, second)
        return {"log": query.log, "first": query.first, "second": second, "proof": [node.hex() for node in proof]}

    def multiproof(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(ManyOf, fields))
        if len(query.positions) > PROVEN_MAX:
            raise LimitExceeded(f"at most {PROVEN_MAX} positions at once", {"limit": PROVEN_MAX})
        with self.engine.begin() as connection:
            size = self._size(connection, query.log, query.size)
            leaves = [position - 1 for position in query.positions]
            proof = multiproof(trees.hashes_around(connection, query.log, size, leaves), leaves, size)
        return {"log": query.log, "size": size, "proof": base64.b64encode(proof).decode()}

    def tile(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        query = self._of_a_log(parse(TileOf, fields))
        tile = Tile.parse(query.path)
        if tile.level is None:
            raise _malformed("path", "events are in their service's log, not here")
        with self.engine.begin() as connection:
            # The last leaf below it must be there. Its hashes are those of every later size as well.
            needed = (tile.index * TILE_WIDTH + tile.width) << (TILE_HEIGHT * tile.level)
            content = tile_bytes(trees.hashes(connection, query.log, self._size(connection, query.log, needed)), tile)
        return {"log": query.log, "path": query.path, "hashes": base64.b64encode(content).decode()}

    def status(self) -> dict[str, Any]:
        with self.engine.begin() as connection:
            followed = trees.sizes(connection, self.logs)
            sealed = {log: _sealed(last_signed(connection, log)) for log in self.logs}
        return {
            "head": self.log.head(),
            "followed": followed,
            "sealed": sealed,
            "verifier_keys": {log: str(key_of(self._key, log).verifier) for log in self.logs},
        }

    def _of_a_log(self, query: K) -> K:
        if getattr(query, "log", None) not in self.logs:
            raise _malformed("log", f"must be one of {', '.join(self.logs)}")
        return query

    def _size(self, connection: Any, log: str, wanted: int | None) -> int:
        followed = trees.sizes(connection, [log])[log]
        if wanted is None:
            wanted = _sealed(last_signed(connection, log))
        if wanted > followed:
            raise NotCaughtUp(
                f"{log} is followed up to {followed}, not {wanted}",
                {"log": log, "position": followed, "head": wanted},
            )
        return wanted

    def _refuse_other_key(self) -> None:
        """Checkpoints of one log under two keys could contradict each other unseen."""
        with self.engine.begin() as connection:
            for log in self.logs:
                last = last_signed(connection, log)
                if last is None:
                    continue
                try:
                    note.verify(note.Note.parse(last.event.note), [key_of(self._key, log).verifier])
                except AuditFailed as error:
                    raise SetupFailed(
                        f"The signing key is not the one that signed the last checkpoint of {log} ({error}): "
                        "restore that key."
                    ) from None


def _witness(text: str) -> VerifierKey:
    try:
        key = VerifierKey.parse(text)
    except MalformedCommand as error:
        raise SetupFailed(f"TOKENGRID_WITNESS_KEYS: {error}") from None
    if key.kind != COSIGNATURE:
        raise SetupFailed(f"TOKENGRID_WITNESS_KEYS: {key.name} is not a witness's key.")
    return key


def logs(settings: Settings) -> tuple[str, ...]:
    """All logs that are followed and sealed: one for each service, and for each shard of quota."""
    return tuple(log for service in SERVICES for log in settings.logs(service))


def _sealed(last: Signed | None) -> int:
    return last.event.size if last else 0


def _malformed(field: str, complaint: str) -> MalformedCommand:
    return MalformedCommand(f"{field} {complaint}", {"fields": {field: [complaint]}})
