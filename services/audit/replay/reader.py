"""Reads one service's log in pages: order, versions and the Merkle tree are checked on the way.

It takes the raw JSON of events and hands each to a fold. What it keeps is the tree's frontier and the last
version of each stream. It must not know what the events mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from services.audit.replay.findings import Findings
from services.audit.replay.kinds import content_of
from services.audit.replay.leaves import leaf_hash_of
from services.audit.replay.prices import Raw
from shared.errors import AuditFailed
from shared.transparency.merkle import Tree

if TYPE_CHECKING:
    from services.audit.replay.debits import Debits

PAGE = 1_000
SECTION = 65_536  # events of a section by columns, at most
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
        self.last_leaf = b""  # hash of the last event that was read
        self.tree = Tree()
        self.wanted: set[int] = set()
        self.roots: dict[int, bytes] = {0: self.tree.root()}
        self._client = client
        self._fold = fold
        self._findings = findings
        self._progress = progress or (lambda _log, _done, _total: None)
        self._versions: dict[str, int] = {}
        self._leaf_hash = leaf_hash_of(log)
        self.debits: Debits | None = None  # what folds sections, where the source has the log by columns

    def head(self) -> int:
        """The service's word on how long its log is."""
        head: int = self._client.call(self._service, "head", **self._which)
        return head

    def read_on(self, to: int | None = None) -> int:
        """Read up to a position, or to the head as it is now; how far the log could be read."""
        target = self.head() if to is None else to
        while self.position < target:
            before = self.position
            if self.debits is not None:
                self._take_section(self.debits, min(SECTION, target - before))
            else:
                self._take(self._page(before, min(PAGE, target - before)))
            # It may be shorter than was said, which the checkpoint's size tells.
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
        try:
            return leaf, e["stream"], content_of(e["state"])
        except msgspec.DecodeError:
            return leaf, e["stream"], {}  # which was found when it was folded

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
        wanted, append = self.wanted, self.tree.append
        for e in page:
            position, stream, version, topic, state = e["position"], e["stream"], e["version"], e["topic"], e["state"]
            if position != self.position + 1:
                self._broken("positions have a gap", position, stream, self.position + 1, position)
            self.position = position
            self.last_leaf = self._leaf_hash(position, stream, version, topic, state)
            append(self.last_leaf)
            if self.tree.size in wanted:
                self.roots[self.tree.size] = self.tree.root()
            self._take_event(position, stream, version, topic, state)

    def _take_event(self, position: int, stream: str, version: int, topic: str, state: str | bytes) -> None:
        due = self._versions.get(stream, 0) + 1
        if version != due:
            self._broken("versions of a stream have a gap", position, stream, due, version)
        self._versions[stream] = version
        try:
            self._fold(position, stream, topic, content_of(state))
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
            self._broken("event is not of its kind", position, stream, topic, repr(error))

    def _take_section(self, debits: Debits, limit: int) -> None:
        """As `_take`, of events by columns: all are hashed at once, and ordinary debits folded so."""
        from services.audit.replay.columns import follow, grown, leaf_hashes, rows_of

        section = self._client.columns(self._service, after=self.position, limit=limit, **self._which)  # type: ignore[attr-defined]
        first, count = self.position + 1, len(section.positions)
        if not follow(section, first):
            raise AuditFailed(f"{self.log} does not go on with position {first}")
        leaves, start = leaf_hashes(self.log, section), first - 1
        for end in sorted({size for size in self.wanted if first <= size < first + count} | {first + count - 1}):
            self.tree = grown(self.tree, leaves[start - first + 1 : end - first + 1])
            if end in self.wanted:
                self.roots[end] = self.tree.root()
            start = end
        for begin, size in debits.pieces(section):
            piece = section.sliced(begin, size)
            for event in rows_of(piece, ~debits.fold(piece, self._versions)):
                self._take_event(*event)
        self.position, self.last_leaf = self.position + count, leaves[-1]

    def _broken(self, what: str, position: int, stream: str, expected: Any, found: Any) -> None:
        self._findings.add("invariants", what, self.log, position, stream, expected, found)
