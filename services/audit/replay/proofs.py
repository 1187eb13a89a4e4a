"""Checkpoints and proofs: whether a log is the one that was signed, whole and unchanged.

Every checkpoint that was ever signed is compared with the root that the replay computes at its size; the log's
present head is sealed and compared; samples of the proofs that others rely on are asked for and verified.
Where no services answer, what was signed is all there is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from services.audit.replay.findings import Findings
from services.audit.replay.locate import locate
from services.audit.replay.prices import Raw
from services.audit.replay.reader import Caller, LogReader
from shared.errors import AuditFailed, MalformedCommand, NotCaughtUp
from shared.transparency.checkpoint import Checkpoint, open_checkpoint, verify_extends
from shared.transparency.keys import VerifierKey
from shared.transparency.merkle import verify_inclusion
from shared.transparency.note import Note
from shared.transparency.rotation import open_rotation

SAMPLES = 3  # inclusion proofs of each log
PAUSE_S = 0.05


class Proofs:
    """The checkpoints of all logs, from audit's own log, and what they prove."""

    def __init__(
        self, client: Caller, keys: Mapping[str, str] | None, findings: Findings, seed: int, asks: bool = True
    ) -> None:
        """`keys`: the verifier key of each log, if the auditor has them from elsewhere; the service's own otherwise.
        `asks`: whether there are services; without them, and without a key, signatures cannot be verified."""
        self.signed: dict[str, dict[int, tuple[bytes, int]]] = {}  # log -> size -> root, position in audit's log
        self.verified: dict[str, dict[str, Any]] = {}
        self._notes: dict[str, tuple[int, str]] = {}  # of each log: size and text of the largest checkpoint
        self._client = client
        self._findings = findings
        self._seed = seed
        self._asks = asks
        self.not_asked: list[str] = []
        if keys is None:
            keys = self._service_keys() if asks else {}
        self._keys = {log: self._parsed(log, text) for log, text in keys.items()}
        self._others: dict[str, list[VerifierKey]] = {}  # by log: the keys before and behind a trusted one
        self._waiting: dict[str, list[tuple[int, Raw]]] = {}  # checkpoints under a key that is not trusted yet

    @property
    def keys(self) -> Mapping[str, VerifierKey | None]:
        """The key that is trusted of each log."""
        return self._keys

    @property
    def logs(self) -> list[str]:
        """The logs for which there is a key."""
        return list(self._keys)

    def _service_keys(self) -> Mapping[str, str]:
        keys: Mapping[str, str] = self._client.call("audit", "status")["verifier_keys"]
        return keys

    def _parsed(self, log: str, text: str) -> VerifierKey | None:
        try:
            return VerifierKey.parse(text)
        except MalformedCommand as error:
            self._wrong("verifier key is none", log, 0, "a verifier key", error)
            return None

    # -- what was signed ----------------------------------------------------------------------------
    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:
        """Fold one event of audit's log: verify the note, keep size and root."""
        if topic == "audit.KeyAnnounced:1":
            self._rotated(position, event)
            return
        if topic in ("audit.CheckpointWitnessed:1", "audit.CheckpointRefused:1"):
            self._said(position, topic, event)
            return
        if topic != "audit.CheckpointSigned:1" or event["log"] != stream:
            self._wrong("unknown kind of event", "audit", position, "audit.CheckpointSigned:1", topic)
            return
        if not self._is_by_trusted(stream, event["note"]):
            self._waiting.setdefault(stream, []).append((position, event))
            return
        self._signed(position, stream, event)

    def _signed(self, position: int, stream: str, event: Raw) -> None:
        checkpoint = self._opened(stream, event["note"], "audit", position)
        if checkpoint is None:
            return
        if (checkpoint.size, checkpoint.root.hex()) != (event["size"], event["root_sha256"]):
            self._wrong("checkpoint is not what its event says", "audit", position, event["size"], checkpoint.size)
        of_log = self.signed.setdefault(stream, {})
        self._notes[stream] = max(self._notes.get(stream, (0, "")), (checkpoint.size, event["note"]))
        known = of_log.setdefault(checkpoint.size, (checkpoint.root, position))
        if known[0] != checkpoint.root:
            self._wrong("two roots were signed for one size", "audit", position, known[0].hex(), checkpoint.root.hex())

    def _rotated(self, position: int, event: Raw) -> None:
        """Whoever trusts one of the two keys that have signed it trusts the other, too."""
        log = event["log"]
        try:
            rotation = open_rotation(event["note"])
        except AuditFailed as error:
            self._wrong("rotation of keys does not verify", "audit", position, "two signatures", error)
            return
        trusted = {self._keys.get(log), *self._others.get(log, ())}
        if not {rotation.old, rotation.new} & trusted:
            self._wrong("rotation between keys that nobody trusts", "audit", position, "a trusted key", rotation.new)
            return
        self._others.setdefault(log, []).extend(key for key in (rotation.old, rotation.new) if key not in trusted)
        for waiting in self._waiting.pop(log, []):
            self._signed(waiting[0], log, waiting[1])

    def _is_by_trusted(self, log: str, note: str) -> bool:
        """Whether a trusted key is named under it; if not, one may come to be. Without any, nobody is waited for."""
        if log not in self._keys and not self._asks:
            return True
        names = {f"{key.name} {key.id.hex()}" for key in (self._keys.get(log), *self._others.get(log, ())) if key}
        try:
            return any(f"{s.name} {s.key_id.hex()}" in names for s in Note.parse(note).signatures)
        except AuditFailed:
            return True  # and will be refused for it

    def _said(self, position: int, topic: str, event: Raw) -> None:
        """A witness's word: a refusal is an alarm, a cosignature must be of what was signed."""
        log = event["log"]
        if topic == "audit.CheckpointRefused:1":
            self._wrong(f"a witness refused a checkpoint: {event['kind']}", "audit", position, "none", event["witness"])
        elif event["size"] not in self.signed.get(log, {}):
            self._wrong(
                "cosignature of what was not signed", "audit", position, "a checkpoint", f"{log}@{event['size']}"
            )

    def _opened(self, log: str, note: str, where: str, position: int) -> Checkpoint | None:
        key = self._keys.get(log)
        if key is None and not self._asks and log not in self._keys:
            return self._unproven(log, note, where, position)
        if key is None:
            self._wrong("no verifier key for the log", where, position, "a key", log)
            return None
        complaint: AuditFailed | None = None
        for each in (key, *self._others.get(log, ())):
            try:
                return open_checkpoint(note, each).checkpoint
            except AuditFailed as error:
                complaint = complaint or error
        self._wrong("checkpoint does not verify", where, position, str(key), complaint)
        return None

    def _unproven(self, log: str, text: str, where: str, position: int) -> Checkpoint | None:
        """A checkpoint whose signature nobody can verify here."""
        try:
            return Checkpoint.parse(Note.parse(text).text)
        except AuditFailed as error:
            self._wrong("checkpoint cannot be read", where, position, log, error)
            return None

    # -- what it says of a log ------------------------------------------------------------------------
    def check(self, reader: LogReader, read_on: Callable[[int], int], wait_s: float) -> None:
        """Compare a log that was read with all that was signed of it; seal its head and verify samples.

        `read_on` reads the log up to a position, `wait_s` is how long audit may take to follow it.
        """
        log = reader.log
        for position, event in self._waiting.pop(log, []):
            self._signed(position, log, event)
        as_signed = self._check_signed(reader)
        if not self._asks:
            self._check_last(reader)
            return
        answered = self._sealed(log, reader.position, wait_s)
        if answered is None:
            return
        sealed, note = answered
        reader.wanted.add(sealed.size)
        if sealed.size == reader.position:
            reader.roots[sealed.size] = reader.tree.root()
        else:
            read_on(sealed.size)
        root = reader.roots.get(sealed.size)
        if root is None:
            self._wrong("log is shorter than its checkpoint", log, reader.position, sealed.size, reader.position)
            return
        if root != sealed.root:
            self._wrong("root is not the signed one", log, sealed.size, sealed.root.hex(), root.hex())
            if as_signed:
                last = max((size for size in self.signed.get(log, {}) if size < sealed.size), default=0)
                locate(self._client, reader, self._findings, last, sealed.size, sealed.root)
        self.verified[log] = {
            "size": sealed.size,
            "root_sha256": sealed.root.hex(),
            "verifier_key": str(self._keys[log]),
            "note": note,
        }
        self._check_samples(reader, sealed)

    def _check_signed(self, reader: LogReader) -> bool:
        """Whether nothing that was signed is another."""
        agreed, of_log = 0, self.signed.get(reader.log, {})
        for size, (signed, position) in sorted(of_log.items()):
            computed = reader.roots.get(size)
            if computed is None:
                self._wrong("log is shorter than its checkpoint", reader.log, reader.position, size, reader.position)
            elif computed != signed:
                where = f"checkpoint at {position} of audit's log: {signed.hex()}"
                self._wrong("log is not the one that was signed", reader.log, size, where, computed.hex())
                last = max(of_log)
                if self._asks:
                    locate(self._client, reader, self._findings, agreed, last, of_log[last][0])
                return False  # every later root differs as well
            else:
                agreed = size
        return True

    def _check_last(self, reader: LogReader) -> None:
        """What the last checkpoint covers; what stands behind it is told."""
        log, of_log = reader.log, self.signed.get(reader.log, {})
        size = max(of_log, default=0)
        key = self._keys.get(log)
        if size:
            self.verified[log] = {
                "size": size,
                "root_sha256": of_log[size][0].hex(),
                "verifier_key": str(key) if key else "",
                "note": self._notes[log][1],
            }
            if key is None:
                self.not_asked.append(f"signatures of {log}: no verifier key was given, its checkpoints are unproven")
        if reader.position > size:
            self.not_asked.append(f"signature over {log} from {size + 1:,} to {reader.position:,}: no checkpoint yet")

    def _sealed(self, log: str, position: int, wait_s: float) -> tuple[Checkpoint, str] | None:
        """The checkpoint of the log's head, and its note."""
        until = time.monotonic() + wait_s
        while True:
            try:
                answer = self._client.call("audit", "seal", log=log, position=position)
                break
            except NotCaughtUp as refusal:
                if time.monotonic() > until:
                    self._wrong("audit does not follow the log", log, position, position, refusal)
                    return None
                time.sleep(PAUSE_S)
            except AuditFailed as refusal:
                self._wrong("audit refuses to sign the log", log, position, "a checkpoint", refusal)
                return None
        checkpoint = self._opened(log, answer["note"], log, position)
        if checkpoint is not None and checkpoint.size < position:
            self._wrong("checkpoint is of an earlier head", log, position, position, checkpoint.size)
            return None
        return None if checkpoint is None else (checkpoint, answer["note"])

    def _check_samples(self, reader: LogReader, sealed: Checkpoint) -> None:
        log, size = reader.log, sealed.size
        if size == 0:
            return
        # Chosen after the root was given away, and again the same for the same log.
        choice = random.Random(f"{self._seed}/{log}/{sealed.root.hex()}")
        for position in sorted(choice.sample(range(1, size + 1), min(SAMPLES, size))):
            leaf, _, _ = reader.event_at(position)
            try:
                answer = self._client.call("audit", "inclusion", log=log, position=position, size=size)
                proof = [bytes.fromhex(node) for node in answer["proof"]]
                verify_inclusion(leaf, position - 1, size, proof, sealed.root)
            except (AuditFailed, MalformedCommand, ValueError) as error:
                self._wrong("event is not proved to be in the log", log, position, "a proof", error)
        earlier = [size_ for size_ in self.signed.get(log, {}) if 0 < size_ < size]
        if not earlier:
            return
        first = choice.choice(sorted(earlier))
        try:
            answer = self._client.call("audit", "consistency", log=log, first=first, second=size)
            proof = [bytes.fromhex(node) for node in answer["proof"]]
            verify_extends(Checkpoint(sealed.origin, first, self.signed[log][first][0]), sealed, proof)
        except (AuditFailed, MalformedCommand, ValueError) as error:
            self._wrong("log is not proved to extend its past", log, first, f"a proof from {first} to {size}", error)

    def _wrong(self, what: str, log: str, position: int, expected: Any, found: Any) -> None:
        self._findings.add("log", what, log, position, "", expected, found)
