"""The replay on many machines: each account is folded by itself, each file of the archive hashed by itself.

`python -m services.audit.archive.spark_job FOLDER` runs it, over the same files and with the same ledger as the replay
of one process; docs/spark.md says how on a cluster. What is shipped to the workers is `fold_account` and `hash_part`.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext

from services.audit.replay.findings import Findings
from services.audit.replay.kinds import content_of
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Prices
from shared.archive.hashing import Tiles, hashes_in, subtree
from shared.archive.reading import HASHED, LogArchive
from shared.errors import AuditFailed, SetupFailed
from shared.transparency.tiles import TILE_WIDTH

LOCAL = "local[*]"
TASKS = 4  # for each core: the last ones are not waited for long
UNREADABLE = (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError)

Event = tuple[int, int, str, bytes]  # position, version, topic, state
Difference = tuple[str, int, str, str, str]  # what, position, account, expected, found


class Folded(NamedTuple):
    """An account after its last event. `usage`: tokens debited, by kind; `state` as the read model must show it."""

    stream: str
    state: dict[str, Any]
    debited: int
    usage: dict[str, int]
    differences: tuple[Difference, ...]


class Replayed(NamedTuple):
    """A log after its last event. `accounts`: an RDD of `Folded`, kept on the workers."""

    size: int
    root: bytes
    accounts: Any


def fold_account(prices: Prices, log: str, stream: str, events: Iterable[Event]) -> Folded:
    """Fold one account's events, in any order given, by the auditor's own rules. Pure."""
    findings = Findings()
    usage: collections.Counter[str] = collections.Counter()
    ordered = sorted(events)

    def heard(_position: int, _account: object, topic: str, event: Mapping[str, Any]) -> None:
        if topic == "quota.TokensDebited:1":
            usage.update(event["usage"])

    def fetch(position: int) -> tuple[str, Any]:
        return stream, next(content_of(e[3]) for e in ordered if e[0] == position)

    ledger = Ledger(prices, findings, heard, fetch, log)
    for due, (position, version, topic, state) in enumerate(ordered, start=1):
        if version != due:
            findings.add("invariants", "versions of a stream have a gap", log, position, stream, due, version)
        try:
            ledger.apply(position, stream, topic, content_of(state))
        except UNREADABLE as error:
            findings.add("invariants", "event is not of its kind", log, position, stream, topic, repr(error))
    ledger.finish()
    account = ledger.accounts.get(stream)
    differences = tuple((d.what, d.position, d.account, str(d.expected), str(d.found)) for d in findings.differences)
    return Folded(stream, account.state() if account else {}, ledger.debited, dict(usage), differences)


def hash_part(folder: str, log: str, number: int) -> tuple[int, bytes, bytes, bytes]:
    """Of one file of the archive: its first position, and its leaf hashes, 256 at a time as the root over them. Pure.

    In three pieces: leaves up to a multiple of 256, roots, leaves behind the last multiple.
    """
    archive = _only(folder, log, number)
    first = archive.manifest.parts[0].first
    leaves = [leaf for group in archive.groups(first - 1) for leaf in group.leaf_hashes(log)]
    start = min(-(first - 1) % TILE_WIDTH, len(leaves))
    end = start + (len(leaves) - start) // TILE_WIDTH * TILE_WIDTH
    roots = [subtree(leaves[n : n + TILE_WIDTH]) for n in range(start, end, TILE_WIDTH)]
    return first, b"".join(leaves[:start]), b"".join(roots), b"".join(leaves[end:])


def root_of(parts: Sequence[tuple[int, bytes, bytes, bytes]]) -> bytes:
    """The root over all files, in the order of their positions."""
    tree = Tiles()
    for first, head, roots, tail in sorted(parts):
        if first != tree.size + 1:
            raise AuditFailed(f"there is no part of the archive that begins at position {tree.size + 1}")
        tree.append(hashes_in(head))
        tree.append(hashes_in(roots), level=1)
        tree.append(hashes_in(tail))
    return tree.root()


def replay(context: SparkContext, folder: Path, log: str = "quota") -> Replayed:
    """Replay one of quota's logs from an archive. Raises AuditFailed when the archive cannot be read or its root is not
    the one it states."""
    archive = LogArchive.open(folder, log)
    parts = len(archive.manifest.parts)
    numbers = context.parallelize(range(parts), max(min(parts, TASKS * context.defaultParallelism), 1))
    catalog = context.broadcast(_catalogue(folder))
    try:
        root = root_of(numbers.map(partial(hash_part, str(folder), log)).collect())
        if root.hex() != archive.manifest.root_sha256:
            raise AuditFailed(f"the events of {log} are not those that were archived")

        def fold(accounts: Iterable[tuple[str, Iterable[Event]]]) -> Iterable[Folded]:
            prices = _prices(catalog.value)  # once a partition
            return (fold_account(prices, log, stream, events) for stream, events in accounts)

        grouped = numbers.flatMap(partial(_events, str(folder), log)).groupByKey(TASKS * context.defaultParallelism)
        accounts = grouped.mapPartitions(fold).cache()
        accounts.count()
    except Py4JJavaError as error:
        raise AuditFailed(f"a worker could not read the archive: {_last_line(error)}") from None
    return Replayed(archive.manifest.size, root, accounts)


def _events(folder: str, log: str, number: int) -> Iterator[tuple[str, Event]]:
    archive = _only(folder, log, number)
    for group in archive.groups(archive.manifest.parts[0].first - 1):
        positions, streams, versions, topics = map(group.lists, HASHED)
        yield from zip(
            streams, zip(positions, versions, topics, group.states.to_pylist(), strict=True), strict=True
        )  # fmt: skip


def _only(folder: str, log: str, number: int) -> LogArchive:
    """One part of an archive."""
    archive = LogArchive.open(Path(folder), log)
    return LogArchive(
        archive.folder, msgspec.structs.replace(archive.manifest, parts=(archive.manifest.parts[number],))
    )


def _catalogue(folder: Path) -> list[tuple[int, str, str, bytes]]:
    rows = LogArchive.open(folder, "catalog").rows()
    return [(row.position, row.stream, row.topic, row.state) for section in rows for row in section]


def _prices(catalogue: Iterable[tuple[int, str, str, bytes]]) -> Prices:
    prices = Prices()
    for position, stream, topic, state in catalogue:
        prices.apply(position, stream, topic, content_of(state))
    return prices


def _last_line(error: Py4JJavaError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Error: " in line or "Failed: " in line]
    return lines[-1] if lines else type(error).__name__


def summary(replayed: Replayed) -> dict[str, Any]:
    """What it comes to: accounts, millipoints debited, tokens by kind, differences (the first twenty), root."""
    empty: tuple[int, int, dict[str, int], int] = (0, 0, {}, 0)

    def add(sums: Any, folded: Folded) -> Any:
        return _sum(sums, (1, folded.debited, folded.usage, len(folded.differences)))

    accounts, debited, usage, differences = replayed.accounts.aggregate(empty, add, _sum)
    return {
        "events": replayed.size,
        "root_sha256": replayed.root.hex(),
        "accounts": accounts,
        "debited": debited,
        "usage": dict(sorted(usage.items())),
        "differences_count": differences,
        "differences": replayed.accounts.flatMap(lambda folded: folded.differences).take(20),
    }


def _sum(one: Any, other: Any) -> Any:
    usage = {kind: one[2].get(kind, 0) + other[2].get(kind, 0) for kind in one[2].keys() | other[2].keys()}
    return (one[0] + other[0], one[1] + other[1], usage, one[3] + other[3])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="spark_job", description=__doc__)
    parser.add_argument("folder", type=Path, help="the archive, under the same path on every worker")
    parser.add_argument("--log", default="quota", help="which of quota's logs")
    parser.add_argument("--master", default="", help=f"of the cluster; default: what spark-submit says, or {LOCAL}")
    parser.add_argument("--balances", type=Path, help="write every account's state there, a line of JSON each")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # of the workers
    conf = SparkConf().setAppName("tokengrid-replay").set("spark.ui.showConsoleProgress", "false")
    conf.setMaster(asked.master or conf.get("spark.master", LOCAL) or LOCAL)
    with SparkContext(conf=conf) as context:
        try:
            replayed = replay(context, asked.folder.absolute(), asked.log)
        except (AuditFailed, SetupFailed) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        found = summary(replayed)
        if asked.balances:
            with asked.balances.open("w") as file:
                for folded in replayed.accounts.toLocalIterator():
                    file.write(json.dumps({"stream": folded.stream, **folded.state}) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["differences_count"] else 0


if __name__ == "__main__":
    # Under its own name: what is pickled for the workers must not be of `__main__`.
    from services.audit.archive import spark_job

    raise SystemExit(spark_job.main())
