"""What is in one log's archive: its files with their hashes, its size and root, and the checkpoint that signs them.

`manifest.json` names a whole, sealed archive and is replaced in one step, so whoever reads finds the last or the
next one. While a run is under way its files are named in `unfinished.json`. It must not know how events are stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shared.errors import AuditFailed, SetupFailed
from shared.transparency.merkle import EMPTY_ROOT
from shared.transparency.tiles import Tile

FORMAT = "tokengrid/archive/v1"
MANIFEST, UNFINISHED = "manifest.json", "unfinished.json"
WRITING = ".writing-"  # before the name of a file that is not whole yet
LOG = "log="  # before a log's name in its folder's

_PART = re.compile(r"day=\d{4}-\d{2}-\d{2}/\d{19}\.parquet\Z", re.ASCII)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive, by its path in the log's folder."""

    path: str
    bytes: int
    sha256: str


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The events at the positions `first` to `last`, all of one `day` in Shanghai."""

    first: int
    last: int
    day: str
    file: File


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The positions 1 to `size` of a log. `note`: the signed checkpoint of just this size; empty for audit's own log,
    which nobody signs."""

    format: str = FORMAT
    service: str
    shard: int
    log: str
    size: int = 0
    root_sha256: str = EMPTY_ROOT.hex()
    note: str = ""
    verifier_key: str = ""
    parts: tuple[Part, ...] = ()
    tiles: tuple[File, ...] = ()

    def files(self) -> Iterator[File]:
        yield from (part.file for part in self.parts)
        yield from self.tiles


def log_folder(archive: Path, log: str) -> Path:
    return archive / f"{LOG}{log}"


def logs_of(archive: Path) -> list[str]:
    """The logs that are in an archive, in no meaningful order. Raises SetupFailed where there is none."""
    found = sorted(f.parent.name.removeprefix(LOG) for f in archive.glob(f"{LOG}*/{MANIFEST}"))
    if not found:
        raise SetupFailed(f"There is no archive in {archive}: `tokengrid audit archive write` makes one.")
    return found


def load(folder: Path, name: str = MANIFEST) -> Manifest | None:
    """The manifest in a log's folder; None where there is none. Raises AuditFailed for what is none."""
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AuditFailed(f"{folder / name} is no manifest: {error}") from None
    if found.format != FORMAT:
        raise AuditFailed(f"{folder / name} is of the format {found.format!r}, not {FORMAT!r}")
    _check(folder / name, found)
    return found


def _check(where: Path, manifest: Manifest) -> None:
    """Positions without a gap, and no path that leads elsewhere."""
    due = 1
    for part in manifest.parts:
        if part.first != due or part.last < due or not _PART.match(part.file.path):
            raise AuditFailed(f"{where}: the part {part.file.path!r} does not follow position {due - 1}")
        due = part.last + 1
    if due != manifest.size + 1:
        raise AuditFailed(f"{where}: parts end at position {due - 1}, not at {manifest.size}")
    for tile in manifest.tiles:
        Tile.parse(tile.path)  # raises MalformedCommand


def save(folder: Path, manifest: Manifest, name: str = MANIFEST) -> None:
    """Replace the manifest in one step, durable on return. What it names must be durable before."""
    write_file(folder, name, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def write_file(folder: Path, path: str, data: bytes) -> File:
    """Write a file so that it is there whole or not at all, durable on return."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    writing = target.with_name(WRITING + target.name)
    writing.write_bytes(data)
    publish(writing, target)
    return File(path, len(data), hashlib.sha256(data).hexdigest())


def publish(writing: Path, target: Path) -> None:
    """Give a file that was written its name; durable on return."""
    for path in (writing, None, target.parent, target.parent.parent):
        if path is None:
            writing.rename(target)
            continue
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def clean(folder: Path, *kept: Manifest | None) -> None:
    """Remove what a run that was killed has left, and partial tiles that later ones replace."""
    named = {file.path for manifest in kept if manifest for file in manifest.files()}
    for pattern in ("day=*/*.parquet", f"day=*/{WRITING}*", f"{WRITING}*", "tile/**/*"):
        for path in folder.glob(pattern):
            if path.is_file() and path.relative_to(folder).as_posix() not in named:
                path.unlink()
    for day in folder.glob("day=*"):
        with contextlib.suppress(OSError):  # not empty
            day.rmdir()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
