"""Which request did what: every request has one effect, and no debit is reversed by more than it was. Pure.

The index from a request to its position (`index.py`) is the only thing in a replay that grows with the log: about 100
bytes an event, 16 for those that were folded many at once. It holds 64 bits of each name; before two are called alike,
the earlier event is read again.
"""

from __future__ import annotations

from collections.abc import Callable

from services.audit.replay.findings import Findings
from services.audit.replay.index import Index
from services.audit.replay.kinds import text
from services.audit.replay.prices import Raw

Fetch = Callable[[int], tuple[str, Raw]]
"""The stream and content of the event at a position of quota's log."""

_MORE = "more is reversed than was debited"
# The sweep's events are decided by the state and use up no request.
SWEPT = {"quota.GrantExpired:1", "quota.ReservationExpired:1"}


def _follows(topic: str, event: Raw, closed: bool) -> bool:
    """An event that follows from the state or from the event before it. It is named after that one, and a client may
    have given the same name to a request."""
    if topic == "quota.PointsGranted:1":
        return bool(event.get("origin"))  # a reversal's
    if topic == "quota.ReservationReleased:1":
        return closed  # the closing's
    if topic == "quota.GrantVoided:1":  # the sweep's: something held came back after the grant was voided
        return bool(event["request_id"].startswith("expire/"))
    return topic in SWEPT


class Reversed:
    """What was given back of one debit, over all its reversals."""

    __slots__ = ("by_grant", "overdrawn", "position", "total")

    def __init__(self) -> None:
        self.total = self.overdrawn = self.position = 0
        self.by_grant: dict[str, int] = {}


class Requests:
    """All requests of all accounts of one log of quota."""

    def __init__(self, findings: Findings, fetch: Fetch, log: str = "quota") -> None:
        self._findings = findings
        self._fetch = fetch
        self._log = log
        self.index = Index()
        self._reversed: dict[tuple[str, str], Reversed] = {}

    def used(self, position: int, stream: str, topic: str, event: Raw, closed: bool) -> None:
        """An event that may answer a request; `closed`: its account was before."""
        if _follows(topic, event, closed):
            return
        request_id = event["request_id"]
        earlier = self.index.claim(stream, request_id, position)
        if earlier == position:
            return
        at, first = self._fetch(earlier)
        if at == stream and first.get("request_id") == request_id:
            self._add("request has two effects", position, stream, f"only that at {earlier}", request_id)

    def reversed(self, position: int, stream: str, event: Raw) -> None:
        """A debit was given back, in part or whole."""
        given = self._reversed.setdefault((stream, text(event["debit"])), Reversed())
        given.position = position
        given.total += event["amount"]
        given.overdrawn += event.get("overdrawn", 0)
        for name, amount in event["draws"]:
            given.by_grant[name] = given.by_grant.get(name, 0) + amount

    def given_back(self, stream: str, debit: str) -> Reversed:
        """What was given back of a debit so far."""
        return self._reversed.get((stream, debit)) or Reversed()

    def finish(self) -> None:
        """All reversals of each debit against that debit."""
        for (stream, name), given in self._reversed.items():
            position = self.index.find(stream, name)
            at, debit = self._fetch(position) if position else ("", {})
            if at != stream or debit.get("request_id") != name or "usage" not in debit:
                self._add("reversal of no debit", given.position, stream, "a debit of the account", name)
                continue
            with self._findings.judging("invariants", _MORE, self._log, given.position, stream):
                drawn: dict[str, int] = dict(debit["draws"])
                per_grant = all(amount <= drawn.get(grant, 0) for grant, amount in given.by_grant.items())
                if given.total > debit["amount"] or given.overdrawn > debit.get("overdrawn", 0) or not per_grant:
                    self._add(_MORE, given.position, stream, debit["amount"], given.total)
        self._reversed.clear()

    def _add(self, what: str, position: int, account: str, expected: object, found: object) -> None:
        self._findings.add("invariants", what, self._log, position, account, expected, found)
