"""Questions to an archive in SQL, by DuckDB over its Parquet files: an account's events, and what they come to.

Only the columns that a question names are read. It must not know what an event means beyond its topic's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq

from shared.archive import manifest as m
from shared.archive.reading import MALFORMED, LogArchive
from shared.archive.shredding import states
from shared.errors import AuditFailed, UnknownAccount


def statement(archive: Path, operator: str, account: str) -> list[dict[str, Any]]:
    """Everything that happened to an account, by version, in the form of quota's `statement`:
    `{"kind", "position", "version", **fields}`. Raises UnknownAccount."""
    stream = f"{operator}/{account}"
    found = [
        {"kind": topic.partition(".")[2].partition(":")[0], "position": position, "version": version, **fields}
        for log in m.logs_of(archive)
        if (opened := LogArchive.open(archive, log)).manifest.service == "quota"
        for position, version, topic, fields in _of_stream(opened, stream)
    ]
    if not found:
        raise UnknownAccount(f"no account {stream} in the archive", {"operator": operator, "account": account})
    return found


def sums(archive: Path, log: str) -> dict[str, dict[str, int]]:
    """Of a log: how many events of each topic, and of how many streams."""
    opened = LogArchive.open(archive, log)
    paths = [str(opened.folder / part.file.path) for part in opened.manifest.parts]
    if not paths:
        return {}
    with duckdb.connect(":memory:") as connection:
        rows = connection.execute(
            "SELECT topic, count(*), count(DISTINCT stream) FROM read_parquet(?, union_by_name = true)"
            " GROUP BY topic ORDER BY topic",
            [paths],
        ).fetchall()
    return {topic: {"events": events, "streams": streams} for topic, events, streams in rows}


def _of_stream(log: LogArchive, stream: str) -> Iterator[tuple[int, int, str, Mapping[str, Any]]]:
    version = 0
    with duckdb.connect(":memory:") as connection:
        for part in log.manifest.parts:
            path = log.folder / part.file.path
            for *of, state in _selected(connection, path, stream):
                version += 1
                if of[1] != version:
                    raise AuditFailed(f"{stream} has no version {version} in the archive of {log.manifest.log}")
                yield *of, msgspec.json.decode(state)


def _selected(connection: duckdb.DuckDBPyConnection, path: Path, stream: str) -> Iterable[tuple[int, int, str, bytes]]:
    """Position, version, topic and state of a stream's events in one file."""
    try:
        schema = pq.read_schema(path)
        found = connection.sql(
            "SELECT * FROM read_parquet(?, hive_partitioning = false) WHERE stream = ? ORDER BY position",
            params=[str(path), stream],
        )
        table = found.to_arrow_table().cast(schema)  # with the file's own types, and what it says of them
        columns = (table.column(name).to_pylist() for name in ("position", "version", "topic"))
        return zip(*columns, states(table).to_pylist(), strict=True)
    except (OSError, duckdb.Error, *MALFORMED) as error:
        raise AuditFailed(f"{path} cannot be read: {error}") from None
