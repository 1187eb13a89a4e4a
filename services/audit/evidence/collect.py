"""Collects a bill's evidence from the services: the streams it rests on, a checkpoint and a proof for each log.

It trusts nobody's word for what it collects, and need not: `verify` judges the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from services.audit.evidence.package import Event, Evidence, Proven
from shared.errors import AuditFailed, NotCaughtUp

PAGE = 1000
Progress = Callable[[str, int], None]


class Caller(Protocol):
    """What is needed of a client."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


def collect(client: Caller, number: str, progress: Progress = lambda _log, _events: None) -> Evidence:
    """What proves the bill `number`. `progress(log, events so far)` is told of each page.

    Raises AuditFailed if the logs do not have what a bill must rest on, NotCaughtUp while it is not sealed yet, and
    what the client raises.
    """
    streams = _Streams(client, progress)
    issued = streams.take("billing", f"bill:{number}")
    if not issued:
        raise AuditFailed(f"billing's log has no bill {number!r}")
    bill = msgspec.json.decode(issued[0].state)["bill"]
    account = f"{bill['operator']}/{bill['account']}"
    for other in _bills_of(client, bill["operator"], bill["account"]):
        if other != number:  # earlier ones say what this one carries; a later one nothing
            streams.take("billing", f"bill:{other}", before=issued[0].position)
    for kind in ("subscriptions", "credits"):
        streams.take("billing", f"{kind}:{account}")
    log = bill.get("quota_log", "quota")
    streams.take("quota", account, log, before=bill["quota_position"] + 1)
    for stream in sorted(set(_terms_of(bill, streams.events))):
        streams.take("catalog", stream)
    return Evidence(bill=number, logs=tuple(streams.proven()))


def _bills_of(client: Caller, operator: str, account: str) -> list[str]:
    after, found = "", []
    while True:
        page = client.call("billing", "bills", operator=operator, account=account, after=after, limit=PAGE)
        found += [bill["number"] for bill in page["bills"]]
        if not page["more"]:
            return found
        after = found[-1]


def _terms_of(bill: dict[str, Any], events: dict[str, list[Event]]) -> Iterator[str]:
    """The streams of the catalogue that rating or the ledger looked at."""
    operator = bill["operator"]
    for event in (each for of in events.values() for each in of):
        content = msgspec.json.decode(event.state)
        if plan := content.get("plan"):
            yield f"plan:{operator}/{plan}"
        if reference := content.get("rate_card"):
            yield f"rate_card:{reference.rpartition('@')[0]}"
        if model := content.get("model"):
            yield f"model:{model}"


class _Streams:
    """Whole streams, by log."""

    def __init__(self, client: Caller, progress: Progress) -> None:
        self.events: dict[str, list[Event]] = {}
        self._client, self._progress = client, progress

    def take(self, service: str, stream: str, log: str = "", before: int | None = None) -> list[Event]:
        """A stream of a service's log: all of it, or what stands before a position. `log`: its name, where the service
        has several."""
        log = log or service
        shard = int(log.partition("-")[2] or 0)
        found: list[Event] = []
        while True:
            after = found[-1].version if found else 0
            page = self._client.call(service, "stream", stream=stream, after=after, limit=PAGE, shard=shard)["events"]
            wanted = [e for e in page if before is None or e["position"] < before]
            found += [Event(e["position"], e["stream"], e["version"], e["topic"], e["state"]) for e in wanted]
            self._progress(log, len(self.events.get(log, ())) + len(found))
            if len(wanted) < PAGE:
                break
        self.events.setdefault(log, []).extend(found)
        return found

    def proven(self) -> Iterable[Proven]:
        """Of each log its events, the latest checkpoint, and one proof that leads there."""
        for log, events in sorted(self.events.items()):
            if not events:
                continue
            events.sort(key=lambda event: event.position)
            sealed = self._client.call("audit", "seal", log=log, position=events[-1].position)
            if sealed["size"] < events[-1].position:
                raise NotCaughtUp(f"{log} is sealed up to {sealed['size']}", {"log": log, "position": sealed["size"]})
            positions = [event.position for event in events]
            proof = self._client.call("audit", "multiproof", log=log, positions=positions, size=sealed["size"])
            yield Proven(log=log, checkpoint=sealed["note"], events=tuple(events), proof=proof["proof"])
