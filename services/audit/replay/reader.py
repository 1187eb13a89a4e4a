"""Reads one service's log in pages: order, versions and the Merkle tree are checked on the way.

It takes the raw JSON of events and hands each to a fold. What it keeps is the tree's frontier and the last
version of each stream. It must not know what the events mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from services.audit.replay.findings import Findings
from services.audit.replay.leaves import leaf_hash_of
from services.audit.replay.prices import Raw
from shared.transparency.merkle import Tree

PAGE = 1_000
Fold = Callable[[int, str, str, Raw], None]
Progress = Callable[[str, int, int], None]


class Caller(Protocol):
    """What an audit needs of a client."""

    def call(self, service: str, method: str, /, **kwargs: Any) -> Any: ...


class LogReader:
    """One log, read once from its beginning. `position`: how far; `roots`: at each size that was asked for."""

    def __init__(
        self,
        client: Caller,
        log: str,
        fold: Fold,
        findings: Findings,
        progress: Progress | None = None,
        *,
        service: str = "",
        shard: int | None = None,
    ) -> None:
        """`service` has the log, where that is not its name; `shard`: which of several of its logs it is."""
        self.log = log
        self._service = service or log
        self._which = {} if shard is None else {"shard": shard}
        self.position = 0
        self.tree = Tree()
        self.wanted: set[int] = set()
        self.roots: dict[int, bytes] = {0: self.tree.root()}
        self._client = client
        self._fold = fold
        self._findings = findings
        self._progress = progress or (lambda _log, _done, _total: None)
        self._versions: dict[str, int] = {}
        self._leaf_hash = leaf_hash_of(log)

    def head(self) -> int:
        """The service's word on how long its log is."""
        head: int = self._client.call(self._service, "head", **self._which)
        return head

    def read_on(self, to: int | None = None) -> int:
        """Read up to a position, or to the head as it is now; how far the log could be read."""
        target = self.head() if to is None else to
        while self.position < target:
            limit = min(PAGE, target - self.position)
            page = self._page(self.position, limit)
            if not page:
                break  # the log is shorter than was said; the checkpoint's size tells
            before = self.position
            self._take(page)
            if self.position <= before:
                break  # it repeats itself, and would for ever
            self._progress(self.log, self.position, max(target, self.position))
        return self.position

    def event_at(self, position: int) -> tuple[bytes, str, Raw]:
        """Leaf hash, stream and content of one event, read again."""
        page = self._page(position - 1, 1)
        if not page or page[0]["position"] != position:
            return b"", "", {}
        e = page[0]
        leaf = self._leaf_hash(e["position"], e["stream"], e["version"], e["topic"], e["state"])
        return leaf, e["stream"], msgspec.json.decode(e["state"])

    def again(self, after: int, to: int) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
        """Leaf hash of each event behind `after`, up to `to`, and the event as it is answered, read again."""
        while after < to:
            page = self._page(after, min(PAGE, to - after))
            for e in page:
                yield self._leaf_hash(e["position"], e["stream"], e["version"], e["topic"], e["state"]), e
            if not page or page[-1]["position"] <= after:
                return
            after = page[-1]["position"]

    def _page(self, after: int, limit: int) -> list[Mapping[str, Any]]:
        answer = self._client.call(self._service, "events", after=after, limit=limit, **self._which)
        page: list[Mapping[str, Any]] = answer["events"]
        return page

    def _take(self, page: list[Mapping[str, Any]]) -> None:
        versions, wanted, append, decode = self._versions, self.wanted, self.tree.append, msgspec.json.decode
        for e in page:
            position, stream, version, topic, state = e["position"], e["stream"], e["version"], e["topic"], e["state"]
            if position != self.position + 1:
                self._broken("positions have a gap", position, stream, self.position + 1, position)
            due = versions.get(stream, 0) + 1
            if version != due:
                self._broken("versions of a stream have a gap", position, stream, due, version)
            versions[stream] = version
            self.position = position
            append(self._leaf_hash(position, stream, version, topic, state))
            if self.tree.size in wanted:
                self.roots[self.tree.size] = self.tree.root()
            try:
                event = decode(state)
                self._fold(position, stream, topic, event)
            except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
                self._broken("event is not of its kind", position, stream, topic, repr(error))

    def _broken(self, what: str, position: int, stream: str, expected: Any, found: Any) -> None:
        self._findings.add("invariants", what, self.log, position, stream, expected, found)
