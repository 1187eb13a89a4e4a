"""Judges evidence: with public keys and nothing else, on any machine.

First that every event is below a signature of its log's key, and that no stream has a gap; then the bill is computed
again from the events, by the arithmetic of the replay, and the account's ledger with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from services.audit.evidence.package import Event, Evidence, Proven
from services.audit.replay.account import Account
from services.audit.replay.billed import Billed
from services.audit.replay.charges import Carries
from services.audit.replay.findings import Difference, Findings
from services.audit.replay.kinds import content_of
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from services.audit.replay.recomputed import Again, Numbered, Recomputed
from services.audit.replay.subscriptions import Subscriptions
from services.audit.replay.usage import Metered
from shared.errors import AuditFailed
from shared.transparency.checkpoint import Checkpoint, Opened, open_checkpoint
from shared.transparency.keys import VerifierKey
from shared.transparency.leaf import hasher
from shared.transparency.multiproof import verify_multiproof
from shared.transparency.note import Note

# Of one account's events alone these cannot be said.
BEYOND = ("bill numbers have a gap",)


class Signed(NamedTuple):
    """The head under which a log's events were proven."""

    log: str
    checkpoint: Checkpoint
    key: VerifierKey
    witnessed_s: Mapping[VerifierKey, int]


class Verdict(NamedTuple):
    """What was proven. `bill` as issued; `void`, `paid_fen`, `credited_fen`: what became of it as far as the evidence
    goes; `leaves`: hash of each event by log and position; `differences`: what does not agree, none if it is honest.
    `computed`: the bill computed again, None if it was void before; `carries`: which debits it has."""

    bill: dict[str, Any]
    bill_sha256: str
    void: bool
    paid_fen: int
    credited_fen: int
    signed: tuple[Signed, ...]
    leaves: Mapping[str, Mapping[int, bytes]]
    differences: tuple[Difference, ...]
    numbered: Numbered
    computed: Again | None
    carries: Carries
    prices: Prices

    @property
    def ok(self) -> bool:
        return not self.differences


def verify(
    evidence: Evidence,
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey] = (),
    witnesses_min: int = 0,
) -> Verdict:
    """What the evidence proves to whoever trusts `keys`, one for each log (more are ignored), and at least
    `witnesses_min` of `witnesses`. Raises AuditFailed where it proves nothing."""
    leaves = {proven.log: _leaves(proven) for proven in evidence.logs}
    signed = tuple(_signed(proven, leaves[proven.log], keys, witnesses, witnesses_min) for proven in evidence.logs)
    for proven in evidence.logs:
        _check_streams(proven)
    try:
        return _judged(evidence, signed, leaves)
    except (LookupError, TypeError, ValueError, AttributeError, msgspec.DecodeError) as error:
        raise AuditFailed(f"signed, but not what a bill can be computed from: {error!r}") from None


# -- that it is in the logs ---------------------------------------------------------------------
def _leaves(proven: Proven) -> dict[int, bytes]:
    if not proven.events or any(one.position >= other.position for one, other in pairwise(proven.events)):
        raise AuditFailed(f"events of {proven.log} are none, or not in order")
    try:
        leaf_hash = hasher(proven.log)
        return {
            e.position: leaf_hash(e.position, e.stream, e.version, e.topic, e.state.encode()) for e in proven.events
        }
    except UnicodeEncodeError:
        raise AuditFailed(f"an event of {proven.log} is not Unicode text") from None


def _signed(
    proven: Proven,
    leaves: Mapping[int, bytes],
    keys: Iterable[VerifierKey],
    witnesses: Sequence[VerifierKey],
    witnesses_min: int,
) -> Signed:
    origin = Note.parse(proven.checkpoint).text.partition("\n")[0]
    if origin.rpartition("/")[2] != proven.log:
        raise AuditFailed(f"the checkpoint of {proven.log} is of {origin}")
    complaint = AuditFailed(f"nobody gave a key for {origin}")
    for key in keys:
        if key.name != origin:
            continue
        try:
            opened = open_checkpoint(proven.checkpoint, key, witnesses=witnesses, witnesses_min=witnesses_min)
        except AuditFailed as error:
            complaint = error
            continue
        return _below(proven, leaves, opened, key)
    raise complaint


def _below(proven: Proven, leaves: Mapping[int, bytes], opened: Opened, key: VerifierKey) -> Signed:
    found = opened.checkpoint
    at = {position - 1: leaf for position, leaf in leaves.items()}
    verify_multiproof(at, found.size, proven.proof_bytes, found.root)
    return Signed(proven.log, found, key, opened.witnessed_s)


def _check_streams(proven: Proven) -> None:
    """Nothing of a stream was left out before what is shown of it."""
    versions: dict[str, int] = {}
    for event in proven.events:
        due = versions.get(event.stream, 0) + 1
        if event.version != due:
            raise AuditFailed(f"{proven.log}: {event.stream} has no version {due} here")
        versions[event.stream] = due


# -- that it comes to this bill -------------------------------------------------------------------
def _judged(evidence: Evidence, signed: tuple[Signed, ...], leaves: dict[str, dict[int, bytes]]) -> Verdict:
    issued, content = _issued(evidence)
    bill = content["bill"]
    log, account = bill.get("quota_log", "quota"), f"{bill['operator']}/{bill['account']}"
    findings = Findings()
    prices = Prices()
    for event in _events(evidence, "catalog"):
        prices.apply(event.position, event.stream, event.topic, content_of(event.state))
    billed = Billed(bill["period"], findings, Subscriptions(prices, findings, lambda *_: None))
    for event in evidence.of("billing").events:
        if event.position <= issued.position:
            billed.apply(event.position, event.stream, event.topic, content_of(event.state))
    metered = Metered(bill["period"], billed.cut_offs(), {})
    ledger = _ledger(evidence.of(log), account, prices, findings, metered)
    billed.check_bills(ledger.accounts, metered, prices)
    ledger.finish()
    recomputed = Recomputed(billed, ledger.accounts, metered, prices)
    (numbered,) = (each for each in recomputed.numbered() if each.issued.position == issued.position)
    computed = recomputed.again(numbered)
    for event in evidence.of("billing").events:
        if event.position > issued.position and event.stream == issued.stream:
            billed.apply(event.position, event.stream, event.topic, content_of(event.state))
    number = bill["number"]
    return Verdict(
        bill=bill,
        bill_sha256=content["bill_sha256"],
        void=number in billed.void,
        paid_fen=billed.paid.get(number, 0),
        credited_fen=billed.credited.get(number, 0),
        signed=signed,
        leaves=leaves,
        differences=tuple(d for d in findings.differences if not _is_beyond(d, log)),
        numbered=numbered,
        computed=computed,
        carries=recomputed.carries(numbered),
        prices=prices,
    )


def _issued(evidence: Evidence) -> tuple[Event, dict[str, Any]]:
    """The event of the bill that the evidence is about."""
    for event in evidence.of("billing").events:
        if event.stream == f"bill:{evidence.bill}" and event.topic == "billing.BillIssued:1":
            content = content_of(event.state)
            if content["bill"]["number"] == evidence.bill:
                return event, content
    raise AuditFailed(f"the bill {evidence.bill!r} is not in it")


def _ledger(proven: Proven, account: str, prices: Prices, findings: Findings, metered: Metered) -> Ledger:
    at = {event.position: event for event in proven.events}

    def fetch(position: int) -> tuple[str, dict[str, Any]]:
        found = at.get(position)
        return ("", {}) if found is None else (found.stream, content_of(found.state))

    def heard(position: int, owner: Account, topic: str, content: dict[str, Any]) -> None:
        metered.heard(position, owner, topic, content)

    ledger = Ledger(prices, findings, heard, fetch, proven.log)
    for event in proven.events:
        if event.stream != account:
            raise AuditFailed(f"{proven.log} has events of another account than {account}")
        ledger.apply(event.position, event.stream, event.topic, content_of(event.state))
    return ledger


def _events(evidence: Evidence, log: str) -> Iterable[Event]:
    return next((proven.events for proven in evidence.logs if proven.log == log), ())


def _is_beyond(difference: Difference, log: str) -> bool:
    """What one account's events do not tell: the other bills' numbers, and of how many shards quota has this log."""
    return difference.what in BEYOND or (log != "quota" and difference.what.startswith("quota_log is not"))
