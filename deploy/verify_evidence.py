#!/usr/bin/env python3
"""Verifies an evidence file of tokengrid, on any machine: this one file, Python's standard library and `cryptography`.

    python verify_evidence.py FILE KEY [KEY ...]

KEY is a log's verifier key, `name+id+base64`, got from somewhere that the operator cannot change. Exit code 0: proven;
1: not proven, with the reason; 2: asked wrongly. Written from docs/reference/evidence.md and leaf-encoding.md; it
shares no code with the services, nor with their own verifier.
"""

import base64
import binascii
import hashlib
import json
import struct
import sys
import zlib
from bisect import bisect_left
from datetime import datetime, timedelta, timezone
from fractions import Fraction

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAGIC = b"tokengrid/evidence/v1 "
PLAIN_MAX = 1 << 28
ED25519 = 1
CLASSES = ("input", "cached_input", "cache_write", "output")
LIST_PRICE = 250_000  # points a yuan
VAT_PERCENT = 6


class NotProven(Exception):
    """The file proves nothing; why."""


def need(holds, why):
    if not holds:
        raise NotProven(why)


def verify(data, keys):
    """The bill that `data`, a file's bytes, proves under these verifier keys. Raises NotProven."""
    try:
        return _verify(data, keys)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error) as error:
        raise NotProven(f"not evidence: {error!r}") from None


def _verify(data, keys):
    evidence = unpacked(data)
    logs = evidence["logs"]
    names = [each["log"] for each in logs]
    need(names == sorted(set(names)), "logs are not in order, or one stands twice")
    for each in logs:
        size, root = checkpoint(each["checkpoint"], each["log"], keys)
        prove(each, size, root)
        whole_streams(each)
    events = {each["log"]: each["events"] for each in logs}
    return judged(evidence["bill"], events)


# --- the file --------------------------------------------------------------------------------
def unpacked(data):
    head, _, body = data.partition(b"\n")
    need(head == MAGIC + hashlib.sha256(body).hexdigest().encode(), "not an evidence file of this version, or changed")
    inflating = zlib.decompressobj()
    try:
        plain = inflating.decompress(body, PLAIN_MAX)
    except zlib.error as error:
        raise NotProven(f"cannot be decompressed: {error}") from None
    need(inflating.eof and not inflating.unused_data, "too large, cut off, or followed by something else")
    evidence = json.loads(plain, parse_float=_refuse, parse_constant=_refuse, object_pairs_hook=_no_name_twice)
    canonical = json.dumps(evidence, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    need(canonical == plain, "not in the canonical form")
    need(evidence.keys() == {"bill", "logs"} and type(evidence["bill"]) is str, "not evidence")
    need(type(evidence["logs"]) is list, "not evidence")
    for log in evidence["logs"]:
        need(log.keys() == {"log", "checkpoint", "events", "proof"}, "not evidence of a log")
        need(all(type(log[name]) is str for name in ("log", "checkpoint", "proof")), "not evidence of a log")
        for event in log["events"]:
            need([type(part) for part in event] == [int, str, int, str, str], "not an event")
            need(0 < event[0] < 2**63 and 0 < event[2] < 2**63, "not an event's position or version")
    return evidence


def _refuse(text):
    raise NotProven(f"not a whole number: {text}")


def _no_name_twice(pairs):
    found = dict(pairs)
    need(len(found) == len(pairs), "a name stands twice")
    return found


# --- the signature ---------------------------------------------------------------------------
def checkpoint(note, log, keys):
    """Size and root that one of the keys has signed for this log."""
    need("\n\n" in note and note.endswith("\n"), "checkpoint is no signed note")
    text, _, under = note.rpartition("\n\n")
    text += "\n"
    lines = text.split("\n")
    need(len(lines) >= 4 and lines[-1] == "", "checkpoint is none")
    origin, size, root = lines[:3]
    need(origin.rpartition("/")[2] == log, f"the checkpoint of {log} is of {origin}")
    need(size.isascii() and size.isdigit() and str(int(size)) == size, "checkpoint's size is no number")
    signatures = [line.removeprefix("— ").split(" ") for line in under.removesuffix("\n").split("\n")]
    for key in keys:
        name, key_id, encoded = key.split("+", 2)
        raw = strict_base64(encoded)
        if name != origin or raw[0] != ED25519:
            continue
        need(hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() == key_id, f"{key} is no verifier key")
        for signature in signatures:
            need(len(signature) == 2, "checkpoint has a malformed signature")
            signed = strict_base64(signature[1])
            if signature[0] == name and signed[:4].hex() == key_id:
                try:
                    Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signed[4:], text.encode())
                except InvalidSignature:
                    raise NotProven(f"the signature of {name} is not over this checkpoint") from None
                return int(size), strict_base64(root)
    raise NotProven(f"no key that was given has signed the checkpoint of {log}")


def strict_base64(text):
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "not canonical base64")
    return raw


# --- the Merkle tree -------------------------------------------------------------------------
def prove(log, size, root):
    """Every event stands at its position of the tree with this size and root."""
    leaves, last = {}, 0
    for position, stream, version, topic, state in log["events"]:
        need(position > last, "events are not in order")
        last = position
        leaves[position - 1] = leaf_hash(log["log"], position, stream, version, topic, state)
    need(leaves and last <= size < 2**63, f"events of {log['log']} are none, or beyond the checkpoint")
    proof = strict_base64(log["proof"])
    need(len(proof) % 32 == 0, "proof is not whole hashes")
    hashes = iter([proof[n : n + 32] for n in range(0, len(proof), 32)])
    computed = subtree(hashes, sorted(leaves), leaves, 0, size)
    need(next(hashes, None) is None, "proof is too long")
    need(computed == root, f"events of {log['log']} are not below the signed root")


def leaf_hash(log, position, stream, version, topic, state):
    def text(value):
        raw = value.encode()
        return struct.pack(">Q", len(raw)) + raw

    fields = (
        text(log),
        struct.pack(">Q", position),
        text(stream),
        struct.pack(">Q", version),
        text(topic),
        text(state),
    )
    return hashlib.sha256(b"\x00tokengrid/event-leaf/v1\n" + b"".join(fields)).digest()


def subtree(hashes, proven, leaves, start, end):
    """The root of the leaves from `start` to before `end`; `proven`: the indices of those that are events here."""
    if not proven:
        found = next(hashes, None)
        need(found is not None, "proof is too short")
        return found
    if end - start == 1:
        return leaves[start]
    middle = start + (1 << ((end - start - 1).bit_length() - 1))
    cut = bisect_left(proven, middle)
    left = subtree(hashes, proven[:cut], leaves, start, middle)
    return hashlib.sha256(b"\x01" + left + subtree(hashes, proven[cut:], leaves, middle, end)).digest()


def whole_streams(log):
    """Of each stream the events from the first on, without a gap."""
    versions = {}
    for _, stream, version, _, _ in log["events"]:
        versions[stream] = versions.get(stream, 0) + 1
        need(version == versions[stream], f"{log['log']}: {stream} has no version {versions[stream]} here")


# --- the bill --------------------------------------------------------------------------------
def judged(number, events):
    """The bill, after its lines of usage were computed again from the debits."""
    issued = None
    cuts = {}  # of the account's earlier bills that stand: period -> (position, cut-off in quota's log)
    billing = [(position, stream, topic, json.loads(state)) for position, stream, _, topic, state in events["billing"]]
    for position, stream, topic, content in billing:
        if issued is not None:
            break
        if topic == "billing.BillIssued:1":
            bill = content["bill"]
            need(sha256_of(bill) == content["bill_sha256"], f"the hash of {bill['number']} is not its own")
            if bill["number"] == number and stream == f"bill:{number}":
                issued = bill
            else:
                cuts[bill["period"]] = position, bill["quota_position"], bill["number"]
        elif topic == "billing.BillVoided:1":
            cuts = {period: cut for period, cut in cuts.items() if cut[2] != content["number"]}
    need(issued is not None, f"the bill {number} is not in it")
    bill, lines = issued, issued["lines"]
    total = sum(line["fen"] for line in lines)
    need(bill["total_fen"] == total, "total is not the sum of the lines")
    need(bill["vat_percent"] == VAT_PERCENT, "VAT is of another rate")
    need(bill["vat_fen"] == rounded(Fraction(total * VAT_PERCENT, 100 + VAT_PERCENT)), "VAT is not that of the total")
    log, account = bill.get("quota_log", "quota"), f"{bill['operator']}/{bill['account']}"
    cards = {}
    prices = {LIST_PRICE}
    for _, stream, version, _, state in events.get("catalog", ()):
        item = json.loads(state)["item"]
        if stream.startswith("rate_card:"):
            cards[f"{stream.removeprefix('rate_card:')}@{version}"] = item
        elif stream.startswith("plan:"):
            prices.add(item.get("points_per_yuan", LIST_PRICE))
    own, late = used(events[log], account, bill, cuts, cards)
    check_usage([line for line in lines if line["kind"] == "usage"], own, prices)
    check_usage([line for line in lines if line["kind"] == "late_usage"], late, prices)
    check_rest(lines, billing, events[log])
    counted = [line for line in lines if line["kind"] in ("usage", "late_usage")]
    need(bill["debited"] == sum(line.get("amount", 0) for line in counted), "points debited are not those of the lines")
    need(bill["calls"] == sum(line.get("calls", 0) for line in lines), "calls are not those of the lines")
    return bill


def used(log, account, bill, cuts, cards):
    """Usage by model and rate card that the bill must have: of its own period, and what came late for earlier ones."""
    own, late = {}, {}
    debits = {}
    for position, stream, _, topic, state in log:
        need(stream == account, f"events of another account than {account}")
        if topic not in ("quota.TokensDebited:1", "quota.DebitReversed:1"):
            continue
        event = json.loads(state)
        sign = 1
        if topic == "quota.TokensDebited:1":
            check_price(event, cards)
            debits[event["request_id"]] = event
        else:
            sign = -1
            need(event["debit"] in debits, "a debit is reversed that there is not")
        period = month_of(event["at"])
        if period == bill["period"] and position <= bill["quota_position"]:
            into = own
        elif period < bill["period"] and carries(period, position, bill, cuts):
            into = late
        else:
            continue
        key = event["model"], event["rate_card"]
        sums = into.setdefault(key, dict.fromkeys((*CLASSES, "calls", "amount", "charged"), 0))
        unpaid = event.get("overdrawn", 0) + sum(amount for grant, amount in event["draws"] if grant == "credit")
        sums["amount"] += sign * event["amount"]
        sums["charged"] += sign * unpaid
        if sign > 0:
            sums["calls"] += event.get("final", True)
            for name in CLASSES:
                sums[name] += event["usage"].get(name, 0)
    return own, late


def carries(period, position, bill, cuts):
    """Whether what is of an earlier period, and stands here in quota's log, was left for this bill."""
    if position > bill["quota_position"] or period not in cuts:
        return False
    own = cuts[period]
    carriers = [cut for of, cut in cuts.items() if of > period and cut[0] > own[0]]
    return position > max(cut[1] for cut in (own, *carriers))


def check_price(debit, cards):
    """What a debit took is its tokens at rates that the published rate card has."""
    card = cards.get(debit["rate_card"])
    need(card is not None, f"the rate card {debit['rate_card']} is not in it")
    has = [card["rates"], *(part["rates"] for name in ("tiers", "off_peak") for part in card.get(name, ()))]
    rates = {name: debit["rates"].get(name, 0) for name in CLASSES}
    need(rates in [{name: each.get(name, 0) for name in CLASSES} for each in has], "rates that the card does not have")
    priced = sum(debit["usage"].get(name, 0) * rates[name] for name in CLASSES)
    need(debit["amount"] == priced, "amount is not tokens times rates")
    drawn = sum(amount for _, amount in debit["draws"])
    need(debit["amount"] == drawn + debit.get("overdrawn", 0), "draws are not the amount")


def check_usage(lines, expected, prices):
    found = {(line["model"], line["rate_card"]): line for line in lines}
    need(len(found) == len(lines) and found.keys() == expected.keys(), "lines of usage are not those of the debits")
    for key, sums in expected.items():
        line = found[key]
        has = {name: line.get("usage", {}).get(name, 0) for name in CLASSES}
        has |= {name: line.get(name, 0) for name in ("calls", "amount", "charged")}
        need(has == sums, f"the line of {key[0]} is not what its debits come to")
        money = line["fen"] + Fraction(line.get("residual", "0/1"))
        costs = [Fraction(sums["charged"], 10 * points) for points in prices]
        need(money in costs and rounded(money) == line["fen"], f"the line of {key[0]} is not what its points cost")


def check_rest(lines, billing, log):
    """A fee is of a period that began, a purchase of points that were granted, a credit of one that was given."""
    periods = {
        (content["subscription"], content["plan"], content["plan_version"])
        for _, _, topic, content in billing
        if topic == "billing.PlanPeriodStarted:1"
    }
    grants = [json.loads(state) for _, _, _, topic, state in log if topic == "quota.PointsGranted:1"]
    sold = {(each.get("plan", ""), each.get("plan_version", 0), each["amount"]) for each in grants}
    given = sum(content["fen"] for _, _, topic, content in billing if topic == "billing.AccountCredited:1")
    for line in lines:
        terms = line.get("plan", ""), line.get("plan_version", 0)
        if line.get("subscription"):
            need((line["subscription"], *terms) in periods, f"a line of a period that never began: {line['text']}")
        elif line["kind"] in ("plan_fee", "bundle", "purchase", "trial"):
            need((*terms, line.get("amount", 0)) in sold, f"a line of points that were never granted: {line['text']}")
        elif line["kind"] == "credit":
            need(-line["fen"] <= given, "a credit that was never given")


def month_of(at):
    """The month in Shanghai (UTC+8) of an instant."""
    return datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone(timezone(timedelta(hours=8))).strftime("%Y-%m")


def rounded(exact):
    """Half away from zero."""
    whole, rest = divmod(abs(exact), 1)
    whole += rest >= Fraction(1, 2)
    return int(whole if exact >= 0 else -whole)


def sha256_of(content):
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def main(arguments):
    if len(arguments) < 2 or arguments[0] in ("-h", "--help"):
        sys.stderr.write(__doc__)
        return 2
    try:
        with open(arguments[0], "rb") as file:
            bill = verify(file.read(), arguments[1:])
    except OSError as error:
        sys.stderr.write(f"{arguments[0]} cannot be read: {error.strerror}\n")
        return 2
    except NotProven as why:
        sys.stdout.write(f"NOT PROVEN: {why}\n")
        return 1
    sums = f"{bill['total_fen']} fen, {bill['calls']} calls, {bill['debited']} millipoints debited"
    sys.stdout.write(f"proven: {bill['number']}, {sums}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
