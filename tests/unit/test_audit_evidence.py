"""Evidence of a bill: made from an honest market it proves every bill, and changed in any way it proves nothing."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import random
import string
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from services.audit.evidence import Evidence, collect, pack, render_html, unpack, verify
from services.audit.evidence.package import MAGIC, Event, Proven
from shared.errors import AuditFailed
from shared.transparency.keys import SigningKey, VerifierKey
from tests.unit.audit_world import EAST, JULY, JUNE, Market

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
ROOT = Path(__file__).parents[2]


def _second_verifier() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_evidence", ROOT / "deploy" / "verify_evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SECOND = _second_verifier()


def keys_of(market: Market) -> list[VerifierKey]:
    return [VerifierKey.parse(text) for text in market.audit.status()["verifier_keys"].values()]


def numbers(market: Market, period: str) -> list[str]:
    return [bill["number"] for bill in market.client.call("billing", "bills", period=period)["bills"]]


@pytest.fixture(scope="module")
def keys(market: Market) -> list[VerifierKey]:
    return keys_of(market)


@pytest.fixture(scope="module")
def evidence(market: Market) -> Evidence:
    """Of the bill with the most to it: what came late is on it."""
    made = [collect(market.client, number) for number in numbers(market, JULY)]
    return max(made, key=lambda each: len(pack(each)))


@pytest.fixture(scope="module")
def smallest(market: Market) -> bytes:
    return min((pack(collect(market.client, number)) for number in numbers(market, JUNE)), key=len)


def refused(data: bytes, keys: list[VerifierKey]) -> bool:
    """By both verifiers, who must be of one mind."""
    try:
        first = not verify(unpack(data), keys).ok
    except AuditFailed:
        first = True
    try:
        SECOND.verify(data, [str(key) for key in keys])
        second = False
    except SECOND.NotProven:
        second = True
    assert first == second, f"refused by one: {first}, by the other: {second}"
    return first


def headed(body: bytes) -> bytes:
    """With a hash that fits."""
    return f"{MAGIC} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def repacked(data: Any) -> bytes:
    """Canonical, compressed, with a hash that fits: as whoever knows the format would write a lie."""
    return headed(zlib.compress(msgspec.json.encode(data, order="sorted")))


# -- what it proves -------------------------------------------------------------------------------
def test_every_bill_of_a_market_is_proven(market: Market, keys: list[VerifierKey]) -> None:
    for period in (JUNE, JULY):
        for number in numbers(market, period):
            data = pack(collect(market.client, number))
            verdict = verify(unpack(data), keys)
            assert verdict.ok, verdict.differences
            assert verdict.bill["number"] == number
            assert not refused(data, keys)


def test_bills_of_subscriptions_are_proven(subscribers: Market) -> None:
    keys = keys_of(subscribers)
    found = [number for period in (JUNE, JULY) for number in numbers(subscribers, period)]
    assert len(found) > 5
    for number in found:
        data = pack(collect(subscribers.client, number))
        verdict = verify(unpack(data), keys)
        assert verdict.ok, (number, verdict.differences)
        assert not refused(data, keys)


def test_what_became_of_the_bill_is_told(market: Market, keys: list[VerifierKey]) -> None:
    settled = [verify(collect(market.client, number), keys) for number in numbers(market, JULY)]
    assert {(v.paid_fen, v.credited_fen) for v in settled} == {(0, 0), (1, 1)}


def test_the_page_leads_from_the_total_to_each_debit(evidence: Evidence, keys: list[VerifierKey]) -> None:
    verdict = verify(evidence, keys)
    page = render_html(evidence, verdict)
    assert "proven" in page
    assert "<script" not in page
    leaves = verdict.leaves["quota"]
    debits = [event.position for event in evidence.of("quota").events if "TokensDebited" in event.topic]
    shown = [position for position in debits if leaves[position].hex() in page]
    lines = [line for line in verdict.bill["lines"] if line["kind"] in ("usage", "late_usage")]
    assert len(shown) >= sum(line["calls"] for line in lines) > 0
    assert any(line["kind"] == "late_usage" for line in lines)  # not the debits that June's bill has had
    assert page.count("adds up to the line") == len(lines)
    for proven in evidence.logs:
        assert proven.checkpoint.partition("\n")[0] in page


# -- what is changed --------------------------------------------------------------------------------
def test_no_byte_of_a_small_file_can_be_changed(smallest: bytes, keys: list[VerifierKey]) -> None:
    assert not refused(smallest, keys)
    for at in range(len(smallest)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(smallest)
            changed[at] ^= mask
            with pytest.raises(AuditFailed):
                verify(unpack(bytes(changed)), keys)
            with pytest.raises(SECOND.NotProven):
                SECOND.verify(bytes(changed), [str(key) for key in keys])


def test_no_letter_of_what_is_in_it_can_be_changed(evidence: Evidence, keys: list[VerifierKey], seed: int) -> None:
    """By somebody who makes the hash fit, and writes the canonical form."""
    plain = zlib.decompress(pack(evidence).partition(b"\n")[2])
    dice = random.Random(seed)
    for _ in range(400):
        at = dice.randrange(len(plain))
        changed = bytearray(plain)
        changed[at] ^= dice.randrange(1, 256)
        assert refused(headed(zlib.compress(bytes(changed))), keys), (at, plain[at - 20 : at + 20])


def _event(log: str, change: Callable[[list[Event]], list[Event]]) -> Callable[[Evidence], Evidence]:
    def changed(evidence: Evidence) -> Evidence:
        return _log(log, lambda proven: replace(proven, events=tuple(change(list(proven.events)))))(evidence)

    return changed


def _log(log: str, change: Callable[[Proven], Proven]) -> Callable[[Evidence], Evidence]:
    def changed(evidence: Evidence) -> Evidence:
        logs = tuple(change(proven) if proven.log == log else proven for proven in evidence.logs)
        return replace(evidence, logs=logs)

    return changed


LIES: dict[str, Callable[[Evidence], Evidence]] = {
    "a debit is left out": _event("quota", lambda events: events[:4] + events[5:]),
    "the last debit is left out": _event("quota", lambda events: events[:-1]),
    "a debit stands twice": _event("quota", lambda events: [*events, events[-1]]),
    "the order is another": _event("quota", lambda events: events[::-1]),
    "an amount is another": _event(
        "quota", lambda events: [*events[:-1], replace(events[-1], state=events[-1].state + " ")]
    ),
    "a rate card is left out": _event("catalog", lambda events: events[1:]),
    "the catalogue is left out": lambda e: replace(e, logs=tuple(p for p in e.logs if p.log != "catalog")),
    "the debits are left out": lambda e: replace(e, logs=tuple(p for p in e.logs if p.log != "quota")),
    "a log stands twice": lambda e: replace(e, logs=(*e.logs, e.logs[-1])),
    "another bill is meant": lambda e: replace(e, bill="east-telecom-2026-07-000099"),
    "the proof is cut": _log("quota", lambda p: replace(p, proof=p.proof[:-44])),
    "the proof is no base64": _log("quota", lambda p: replace(p, proof="?" + p.proof[1:])),
    "the checkpoint is another log's": lambda e: _log(
        "quota", lambda p: replace(p, checkpoint=e.of("billing").checkpoint)
    )(e),
    "the checkpoint has no signature": _log(
        "quota", lambda p: replace(p, checkpoint=p.checkpoint.partition("\n\n")[0] + "\n\n")
    ),
    "nothing is in it": lambda e: replace(e, logs=()),
}


def test_a_proof_is_canonical_base64(evidence: Evidence, keys: list[VerifierKey]) -> None:
    """Its last letter has bits that decode to nothing: they are zero, or the file could be changed unnoticed."""
    padded = next(proven for proven in evidence.logs if proven.proof.endswith("="))
    at = len(padded.proof.rstrip("=")) - 1
    other = ALPHABET[ALPHABET.index(padded.proof[at]) + 1]
    proof = padded.proof[:at] + other + padded.proof[at + 1 :]
    assert base64.b64decode(proof, validate=True) == padded.proof_bytes
    assert refused(pack(_log(padded.log, lambda proven: replace(proven, proof=proof))(evidence)), keys)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_in_good_form_is_refused(
    evidence: Evidence, keys: list[VerifierKey], lie: Callable[[Evidence], Evidence]
) -> None:
    assert refused(pack(lie(evidence)), keys)


def test_other_keys_prove_nothing(evidence: Evidence, keys: list[VerifierKey]) -> None:
    others = [SigningKey.generate(key.name).verifier for key in keys]
    assert refused(pack(evidence), others)
    assert refused(pack(evidence), [])
    assert not refused(pack(evidence), [*others, *keys])


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain | {"more": 1},
        lambda plain: {"bill": plain["bill"]},
        lambda plain: plain | {"logs": {}},
        lambda plain: plain | {"bill": 5},
        lambda plain: plain | {"logs": [each | {"events": [[1.0, "s", 1, "t", "{}"]]} for each in plain["logs"]]},
        lambda plain: plain | {"logs": [each | {"events": [[2**63, "s", 1, "t", "{}"]]} for each in plain["logs"]]},
        lambda plain: plain | {"logs": [each | {"events": [[1, "s", 1, "t", "{}", 0]]} for each in plain["logs"]]},
        lambda plain: [],
        lambda plain: "[" * 100_000,
    ],
)
def test_another_form_is_no_evidence(
    evidence: Evidence, keys: list[VerifierKey], change: Callable[[dict[str, Any]], Any]
) -> None:
    assert refused(repacked(change(msgspec.to_builtins(evidence))), keys)


def test_only_the_canonical_form_is_read(evidence: Evidence, keys: list[VerifierKey]) -> None:
    plain = zlib.decompress(pack(evidence).partition(b"\n")[2])
    others = [
        plain + b"\n",
        b" " + plain,
        plain.replace(b'"bill"', b'"\\u0062ill"', 1),
        plain.replace(b",", b", ", 1),
        plain.replace(b'{"bill":', b'{"bill":"x","bill":', 1),
    ]
    for other in others:
        assert other != plain
        assert refused(headed(zlib.compress(other)), keys)


@pytest.mark.parametrize(
    "data", [b"", b"\n", MAGIC.encode(), b"x" * 1000, zlib.compress(b"{}"), b"\xff" * 50], ids=range(6)
)
def test_what_is_no_evidence_at_all(data: bytes, keys: list[VerifierKey]) -> None:
    assert refused(data, keys)


def test_a_bomb_is_not_blown_up(keys: list[VerifierKey]) -> None:
    assert zlib.decompress(bomb(3)) == b"[" * (3 << 20)
    assert refused(headed(bomb(512)), keys)


def bomb(count: int) -> bytes:
    """So many times a million brackets, compressed. It is put together from one of them: to compress all takes long."""
    million, compressing, checksum = b"[" * (1 << 20), zlib.compressobj(1, wbits=-15), 1
    packed = compressing.compress(million) + compressing.flush(zlib.Z_FULL_FLUSH)
    for _ in range(count):
        checksum = zlib.adler32(million, checksum)
    return b"\x78\x01" + packed * count + b"\x03\x00" + checksum.to_bytes(4, "big")


def test_of_a_bill_that_there_is_not_there_is_no_evidence(market: Market) -> None:
    with pytest.raises(AuditFailed, match="has no bill"):
        collect(market.client, f"{EAST}-2026-06-999999")
