"""The services' databases, SQLite or PostgreSQL: each is read in one snapshot, read only. No service is asked.

Snapshots are taken one after another, of what refers to others first. On a system at work they are not of one
instant, but nothing refers to what was not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from services.audit.sources.asked import Source, no_such_shard
from services.audit.stored import log_rows
from shared.errors import AuditFailed, SetupFailed, Unavailable

ORDER = ("audit", "quota", "billing", "routing", "catalog")
_c = log_rows.c
_ROW = (_c.position, _c.originator_id, _c.originator_version, _c.topic, _c.state)


class SnapshotSource(Source):
    """One connection for each log, in a transaction that stays as it is."""

    def __init__(self, connections: Mapping[str, sa.Connection]) -> None:
        self._connections = connections
        self._heads = {log: self._head(log) for log in connections}  # the first question makes the snapshot

    def log_of(self, service: str, shard: int) -> str:
        if shard == 0 and service in self._connections:
            return service
        if (log := f"{service}-{shard}") not in self._connections:
            raise no_such_shard(service, shard)
        return log

    def head(self, log: str) -> int:
        return self._heads[log]

    def events(self, log: str, after: int, limit: int) -> Sequence[tuple[int, str, int, str, str]]:
        chosen = sa.select(*_ROW).where(_c.position > after).order_by(_c.position).limit(limit)
        try:
            rows = self._connections[log].execute(chosen).all()
        except sa.exc.SQLAlchemyError as error:
            raise _unreadable(log, error) from None
        return [(*row[:4], _text(log, row[0], row[4])) for row in rows]

    def _head(self, log: str) -> int:
        try:
            return self._connections[log].execute(sa.select(sa.func.max(_c.position))).scalar() or 0
        except sa.exc.SQLAlchemyError as error:
            raise _unreadable(log, error) from None


@contextmanager
def snapshot(urls: Mapping[str, str]) -> Iterator[SnapshotSource]:
    """The logs of these databases, by log (`quota`, or `quota-0` and so on). Raises SetupFailed if a database is
    missing or is none, Unavailable if it cannot be reached."""
    with ExitStack() as stack:
        connections = {}
        for log in sorted(urls, key=lambda log: ORDER.index(log.partition("-")[0])):
            connections[log] = stack.enter_context(_connected(log, urls[log]))
        yield SnapshotSource(connections)


def urls_in(folder: Path) -> dict[str, str]:
    """The databases of the embedded services in a folder, by log. Raises SetupFailed if any is missing."""
    found = {service: folder / f"{service}.db" for service in ORDER}
    if not found["quota"].exists():
        shards = sorted(folder.glob("quota_[0-9]*.db"), key=lambda path: path.name)
        if shards:
            del found["quota"]
            found |= {f"quota-{path.stem.removeprefix('quota_')}": path for path in shards}
    for path in found.values():
        if not path.is_file():
            raise SetupFailed(f"There is no database {path}: name the folder of the services' databases with --var.")
    return {log: f"sqlite:///{path}" for log, path in found.items()}


@contextmanager
def _connected(log: str, url: str) -> Iterator[sa.Connection]:
    try:
        parsed = sa.make_url(url)
        postgresql = parsed.get_backend_name() == "postgresql"
        if not postgresql and parsed.get_backend_name() != "sqlite":
            raise SetupFailed(f"The database of {log} is neither SQLite nor PostgreSQL.")
        engine = sa.create_engine(parsed if postgresql else _read_only(log, parsed), poolclass=sa.NullPool)
    except (sa.exc.ArgumentError, ModuleNotFoundError):
        raise SetupFailed(f"The address of the database of {log} is none.") from None
    try:
        with engine.connect() as connection:
            if postgresql:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            else:  # the driver would begin no transaction for a SELECT
                connection.exec_driver_sql("BEGIN")
            yield connection
    except sa.exc.OperationalError as error:
        raise _unreadable(log, error) from None
    finally:
        engine.dispose()


def _read_only(log: str, url: sa.URL) -> str:
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise SetupFailed(f"There is no database {path} of {log}.")
    return f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true"


def _text(log: str, position: int, state: object) -> str:
    try:
        return bytes(state).decode()  # type: ignore[call-overload,no-any-return]
    except (UnicodeDecodeError, TypeError):
        raise AuditFailed(f"event {position} of {log} is no text") from None


def _unreadable(log: str, error: Exception) -> Unavailable:
    return Unavailable(f"the database of {log} cannot be read: {type(error).__name__}")
