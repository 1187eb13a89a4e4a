"""Routing's log against quota's: each settled call was routed there, and was charged what was served. Pure.

Calls are told apart by 64 bits of (operator, call, deployment, serving operator), under a secret of this replay. What
was served and what was charged is netted per call and forgotten when it agrees, so that only what is open stays in
memory.
"""

from __future__ import annotations

import hashlib
import secrets

from services.audit.replay.account import Account
from services.audit.replay.findings import Findings
from services.audit.replay.index import SECRET_BYTES
from services.audit.replay.kinds import text
from services.audit.replay.prices import CLASSES, Raw

FIELD_BITS = 64  # of a packed sum: tokens of one class of one call stay far below
MISSING_MAX = 10_000  # debits whose route may still come


class Calls:
    """Routed, served and charged."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.secret = secrets.token_bytes(SECRET_BYTES)  # with which calls are told apart
        self._routed: dict[int, int] = {}  # call to position in routing's log
        self._open: dict[int, int] = {}  # call to (served - charged), packed
        self._missing: list[tuple[int, str, int, str, Raw]] = []
        self.sums: dict[tuple[str, str], list[int]] = {}  # (home, serving) to tokens served less charged

    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:
        """Fold one event of routing's log."""
        operator = stream.partition("/")[0]
        if topic == "routing.CallRouted:1":
            self._routed.setdefault(self._key(operator, event["request_id"], event), position)
        elif topic == "routing.CallServed:1":
            key = self._key(operator, event["request_id"], event)
            if key not in self._routed:
                self._findings.add("calls", "served but not routed", "routing", position, stream, "CallRouted", "none")
                self._routed[key] = position
            self._net(key, operator, event, 1)

    def heard(self, position: int, account: Account, topic: str, event: Raw, log: str = "quota") -> None:
        """Take one event of a log of quota."""
        if topic == "quota.TokensDebited:1" and event.get("deployment"):
            key = self._key(account.operator, event["call"], event)
            self._charged(key, log, position, account.stream, event, settle=False)

    def _key(self, operator: str, call: str, event: Raw) -> int:
        names = (operator, call, event["deployment"], event.get("serving_operator") or operator)
        for name in names:
            text(name)
        return int.from_bytes(hashlib.blake2b(repr(names).encode(), digest_size=8, key=self.secret).digest(), "big")

    def _charged(self, key: int, log: str, position: int, stream: str, event: Raw, settle: bool) -> None:
        if key in self._routed:
            self._net(key, stream.partition("/")[0], event, -1)
        elif settle or len(self._missing) >= MISSING_MAX:
            self._findings.add(
                "calls", "charged but not routed there", log, position, stream, "CallRouted", event["call"]
            )
        else:
            self._missing.append((key, log, position, stream, event))

    def _net(self, key: int, home: str, event: Raw, sign: int) -> None:
        usage = event.get("usage")
        if not usage:
            return
        sums = self.sums.setdefault((home, event.get("serving_operator") or home), [0, 0, 0, 0])
        packed = 0
        for n, name in enumerate(CLASSES):
            if name in usage:
                sums[n] += sign * usage[name]
                packed += usage[name] << (n * FIELD_BITS)
        net = self._open.get(key, 0) + sign * packed
        if net:
            self._open[key] = net
        else:
            self._open.pop(key, None)

    def unfinished(self) -> set[int]:
        """Calls that do not agree (yet): asked again after both logs were read on."""
        missing, self._missing = self._missing, []
        for entry in missing:
            self._charged(*entry, settle=False)
        return set(self._open) | {entry[0] for entry in self._missing}

    def finish(self, judged: set[int]) -> None:
        """Report those of `judged` that still do not agree."""
        missing, self._missing = self._missing, []
        for entry in missing:
            if entry[0] in judged:
                self._charged(*entry, settle=True)
        differing = sorted((self._routed[key], net) for key, net in self._open.items() if key in judged)
        if not differing:
            return
        for (home, serving), sums in sorted(self.sums.items()):
            if any(sums):
                difference = dict(zip(CLASSES, sums, strict=True))
                self._findings.add(
                    "calls", "served is not charged, in sum", "routing", 0, f"{home}/{serving}", 0, difference
                )
        for position, net in differing:
            self._findings.add("calls", "served is not charged", "routing", position, "", 0, _unpacked(net))


def _unpacked(net: int) -> dict[str, int]:
    """The signed fields of a packed sum."""
    found = {}
    half = 1 << (FIELD_BITS - 1)
    for name in CLASSES:
        value = ((net + half) % (1 << FIELD_BITS)) - half
        net = (net - value) >> FIELD_BITS
        found[name] = value
    return found
