"""Writes a log's events into its archive, part by part, so that a kill at any point costs a part and nothing else.

The manifest that readers use changes once, at the end, after the root was compared with the signed one. A run that
goes on finds its finished parts in `unfinished.json`. It must not know where the events come from.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from services.audit.archive.verifying import check_note
from shared.archive import manifest as m
from shared.archive.hashing import Tiles, leaf_hashes
from shared.archive.reading import HASHED, LogArchive
from shared.archive.shredding import Row, array_of, fields_of, shred
from shared.clock import SHANGHAI
from shared.errors import AuditFailed, Busy, TokengridError

PART_MAX = 131_072  # events of a file: 5 MB of debits, a fraction of a second to read
PART_BYTES_MAX = 1 << 28  # of states; an array of Arrow's ends at 2 GiB
ROW_GROUP = 65_536  # events that are read to get at one of them
PAGE = 16_384  # events that are asked for at once
ZSTD_LEVEL = 9  # 5 % smaller than 3, and still a hundredth of the work
FIRST_DAY = "1970-01-01"  # of events before any that says when it was recorded

Read = Callable[[int, int], Sequence[Row]]
Progress = Callable[[str, int, int], None]

# As every event of ours begins; what begins otherwise is taken apart.
_BEGINS = re.compile(rb'\{"at":"[^"\\]*","recorded_at":("[^"\\]*")[,}]')
_RECORDED = re.compile(rb'"(\d{4}-\d{2}-\d{2}T\d{2}):[0-9:.]+Z"\Z')


def write_log(
    archive: Path,
    about: m.Manifest,
    read: Read,
    to: int,
    progress: Progress = lambda _log, _done, _total: None,
) -> m.Manifest:
    """Archive a log up to position `to`; what is there already is not written again.

    `about`: the empty manifest that names service, shard and log, with the `note` of size `to` and its verifier key.
    `read(after, limit)`: the log's events behind a position, in order. Raises AuditFailed when the log is not the one
    that is archived or was signed, or shorter: the archive is then as it was. Busy: another run is at work.
    """
    folder = m.log_folder(archive, about.log)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        sealed = m.load(folder)
        unfinished = _unfinished(folder, sealed)
        if unfinished is not None and (sealed is None or sealed.parts == unfinished.parts[: len(sealed.parts)]):
            start = unfinished
        else:
            start = sealed or msgspec.structs.replace(about, note="", verifier_key="")
        m.clean(folder, sealed, start)
        if to <= (sealed.size if sealed else 0):
            (folder / m.UNFINISHED).unlink(missing_ok=True)
            m.clean(folder, sealed)
            return sealed or about
        try:
            return _Run(folder, start, read, progress).to(to, about)
        except AuditFailed:  # whatever else it was, the next run goes on
            (folder / m.UNFINISHED).unlink(missing_ok=True)
            m.clean(folder, sealed)
            raise


def _unfinished(folder: Path, sealed: m.Manifest | None) -> m.Manifest | None:
    """The parts of a run that was killed, if all that it wrote is what it was."""
    try:
        found = m.load(folder, m.UNFINISHED)
    except TokengridError:
        return None  # whatever it is, the run begins anew
    before = set(sealed.files()) if sealed else set()
    if found is None or not all(_same(folder, file) for file in found.files() if file not in before):
        return None
    return found


def _same(folder: Path, file: m.File) -> bool:
    path = folder / file.path
    return path.is_file() and m.sha256_of(path) == file.sha256


class _Run:
    def __init__(self, folder: Path, start: m.Manifest, read: Read, progress: Progress) -> None:
        self._folder = folder
        self._read = read
        self._progress = progress
        self._parts = list(start.parts)
        self._size = start.size
        self._day = start.parts[-1].day if start.parts else FIRST_DAY
        there = LogArchive(folder, start)
        self._tree = Tiles(start.size, there.edge())
        if self._tree.root().hex() != start.root_sha256:
            raise AuditFailed(f"the archive of {start.log} is not what its manifest says")
        self._full = {file.path: file for file in start.tiles if ".p/" not in file.path}
        self._rows: list[Row] = []  # read and not written

    def to(self, to: int, about: m.Manifest) -> m.Manifest:
        while self._size < to:
            part, day = self._next_part(about.log, to)
            self._write(about.log, part, day)
            unfinished = self._manifest(msgspec.structs.replace(about, note="", verifier_key=""))
            if self._size < to:
                m.save(self._folder, unfinished, m.UNFINISHED)
            self._progress(about.log, self._size, to)
        made = self._manifest(about)
        if about.note:
            check_note(made)
        m.save(self._folder, made)
        (self._folder / m.UNFINISHED).unlink(missing_ok=True)
        m.clean(self._folder, made)
        return made

    def _next_part(self, log: str, to: int) -> tuple[list[Row], str]:
        """The next events that are all of one day. A day never goes back: an event whose clock was behind is filed
        with its predecessor, so a day is one section of the log."""
        self._fill(log, to)
        day = max(day_of(self._rows[0].state) or self._day, self._day)
        count = size = 0
        for row in self._rows:
            size += len(row.state)
            if count and (size > PART_BYTES_MAX or (day_of(row.state) or day) > day):
                break
            count += 1
        part, self._rows = self._rows[:count], self._rows[count:]
        return part, day

    def _fill(self, log: str, to: int) -> None:
        size = sum(len(row.state) for row in self._rows)
        while len(self._rows) < PART_MAX and size < PART_BYTES_MAX:
            after = self._size + len(self._rows)
            limit = min(PAGE, PART_MAX - len(self._rows), to - after)
            if not limit:
                return
            page = self._read(after, limit)
            if [row.position for row in page] != list(range(after + 1, after + len(page) + 1)) or not page:
                raise AuditFailed(f"the log {log} has no whole section behind position {after}", {"log": log})
            self._rows += page
            size += sum(len(row.state) for row in page)

    def _write(self, log: str, part: Sequence[Row], day: str) -> None:
        table = shred(part)
        states = pa.array([row.state for row in part], pa.binary())
        columns = [array_of(table, name) for name in HASHED]
        leaves = leaf_hashes(log, [*columns, states])
        path = f"day={day}/{part[0].position:019d}.parquet"
        target = self._folder / path
        target.parent.mkdir(exist_ok=True)
        writing = target.with_name(m.WRITING + target.name)
        write_table(table, writing)
        file = m.File(path, writing.stat().st_size, m.sha256_of(writing))
        m.publish(writing, target)
        for tile, content in self._tree.append(leaves):
            self._full[tile.path] = m.write_file(self._folder, tile.path, content)
        self._parts.append(m.Part(part[0].position, part[-1].position, day, file))
        self._size = part[-1].position

    def _manifest(self, about: m.Manifest) -> m.Manifest:
        partial = {tile.path: m.write_file(self._folder, tile.path, data) for tile, data in self._tree.partial()}
        return msgspec.structs.replace(
            about,
            size=self._size,
            root_sha256=self._tree.root().hex(),
            parts=tuple(self._parts),
            tiles=tuple({**self._full, **partial}.values()),
        )


def write_table(table: Any, path: Path) -> None:
    """A table of events as a Parquet file: columns of many different values without a dictionary."""
    integers = [f.name for f in table.schema if f.type == pa.int64() and f.name != "version"]
    fixed = [f.name for f in table.schema if pa.types.is_fixed_size_binary(f.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        row_group_size=ROW_GROUP,
        use_dictionary=[f.name for f in table.schema if f.name not in {*integers, *fixed}],
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )


def day_of(state: bytes) -> str | None:
    """The day in Shanghai on which an event was recorded; None for one that does not say."""
    begins = _BEGINS.match(state)
    return _day_of(begins[1] if begins else fields_of(state).get("recorded_at", b""))


@lru_cache(maxsize=65_536)
def _day_of(recorded_at: bytes) -> str | None:
    match = _RECORDED.match(recorded_at)
    try:
        if match:
            hour = datetime.strptime(match[1].decode(), "%Y-%m-%dT%H").replace(tzinfo=UTC)
            return (hour + timedelta(hours=8)).date().isoformat()  # Shanghai has no summer time
        return datetime.fromisoformat(msgspec.json.decode(recorded_at)).astimezone(SHANGHAI).date().isoformat()
    except (ValueError, TypeError, OverflowError, msgspec.DecodeError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(f"{folder} is being written by another process", {"folder": str(folder)}) from None
        yield
