"""The writer's room: decides whether a checkpoint is signed. One for a size, none that contradicts an earlier. And
keeps what witnesses say of them (`witnessed`).

The tree's head and the last checkpoint are read in one snapshot before the decision; the decision itself
does no I/O. The key is used here and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa

from services.audit import trees, witnessed
from services.audit.keys import key_of
from services.audit.stored import log_rows
from shared.clock import Clock
from shared.contracts.audit import (
    CheckpointRefused,
    CheckpointSigned,
    CheckpointWitnessed,
    Cosign,
    KeyAnnounced,
    Refuse,
    Seal,
)
from shared.contracts.base import Event, decode_event
from shared.errors import AuditFailed, MalformedCommand, NotCaughtUp
from shared.eventstore.batch import Stored
from shared.eventstore.log import NewEvent
from shared.transparency.checkpoint import Checkpoint, sign_checkpoint
from shared.transparency.keys import SigningKey, VerifierKey
from shared.transparency.merkle import EMPTY_ROOT, root_at
from shared.transparency.rotation import sign_rotation


class Signed(msgspec.Struct, frozen=True):
    """A checkpoint and its version in the log's stream."""

    version: int
    event: CheckpointSigned


@dataclass
class Head:
    """A log's tree as followed, and what was signed of it last. `root_then`: our root at that size."""

    size: int
    root: bytes
    last: Signed | None
    root_then: bytes
    announced: int | None = None  # version of the last event of the log's keys; None: the next key was announced


def signed(connection: sa.Connection, log: str, after: int, limit: int) -> list[Signed]:
    """A log's checkpoints with versions above `after`, oldest first, at most `limit`."""
    return _signed(connection, log, limit, log_rows.c.originator_version > after, log_rows.c.originator_version)


def last_signed(connection: sa.Connection, log: str) -> Signed | None:
    """The latest checkpoint of a log; none while nothing is sealed."""
    found = _signed(connection, log, 1, sa.true(), log_rows.c.originator_version.desc())
    return found[0] if found else None


def _signed(connection: sa.Connection, log: str, limit: int, condition: Any, order: Any) -> list[Signed]:
    rows = connection.execute(
        sa.select(log_rows).where(log_rows.c.originator_id == log, condition).order_by(order).limit(limit)
    )
    return [Signed(row.originator_version, _checkpoint(row.topic, bytes(row.state))) for row in rows]


def _checkpoint(topic: str, state: bytes) -> CheckpointSigned:
    event = decode_event(topic, state)
    assert isinstance(event, CheckpointSigned), "a log's stream has nothing else"
    return event


Asked = Seal | Cosign | Refuse
REMEMBERED_MAX = 10_000


class Sealer:
    """Room of `Writer`: one stream a log, one event a checkpoint; beside it what witnesses said."""

    def __init__(
        self,
        engine: sa.Engine,
        key: SigningKey,
        clock: Clock,
        witnesses: Sequence[VerifierKey] = (),
        next_key: SigningKey | None = None,
    ) -> None:
        """`next_key`: that is to take the place of `key`, and signs beside it until then."""
        self._engine = engine
        self._key = key
        self._next = next_key
        self._clock = clock
        self._witnesses = witnesses
        self._heads: dict[str, Head] = {}
        self._versions: dict[str, int] = {}  # of the streams of what witnesses said
        self._signed: dict[tuple[str, int], CheckpointSigned | None] = {}  # what they may have cosigned
        self._kept: dict[Cosign | Refuse, CheckpointWitnessed | CheckpointRefused | None] = {}  # what they said before

    def prepare(self, commands: Sequence[Asked]) -> None:
        logs = list(dict.fromkeys(command.log for command in commands if isinstance(command, Seal)))
        with self._engine.begin() as connection:
            for command in commands:
                if not isinstance(command, Seal):
                    self._prepare_said(connection, command)
            sizes = trees.sizes(connection, logs)
            for log in logs:
                last = last_signed(connection, log)
                # After a restore from a backup the last checkpoint may be ahead of the tree.
                size, then = sizes[log], last.event.size if last else 0
                reader = trees.hashes(connection, log, size)
                root_then = root_at(reader, then) if then <= size else b""
                announced = self._announced(connection, log)
                self._heads[log] = Head(size, root_at(reader, size), last, root_then, announced)

    def _announced(self, connection: sa.Connection, log: str) -> int | None:
        if self._next is None:
            return None
        wanted = str(key_of(self._next, log).verifier)
        rows = connection.execute(sa.select(log_rows).where(log_rows.c.originator_id == f"keys:{log}")).all()
        found = [decode_event(row.topic, bytes(row.state)) for row in rows]
        return None if any(isinstance(e, KeyAnnounced) and e.new_key == wanted for e in found) else len(rows)

    def _prepare_said(self, connection: sa.Connection, command: Cosign | Refuse) -> None:
        if len(self._kept) + len(self._signed) > REMEMBERED_MAX:  # of what was refused
            self._kept.clear()
            self._signed.clear()
        stream = witnessed.stream_of(command)
        self._versions[stream] = witnessed.last_version(connection, stream)
        with contextlib.suppress(MalformedCommand):  # to be refused when it is decided
            self._kept[command] = witnessed.kept(connection, witnessed.key_of(command))
            if isinstance(command, Cosign):
                size = witnessed.size_in(command)
                self._signed[command.log, size] = witnessed.signed_at(connection, command.log, size)

    def key(self, command: Asked) -> str | None:  # noqa: ARG002
        return None  # the events bring theirs: one checkpoint for a log and size, whoever asks

    def decide(self, command: Asked, fingerprint: str) -> list[NewEvent]:  # noqa: ARG002
        if isinstance(command, Seal):
            return self._sealed(command)
        if self._kept.get(command) is not None:
            return []
        version = self._versions[witnessed.stream_of(command)] + 1
        if isinstance(command, Cosign):
            signed = self._signed.get((command.log, witnessed.size_in(command)))
            return [witnessed.cosigned(command, signed, self._witnesses, version, self._clock())]
        origin = key_of(self._key, command.log).name
        return [witnessed.refused(command, origin, self._witnesses, version, self._clock())]

    def _sealed(self, command: Seal) -> list[NewEvent]:
        log, head = command.log, self._heads[command.log]
        if head.size < command.position:
            raise NotCaughtUp(
                f"{log} is followed up to {head.size}, not {command.position}",
                {"log": log, "position": head.size, "head": command.position},
            )
        if head.last is not None:
            last = head.last.event
            if last.size > head.size:
                raise NotCaughtUp(
                    f"{log} is followed up to {head.size}, and was signed up to {last.size}",
                    {"log": log, "position": head.size, "head": last.size},
                )
            if last.root_sha256 != head.root_then.hex():
                raise AuditFailed(
                    f"the tree of {log} is not the one that was signed at size {last.size}",
                    {"log": log, "size": last.size, "signed": last.root_sha256, "computed": head.root_then.hex()},
                )
            if last.size == head.size:
                return []
        key, now, events = key_of(self._key, log), self._clock(), []
        keys = [key] if self._next is None else [key, key_of(self._next, log)]
        if head.announced is not None:
            old, new = (each.verifier for each in keys)
            said = str(sign_rotation(*keys))
            about = KeyAnnounced(at=now, recorded_at=now, log=log, old_key=str(old), new_key=str(new), note=said)
            events.append(NewEvent(f"keys:{log}", head.announced + 1, about, f"key:{log}/{new}"))
        note = sign_checkpoint(Checkpoint(key.name, head.size, head.root), *keys)
        event = CheckpointSigned(
            at=now, recorded_at=now, log=log, size=head.size, root_sha256=head.root.hex(), note=str(note)
        )
        return [*events, NewEvent(log, (head.last.version if head.last else 0) + 1, event, f"{log}@{head.size}")]

    def evolve(self, stream: str, version: int, event: Event) -> None:
        if stream in self._versions:
            self._versions[stream] = version
        if isinstance(event, KeyAnnounced) and event.log in self._heads:
            self._heads[event.log].announced = None
        head = self._heads.get(stream)
        if head is not None and isinstance(event, CheckpointSigned):
            head.last = Signed(version, event)
            head.root_then = head.root if event.size == head.size else b""

    def forget(self, streams: set[str]) -> None:
        for stream in streams:
            self._heads.pop(stream.removeprefix("keys:"), None)
            self._versions.pop(stream, None)

    def answer(self, command: Asked, events: Sequence[Stored], replayed: bool) -> dict[str, Any]:  # noqa: ARG002
        if not isinstance(command, Seal):
            new = None if not events or not isinstance(events[0], NewEvent) else events[0].event
            event = self._kept.pop(command, None) or new
            assert isinstance(event, CheckpointWitnessed | CheckpointRefused)
            return witnessed.said(event, new is None)
        last = self._heads[command.log].last
        assert last is not None, "a log that was sealed has a checkpoint"
        return shown(self._key, command.log, last)


def shown(key: SigningKey, log: str, found: Signed | None) -> dict[str, Any]:
    """A checkpoint as it is answered."""
    answer: dict[str, Any] = {"log": log, "verifier_key": str(key_of(key, log).verifier)}
    if found is None:
        return answer | {"size": 0, "root_sha256": EMPTY_ROOT.hex(), "note": "", "at": None, "version": 0}
    event = found.event
    return answer | {
        "size": event.size,
        "root_sha256": event.root_sha256,
        "note": event.note,
        "at": event.at.isoformat(),
        "version": found.version,
    }
