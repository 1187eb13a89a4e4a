"""Archives that grow bit by bit, runs that are killed, and logs and files that are not what they were."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("pyarrow", reason="the extra `archive` is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

from services.audit.archive import writing
from services.audit.archive.queries import statement
from services.audit.archive.run import write_archive
from services.audit.archive.source import ArchiveSource
from services.audit.archive.verifying import verify_log
from services.audit.archive.writing import write_log
from services.audit.replay import run_audit
from shared.archive import manifest as m
from shared.archive.reading import LogArchive
from shared.errors import (
    AuditFailed,
    Busy,
    MalformedCommand,
    Unavailable,
)
from tests.folders import brief_folder
from tests.unit.archive_world import Client, Killed, World, a_few_days, files, replayed
from tests.unit.audit_world import EAST
from tests.waiting import eventually


@pytest.fixture
def folder() -> Iterator[Path]:
    with brief_folder() as name:
        yield Path(name)


@pytest.fixture
def changed(world: World, folder: Path) -> Path:
    """A copy of the archive, to be changed."""
    return Path(shutil.copytree(world.archive, folder / "archive"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PART_MAX", 40)
    monkeypatch.setattr(writing, "ROW_GROUP", 16)
    monkeypatch.setattr(writing, "PAGE", 7)


# --- bit by bit, and killed --------------------------------------------------------------------
@pytest.mark.usefixtures("small_parts")
def test_a_kill_at_any_write_costs_nothing_but_the_run(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every durable step is the last once; what is there then is the old archive, and the next run ends as any."""
    size, note = next((size, note) for size, note in world.checkpoints().items() if size > 60)
    about = world.about(note)
    whole = write_log(folder / "whole", about, world.rows.read, size)
    published = m.publish

    def run(place: Path, die_at: int) -> bool:
        steps = iter(range(die_at))

        def publish(writing_: Path, target: Path) -> None:
            if next(steps, None) is None:
                raise Killed
            published(writing_, target)

        with monkeypatch.context() as patch:
            patch.setattr(m, "publish", publish)
            try:
                write_log(place, about, world.rows.read, size)
            except Killed:
                return False
        return True

    for die_at in (0, 1, 3, 6, 10):
        place = folder / f"killed-{die_at}"
        for _ in range(2):
            if run(place, die_at):
                break
            assert m.load(m.log_folder(place, "quota")) is None  # a reader sees nothing that is half
        assert write_log(place, about, world.rows.read, size) == whole
        assert verify_log(place, "quota")["events"] == whole.size
        assert files(place) == files(folder / "whole")


def test_a_process_that_is_killed_goes_on(world: World, folder: Path) -> None:
    """The real thing: kill -9 while files are written, as soon as some are there."""
    script = """if True:
        import sys
        from pathlib import Path
        import msgspec
        from services.audit.archive import writing
        from services.audit.archive.databases import Rows
        from shared.archive import manifest
        writing.PART_MAX = 20
        about = msgspec.json.decode(sys.argv[2], type=manifest.Manifest)
        with Rows(sys.argv[3]) as rows:
            writing.write_log(Path(sys.argv[1]), about, rows.read, int(sys.argv[4]))
    """
    about = msgspec.json.encode(world.about()).decode()
    url = world.settings.database_url("quota")
    command = [sys.executable, "-c", script, str(folder), about, url, str(world.size)]
    place = m.log_folder(folder, "quota")
    for count in (1, 6):
        with subprocess.Popen(command) as process:
            eventually(lambda n=count: len(list(place.glob("day=*/*.parquet"))) >= n, within_s=60)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert m.load(place) is None
        unfinished = m.load(place, m.UNFINISHED)
        assert unfinished is None or len(unfinished.parts) >= count - 1
    read: list[int] = []

    def reading(after: int, limit: int) -> list[Any]:
        read.append(after)
        return world.rows.read(after, limit)

    assert write_log(folder, world.about(), reading, world.size).root_sha256 == world.manifests[0].root_sha256
    assert read[0] >= 20 * 3, "what was written is not read again"
    assert verify_log(folder, "quota")["events"] == world.size


def test_a_database_that_goes_away_costs_nothing(world: World, folder: Path, small_parts: None) -> None:
    def failing(after: int, limit: int) -> list[Any]:
        if after > 90:
            raise Unavailable("gone")
        return world.rows.read(after, limit)

    with pytest.raises(Unavailable):
        write_log(folder, world.about(), failing, world.size)
    started: list[int] = []

    def reading(after: int, limit: int) -> list[Any]:
        started.append(after)
        return world.rows.read(after, limit)

    assert write_log(folder, world.about(), reading, world.size).size == world.size
    assert started[0] > 0


def test_each_shard_has_an_archive_of_its_own(folder: Path) -> None:
    market = a_few_days(folder / "market", 30, shards=2)
    try:
        settings = market.quota.settings
        write_archive(Client(market), settings, folder / "archive")
        source = ArchiveSource(folder / "archive")
        for shard, of in enumerate(market.quota.shards):
            assert source.call("quota", "head", shard=shard) == of.log.head()
            found = source.call("quota", "events", after=2, limit=7, shard=shard)
            assert found["log"] == f"quota-{shard}"
            assert found["events"] == [e._asdict() for e in of.log.read(2, 7)]
        with pytest.raises(MalformedCommand):
            source.call("quota", "head", shard=2)
        for operator, account in market.accounts:
            assert statement(folder / "archive", operator, account)[0]["kind"] == "AccountOpened"
        shutil.rmtree(folder / "archive" / "log=quota-0")
        with pytest.raises(MalformedCommand, match="not all logs"):
            ArchiveSource(folder / "archive").call("quota", "head", shard=1)
    finally:
        market.close()


@pytest.mark.usefixtures("small_parts")
def test_an_archive_grows_and_stays_usable(world: World, folder: Path) -> None:
    keys = world.client.call("audit", "status")["verifier_keys"]
    sizes = list(world.checkpoints())
    assert len(sizes) > 5
    for size in (sizes[len(sizes) // 3], sizes[-2]):
        (made,) = write_archive(world.client, world.settings, folder, to={"quota": size})
        assert made.size == size
        assert verify_log(folder, "quota", keys["quota"])["events"] == size
        again = write_archive(world.client, world.settings, folder, to={"quota": max(size - 3, 1)})
        assert again == [made], "what is archived is not archived again"
    write_archive(world.client, world.settings, folder, to={"quota": world.size})
    assert verify_log(folder, "quota", keys["quota"])["root_sha256"] == world.manifests[0].root_sha256


def test_a_day_cuts_every_log_where_it_is_sealed(world: World, folder: Path) -> None:
    write_archive(world.client, world.settings, folder, before=date(2026, 6, 3))
    head = ArchiveSource(folder).call("quota", "head")
    assert 0 < head < world.client.call("quota", "head")
    assert world.rows.before(date(2026, 6, 3)) <= head
    _, findings, _ = replayed(ArchiveSource(folder))
    assert not findings.count, findings.differences


def test_two_runs_at_once_are_refused(world: World, folder: Path) -> None:
    def read(after: int, limit: int) -> list[Any]:
        with pytest.raises(Busy):
            write_log(folder, world.about(), world.rows.read, world.size)
        return world.rows.read(after, limit)

    assert write_log(folder, world.about(), read, world.size).size == world.size


# --- logs and files that are not what they were ----------------------------------------------------
def test_a_log_that_was_changed_is_not_archived(world: World, changed: Path, folder: Path) -> None:
    before = files(changed)

    def another(after: int, limit: int) -> list[Any]:
        page = world.rows.read(after, limit)
        return [row._replace(state=row.state.replace(b'"amount":', b'"amount":1')) for row in page]

    with pytest.raises(AuditFailed, match="not the log that was signed"):
        write_log(folder / "new", world.about(), another, world.size)
    assert m.load(m.log_folder(folder / "new", "quota")) is None
    for read in (lambda *_: [], lambda after, limit: world.rows.read(after + 1, limit)):
        with pytest.raises(AuditFailed, match="no whole section"):
            write_log(changed, world.about(), read, world.size + 10)
    assert files(changed) == before


@pytest.mark.parametrize("what", ["flipped", "cut", "gone", "swapped"])
@pytest.mark.parametrize("pattern", ["day=*/*.parquet", "tile/1/**/*"])
def test_a_file_that_was_changed_is_found(world: World, changed: Path, what: str, pattern: str) -> None:
    paths = sorted(p for p in (changed / "log=quota").glob(pattern) if p.is_file())
    data = paths[0].read_bytes()
    if what == "flipped":
        paths[0].write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif what == "cut":
        paths[0].write_bytes(data[:-9])
    elif what == "gone":
        paths[0].unlink()
    else:
        paths[0].write_bytes(paths[-1].read_bytes() if len(paths) > 1 else b"")
    with pytest.raises(AuditFailed):
        verify_log(changed, "quota")


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[1]", b'{"format":"tokengrid/archive/v9"}', b"\xff\xfe", b"null"],
)
def test_no_manifest_is_refused(changed: Path, text: bytes) -> None:
    (changed / "log=quota" / m.MANIFEST).write_bytes(text)
    with pytest.raises(AuditFailed):
        ArchiveSource(changed)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "day=2026-06-01/../x.parquet"])
def test_a_manifest_names_no_file_elsewhere(changed: Path, path: str) -> None:
    at = changed / "log=quota" / m.MANIFEST
    found = json.loads(at.read_text())
    found["parts"][0]["file"]["path"] = path
    at.write_text(json.dumps(found))
    with pytest.raises(AuditFailed):
        ArchiveSource(changed)


def test_a_hash_changed_with_its_file_is_still_found(changed: Path, world: World) -> None:
    """Whoever changes an event, its file's hash and the manifest's root cannot sign."""
    folder = changed / "log=quota"
    shutil.rmtree(folder)

    def another(after: int, limit: int) -> list[Any]:
        page = world.rows.read(after, limit)
        return [row._replace(state=row.state.replace(b'"amount":', b'"amount":1')) for row in page]

    about = m.Manifest(service="quota", shard=0, log="quota")
    made = write_log(changed, about, another, world.size)
    at = folder / m.MANIFEST
    honest = world.about()
    at.write_text(json.dumps({**json.loads(at.read_text()), "note": honest.note, "verifier_key": honest.verifier_key}))
    assert made.size == world.size
    with pytest.raises(AuditFailed, match="not the log that was signed"):
        verify_log(changed, "quota")


@pytest.mark.parametrize("form", [b"uuid", b"hex9", b"hexed", b"hex", b"", b"x", None])
def test_a_file_whose_columns_are_not_what_they_say_is_refused(changed: Path, form: bytes | None) -> None:
    """Somebody has changed what a column is said to be, and the hash with it."""
    opened = LogArchive.open(changed, "quota")
    path = opened.folder / opened.manifest.parts[0].file.path
    table = pq.read_table(path, partitioning=None)
    index = table.schema.get_field_index("state.request_id")
    field = table.schema.field(index).with_metadata(None if form is None else {"form": form})
    pq.write_table(table.cast(table.schema.set(index, field)), path)
    manifest = json.loads((opened.folder / m.MANIFEST).read_text())
    manifest["parts"][0]["file"]["sha256"] = m.sha256_of(path)
    (opened.folder / m.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AuditFailed):
        verify_log(changed, "quota")
    with pytest.raises(AuditFailed):
        statement(changed, EAST, "e0")


def nothing_in(array: Any) -> Any:
    """The same with nothing in the second place."""
    return pa.array([None if n == 1 else value for n, value in enumerate(array.to_pylist())], array.type)


HOSTILE: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "versions that are text": ("version", lambda a: a.cast(pa.string())),
    "versions of zero": ("version", lambda a: pa.array([0] * len(a), pa.int64())),
    "versions below zero": ("version", lambda a: pa.array([-1] * len(a), pa.int64())),
    "versions that are missing": ("version", nothing_in),
    "streams that are missing": ("stream", nothing_in),
    "topics that are bytes": ("topic", lambda a: a.cast(pa.binary())),
    "shapes that are missing": ("shape", nothing_in),
    "shapes of fields that are not there": ("shape", lambda a: pa.array(["nowhere"] * len(a))),
    "states that are missing": ("shape", lambda a: pa.array([""] * len(a))),
    "positions that are fractions": ("position", lambda a: a.cast(pa.float64())),
    "texts that are missing": ("state.at", nothing_in),
    "texts that are numbers": ("state.at", lambda a: pa.array(range(len(a)), pa.int64())),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_replay_refuses_columns_that_no_log_has(changed: Path, name: str) -> None:
    opened = LogArchive.open(changed, "quota")
    path = opened.folder / opened.manifest.parts[0].file.path
    table = pq.read_table(path, partitioning=None)
    column, spoil = HOSTILE[name]
    index = table.schema.get_field_index(column)
    array = spoil(table.column(column).combine_chunks())
    field = pa.field(column, array.type, metadata=table.schema.field(index).metadata)
    pq.write_table(table.set_column(index, field, array), path)
    source = ArchiveSource(changed)
    with pytest.raises(AuditFailed):
        run_audit(source, "2026-06", asks=False)
    with pytest.raises(AuditFailed):
        source.call("quota", "events", after=0, limit=10)
