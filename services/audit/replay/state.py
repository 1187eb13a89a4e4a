"""How far an audit has come, as bytes, so that a run that was killed goes on; and whether they are of this very audit.

It is all that was folded, in one piece: what refers to the same thing does so again. Only plain values and the replay's
own records are read back, nothing else can be made by reading one. What is not kept is how the parts are wired, which a
run makes anew, and audit's log, which is read again. Where the bytes are is said elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from services.audit.replay.account import Account, Grant, Hold
from services.audit.replay.billed import Billed, Cut, Issued
from services.audit.replay.calls import Calls
from services.audit.replay.findings import Difference, Findings
from services.audit.replay.index import Index
from services.audit.replay.ledger import Ledger
from services.audit.replay.orders import Ended, Order, Orders
from services.audit.replay.prices import Card, Prices, Version
from services.audit.replay.reader import LogReader
from services.audit.replay.requests import Requests, Reversed
from services.audit.replay.subscription import Noted, Period, Subscription, Turn
from services.audit.replay.subscriptions import Subscriptions
from services.audit.replay.usage import Granted, Metered, Sums, Usage
from shared.errors import AuditFailed, SetupFailed
from shared.transparency.merkle import Tree

EVERY = 250_000  # events between two savings, at least
SHARE = 20  # of the time since the last saving, the part that one may take

# Of each part of an audit, the attributes that are what it has folded.
KEPT: Mapping[type, Sequence[str]] = {
    Findings: ("differences", "counts"),
    Prices: ("_versions", "_cards"),
    Orders: ("_accounts", "_foreign"),
    Subscriptions: ("accounts", "trials"),
    Billed: (
        "bills", "numbers", "statements", "cuts", "paid", "credited", "void",
        "_serials", "_left", "_owners", "_credits",
    ),
    Calls: ("secret", "sums", "_routed", "_open", "_missing"),
    Metered: ("grants", "usage", "wholesale", "pairs", "_cut_offs", "_settled"),
    Ledger: ("accounts", "debited"),
    Requests: ("_reversed",),
    Index: ("secret", "positions"),
    LogReader: ("position", "roots", "last_leaf", "_versions"),
}  # fmt: skip
PARTS = ("findings", "prices", "orders", "subscriptions", "billed", "calls")  # of an audit, by its attributes
# What else is in them.
RECORDS = (
    Account, Grant, Hold, Issued, Cut, Difference, Ended, Order, Card, Version, Reversed, Noted, Period, Subscription,
    Turn, Granted, Sums, Usage,
)  # fmt: skip
PLAIN = {("datetime", name) for name in ("datetime", "date", "timedelta", "timezone")} | {("builtins", "set")}
_READABLE = {(record.__module__, record.__name__) for record in RECORDS} | PLAIN
BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ImportError,
    MemoryError,
)


class Keep(Protocol):
    """Where an audit keeps how far it has come."""

    def load(self) -> bytes | None:
        """What was saved last; None: nothing."""
        ...

    def save(self, state: bytes) -> None:
        """Keep this instead of what was saved before, or fail and keep that."""
        ...


def encode(state: Mapping[str, Any]) -> bytes:
    return pickle.dumps(state, protocol=5)


def decode(data: bytes) -> dict[str, Any]:
    """Raises SetupFailed for what is no state."""
    try:
        found = _Reader(io.BytesIO(data)).load()
        if not isinstance(found, dict) or not isinstance(found["audit"]["position"], int):
            raise TypeError(type(found).__name__)
    except BROKEN as error:
        raise SetupFailed(f"This is not the state of a replay ({error!r:.200}): remove it, or name another.") from None
    return found


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _READABLE:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a state")
        return super().find_class(module, name)


@cache
def program() -> str:
    """What a state is written and read by: another version of the replay may fold otherwise."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_same(saved: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raises SetupFailed for a state that is of another audit. `about`: what names this one."""
    known = saved.get("about")
    differing = [name for name in about if not isinstance(known, dict) or known.get(name) != about[name]]
    if differing:
        raise SetupFailed(
            f"This state is of a replay with another {', '.join(differing)}: start it as it was started, name another "
            "folder, or remove the state to begin anew."
        )


# -- parts --------------------------------------------------------------------------------------------
def of_part(part: Any) -> dict[str, Any]:
    """What a part of an audit has folded."""
    return {name: getattr(part, name) for name in KEPT[type(part)]}


def put_back(part: Any, saved: Mapping[str, Any]) -> None:
    for name in KEPT[type(part)]:
        setattr(part, name, saved[name])


def of_ledger(ledger: Ledger) -> dict[str, Any]:
    requests = ledger.requests
    index, many = requests.index, requests.index.many
    return {
        "ledger": of_part(ledger),
        "requests": of_part(requests),
        "index": of_part(index),
        "many": None if many is None else many.state(),
    }


def ledger_back(ledger: Ledger, saved: Mapping[str, Any]) -> None:
    put_back(ledger, saved["ledger"])
    put_back(ledger.requests, saved["requests"])
    index = ledger.requests.index
    many = index.many
    Index.__init__(index, saved["index"]["secret"])
    index.positions = saved["index"]["positions"]
    index.many = many
    if (many is None) != (saved["many"] is None):
        raise SetupFailed("This state is of a replay from another kind of source.")
    if many is not None:
        many.put_back(saved["many"])


def of_reader(reader: LogReader) -> dict[str, Any]:
    return of_part(reader) | {"frontier": list(reader.tree.frontier)}


def reader_back(reader: LogReader, saved: Mapping[str, Any]) -> None:
    """Raises SetupFailed unless the source has, where the saved reading ended, the event that was read there."""
    put_back(reader, saved)
    try:
        reader.tree = Tree(reader.position, saved["frontier"])
    except AuditFailed as error:
        raise SetupFailed(f"This is not the state of a replay ({error}).") from None
    if reader.position and reader.event_at(reader.position)[0] != reader.last_leaf:
        raise SetupFailed(
            f"This state is of another source: {reader.log} has another event, or none, at position {reader.position}."
        )


class Saving:
    """Says when enough was read since the last saving. `gathered` gives the state."""

    def __init__(self, keep: Keep | None, gathered: Callable[[], Mapping[str, Any]]) -> None:
        self._keep = keep
        self._gathered = gathered
        self._read = 0
        self._next = 0.0  # on the clock: not before

    def read(self, count: int, *, whole: bool) -> None:
        """So many events more were folded; `whole`: the log has no more."""
        self._read += count
        if whole or (self._read >= EVERY and time.monotonic() >= self._next):
            self.save()

    def save(self) -> None:
        """Save now, unless nothing is new."""
        if self._keep is not None and self._read:
            began = time.monotonic()
            self._keep.save(encode(self._gathered()))
            ended = time.monotonic()
            self._next = ended + SHARE * (ended - began)
        self._read = 0

    def stop(self) -> None:
        """All is folded: what comes now is done again by a run that goes on."""
        self.save()
        self._keep = None


# -- the whole ------------------------------------------------------------------------------------------
def gathered(audit: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an audit. `about`: what names it."""
    return {
        "about": about,
        "parts": {name: of_part(getattr(audit, name)) for name in PARTS},
        "metered": of_part(audit.metered) if audit.metering else None,
        "ledgers": [of_ledger(ledger) for ledger in audit.ledgers],
        "readers": {log: of_reader(reader) for log, reader in audit.readers.items()},
        "audit": of_reader(audit.audit_log),
        "heads": audit.heads,
        "latest": audit.latest(),
    }


def restored(audit: Any, saved: Mapping[str, Any]) -> None:
    """Bring an audit, which has read audit's log as far as the saved one had, to where that was. Raises SetupFailed for
    a state that is of another source, or none."""
    try:
        if audit.audit_log.last_leaf != saved["audit"]["last_leaf"]:
            raise SetupFailed("This state is of another source: audit's log has other events.")
        for log, reader in audit.readers.items():
            reader_back(reader, saved["readers"][log])
        for name in PARTS:
            put_back(getattr(audit, name), saved["parts"][name])
        for ledger, of in zip(audit.ledgers, saved["ledgers"], strict=True):
            ledger_back(ledger, of)
        if saved["metered"] is not None:
            put_back(audit.metered, saved["metered"])
        audit.metering, audit.heads, audit.latest_read = saved["metered"] is not None, saved["heads"], saved["latest"]
    except BROKEN as error:
        raise SetupFailed(f"This is not the state of a replay ({error!r:.200}): remove it, or name another.") from None
