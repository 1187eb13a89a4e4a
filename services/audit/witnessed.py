"""What witnesses say, as it is kept in audit's log: cosignatures of checkpoints that were signed, and refusals.

It takes only what a witness that is known has signed. Decisions are pure; what they rest on is read by the room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.audit.stored import log_rows
from shared.contracts.audit import CheckpointRefused, CheckpointSigned, CheckpointWitnessed, Cosign, Refuse
from shared.contracts.base import decode_event
from shared.errors import AuditFailed, MalformedCommand
from shared.eventstore.log import NewEvent
from shared.transparency.checkpoint import Checkpoint
from shared.transparency.keys import COSIGNATURE, VerifierKey
from shared.transparency.note import Note, verify
from shared.transparency.refusal import open_refusal

_c = log_rows.c
Witnesses = Sequence[VerifierKey]


def stream_of(command: Cosign | Refuse) -> str:
    """Where what it says is kept."""
    return f"{'witnessed' if isinstance(command, Cosign) else 'refused'}:{command.log}"


def key_of(command: Cosign | Refuse) -> str:
    """What was said is kept once."""
    digest = hashlib.sha256(command.note.encode()).hexdigest()
    at = f"@{size_in(command)}" if isinstance(command, Cosign) else ""
    return f"{stream_of(command)}{at}#{digest}"


def kept(connection: sa.Connection, key: str) -> CheckpointWitnessed | CheckpointRefused | None:
    """What was kept under a key."""
    row = connection.execute(sa.select(_c.topic, _c.state).where(_c.request_key == key)).one_or_none()
    event = None if row is None else decode_event(row.topic, bytes(row.state))
    assert event is None or isinstance(event, CheckpointWitnessed | CheckpointRefused)
    return event


def said(event: CheckpointWitnessed | CheckpointRefused, replayed: bool) -> dict[str, Any]:
    """The answer to whoever said it."""
    kind = event.kind if isinstance(event, CheckpointRefused) else "cosigned"
    return {"log": event.log, "kind": kind, "size": event.size, "witness": event.witness, "replayed": replayed}


def last_version(connection: sa.Connection, stream: str) -> int:
    found = connection.execute(sa.select(sa.func.max(_c.originator_version)).where(_c.originator_id == stream)).scalar()
    return int(found or 0)


def signed_at(connection: sa.Connection, log: str, size: int) -> CheckpointSigned | None:
    """The checkpoint that was signed of a log at a size."""
    asked = sa.select(_c.topic, _c.state).where(_c.request_key == f"{log}@{size}", _c.originator_id == log)
    row = connection.execute(asked).one_or_none()
    if row is None:
        return None
    event = decode_event(row.topic, bytes(row.state))
    assert isinstance(event, CheckpointSigned), "a log's stream has nothing else"
    return event


def with_cosignatures(connection: sa.Connection, log: str, size: int, note: str) -> str:
    """A checkpoint's note with the cosignatures that were kept of it."""
    asked = sa.select(_c.topic, _c.state).where(
        _c.originator_id == f"witnessed:{log}",
        _c.request_key.startswith(f"witnessed:{log}@{size}#", autoescape=True),
    )
    signed = Note.parse(note)
    latest = {}  # of each witness
    for row in connection.execute(asked.order_by(_c.originator_version)):
        event = decode_event(row.topic, bytes(row.state))
        assert isinstance(event, CheckpointWitnessed)
        latest[event.witness] = Note.parse(event.note).signatures
    return str(Note(signed.text, (*signed.signatures, *(each for of in latest.values() for each in of))))


def size_in(command: Cosign) -> int:
    """Of the checkpoint that is cosigned. Raises MalformedCommand."""
    try:
        return Checkpoint.parse(Note.parse(command.note).text).size
    except AuditFailed as error:
        raise MalformedCommand(f"note: {error}", {"fields": {"note": [str(error)]}}) from None


def cosigned(
    command: Cosign, signed: CheckpointSigned | None, witnesses: Witnesses, version: int, now: datetime
) -> NewEvent:
    """`signed`: what audit has signed at that size. Raises AuditFailed for another, or if no witness cosigned it."""
    note = Note.parse(command.note)
    size = size_in(command)
    if signed is None or Note.parse(signed.note).text != note.text:
        raise AuditFailed(f"no such checkpoint of {command.log} was signed here", {"log": command.log, "size": size})
    by, signature = next(iter(verify(note, _of_witnesses(witnesses)).items()))
    alone = str(Note(note.text, (signature,)))
    event = CheckpointWitnessed(at=now, recorded_at=now, log=command.log, size=size, witness=str(by), note=alone)
    return NewEvent(stream_of(command), version, event, key_of(command))


def refused(command: Refuse, origin: str, witnesses: Witnesses, version: int, now: datetime) -> NewEvent:
    """`origin`: under which the log is signed here. Raises AuditFailed for a statement that no witness has signed, or
    that is about another log."""
    statement, by = open_refusal(command.note, _of_witnesses(witnesses))
    if statement.known.origin != origin:
        raise AuditFailed(f"the refusal is of {statement.known.origin}, not of {origin}")
    event = CheckpointRefused(
        at=now,
        recorded_at=now,
        log=command.log,
        kind=statement.kind,
        size=statement.refused.size,
        witnessed_size=statement.known.size,
        witness=str(by),
        note=command.note,
    )
    return NewEvent(stream_of(command), version, event, key_of(command))


def _of_witnesses(witnesses: Witnesses) -> list[VerifierKey]:
    found = [key for key in witnesses if key.kind == COSIGNATURE]
    if not found:
        raise AuditFailed("no witness is known here: add its verifier key to TOKENGRID_WITNESS_KEYS")
    return found
