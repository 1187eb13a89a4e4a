"""A log's own archive, for the service whose database has dropped these events: sections, streams, single events.

Each file is hashed before its first use, and the archive must go on from the one that had the events when they were
dropped. Whatever is wrong with it is Unavailable: the service says so, and never answers from anything else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shared.archive import manifest as m
from shared.archive.reading import LogArchive
from shared.errors import TokengridError, Unavailable
from shared.eventstore.dropped import Row
from shared.transparency.merkle import root_at


class ArchivedLog:
    """The archive in `folder` as the past of the log `log`. It is opened when it is first needed, and again once it has
    grown."""

    def __init__(self, folder: Path, log: str) -> None:
        self._folder = folder
        self._log = log
        self._opened: _Checked | None = None
        self._expected: tuple[int, str] = (0, "")
        self._alone = threading.Lock()  # an archive keeps what it has read last

    def expect(self, size: int, root: str) -> None:
        """Raises Unavailable when the archive does not go on from the one of this size and root (hex)."""
        with self._reading() as there:
            if there is not None and self._expected == (size, root):
                return
            opened = _Checked.open(self._folder, self._log)
            if opened.manifest.size < size or root_at(opened.hashes(size), size).hex() != root:
                raise Unavailable(f"the archive in {self._folder} is not the one that has the events of {self._log}")
            self._opened, self._expected = opened, (size, root)

    def rows(self, after: int, limit: int) -> list[Row]:
        """Exactly `limit` events behind position `after`."""
        found: list[Row] = []
        with self._reading() as archive:
            while len(found) < limit:
                group = archive.group_at(after + len(found) + 1)
                found += group.sliced(after + len(found) + 1 - group.first, limit - len(found)).rows()
        return found

    def at(self, positions: Sequence[int]) -> list[Row]:
        """The events at these positions, in this order."""
        with self._reading() as archive:
            found: dict[int, Row] = {}
            for position in sorted(positions):
                group = archive.group_at(position)
                found[position] = group.sliced(position - group.first, 1).rows()[0]
            return [found[position] for position in positions]

    def stream(self, stream: str, after: int, until: int) -> list[Row]:
        """A stream's events with the versions `after + 1` to `until`, all of them."""
        found: list[Row] = []
        with self._reading() as archive:
            for rows in archive.of_stream(stream):
                found += [row for row in rows if after < row[2] <= until]
                if found and found[-1][2] == until:
                    break
        if [row[2] for row in found] != list(range(after + 1, until + 1)):
            raise Unavailable(f"the archive in {self._folder} has not all of {stream}")
        return found

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._alone:
                yield self._opened
        except Unavailable:
            raise
        except (TokengridError, StopIteration) as error:
            raise Unavailable(f"the archive of {self._log} in {self._folder} cannot be read: {error}") from error


class _Checked(LogArchive):
    """It hashes a file before it reads it, and keeps little in memory."""

    groups_kept = 2

    def __init__(self, folder: Path, manifest: m.Manifest) -> None:
        super().__init__(folder, manifest)
        self._checked: set[str] = set()

    def _parquet(self, part: m.Part) -> Any:
        if part.file.path not in self._checked:
            self.check(part.file)
            self._checked.add(part.file.path)
        return super()._parquet(part)
