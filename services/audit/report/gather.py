"""Reads the logs again for the pages: every leaf into its log's tree, and what a page shows into the spool.

The trees are the auditor's own, made of the events as they were read this time: a path in one leads to a signed root
only if these are the events that were signed. It must not know what a page looks like.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from services.audit.replay.calendar import period_and_day
from services.audit.replay.charges import Carries
from services.audit.replay.reader import LogReader, Progress
from services.audit.replay.recomputed import Audited
from services.audit.report.spool import Shown, Spool, TreeFile

ISSUED = "issued"  # the line of the spool with the bill itself
POSITION_MAX = 2**63 - 1
_TOLD = 1_000  # events from one word of progress to the next
Place = Callable[[Mapping[str, Any]], tuple[int, str] | None]  # the bill and the line of an event, if it has one
DEBIT, REVERSAL = "quota.TokensDebited:1", "quota.DebitReversed:1"


class Head(NamedTuple):
    """A log's tree, and the signed head that its paths lead to. `size` 0: nobody signed one. `root` is that of the
    tree at this size; `matches`: it is the checkpoint's; `verified`: a key that was given has signed the checkpoint."""

    log: str
    tree: TreeFile
    size: int
    root: str
    matches: bool
    verified: bool

    def path(self, place: int) -> list[str] | None:
        """The inclusion path of a leaf, hexadecimal; None for one that the checkpoint does not cover."""
        if place >= min(self.size, self.tree.size):
            return None
        return [node.hex() for node in self.tree.path(place, min(self.size, self.tree.size))]


class Wanted(NamedTuple):
    """A bill whose debits are shown, as the `serial`-th of the report."""

    serial: int
    period: str
    carries: Carries


def line_key(kind: object, model: object, rate_card: object) -> str:
    """What a line of usage is called in the spool."""
    return json.dumps([str(kind), str(model), str(rate_card)])


def gather(
    audited: Audited,
    wanted: Mapping[str, Wanted],
    issued: Mapping[int, tuple[int, str]],
    spool: Spool,
    progress: Progress | None = None,
) -> dict[str, Head]:
    """The heads of quota's logs and of billing's, by log. Spooled are the debits of `wanted`, by `operator/account`,
    and `issued`: events of billing's log by position, with the bill and line that they are spooled under."""
    heads = {}
    places: dict[str, Place] = dict.fromkeys(audited.quota_logs, partial(_place, wanted))
    places["billing"] = lambda event: issued.get(event["position"])
    for log, place in places.items():
        tree = spool.tree()
        spool.keep(_shown(audited.logs[log], tree, place, progress or (lambda *_: None)))
        signed: Mapping[str, Any] = audited.report.checkpoints.get(log, {})
        size = signed.get("size", 0)
        root = tree.root(min(size, tree.size)).hex()
        matches = 0 < size <= tree.size and root == signed["root_sha256"]
        heads[log] = Head(log, tree, size, root, matches, bool(signed.get("verifier_key")))
    return heads


def _shown(reader: LogReader, tree: TreeFile, place_of: Place, progress: Progress) -> Iterator[Shown]:
    for leaf, e in reader.again(0, reader.position):
        place, position = tree.size, e["position"]
        tree.append(leaf)
        if tree.size % _TOLD == 0 or position == reader.position:
            progress(f"{reader.log} again", position, reader.position)
        at = place_of(e)
        if at is not None and max(position, e["version"]) <= POSITION_MAX:
            yield Shown(*at, reader.log, position, place, e["stream"], e["version"], e["topic"], e["state"], leaf)


def _place(wanted: Mapping[str, Wanted], e: Mapping[str, Any]) -> tuple[int, str] | None:
    bill = wanted.get(e["stream"])
    if bill is None:
        return None
    key = line_of(e["topic"], e["state"], e["position"], bill.period, bill.carries)
    return (bill.serial, key) if key else None


def line_of(topic: str, state: str, position: int, period: str, carries: Carries) -> str:
    """The line of a bill of `period` that has this event of its account; empty if none has."""
    if topic not in (DEBIT, REVERSAL):
        return ""
    try:
        content = msgspec.json.decode(state)
        own = period_and_day(content["at"])[0]
        if not carries(own, position):
            return ""
        return line_key("usage" if own == period else "late_usage", content["model"], content["rate_card"])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError):
        return ""  # no debit of the contract: the replay has said so
