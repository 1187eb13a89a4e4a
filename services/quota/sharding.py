"""The number of shards, kept in every shard's own database: with another number, accounts would be looked for in
shards that do not have their events.

It must not know what a shard does.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from shared.config import Settings
from shared.errors import SetupFailed
from shared.eventstore.database import engine
from shared.eventstore.schema import EVENTS

_sharding = sa.table("sharding", sa.column("shard", sa.Integer), sa.column("shards", sa.Integer))


def keep_number(database: sa.Engine, shard: int, shards: int) -> None:
    """Write down, at the first start, which of how many shards this database is.

    Raises SetupFailed when it is another one's, or one of another number.
    """
    kept = _kept(database)
    if kept is None:
        try:
            with database.begin() as connection:
                connection.execute(sa.insert(_sharding).values(shard=shard, shards=shards))
        except sa.exc.IntegrityError:
            pass  # another process of this shard starts at the same time
        kept = _kept(database)
    if kept != (shard, shards):
        was, of = kept or (0, 0)
        raise SetupFailed(
            f"This database of quota is shard {was} of {of}, and cannot be shard {shard} of {shards}: set "
            f"TOKENGRID_QUOTA_SHARDS to {of}, or name the right databases. The number of shards is fixed for good at "
            "the first start."
        )


def refuse_other_shape(settings: Settings) -> None:
    """Raises SetupFailed when there are events of a deployment with one shard where several are wanted, or the
    other way round: their databases have other names, and would be passed over in silence."""
    several = settings.quota_shards > 1
    other = settings.model_copy(update={"quota_shards": 1 if several else 2})
    if "{service}" in settings.database and _has_events(url := other.database_url("quota")):
        name = sa.make_url(url).database
        wanted = "has all of quota's events in one shard" if several else "has quota's events of one of several shards"
        raise SetupFailed(
            f"{name} {wanted}, and TOKENGRID_QUOTA_SHARDS is {settings.quota_shards}. The number of shards is fixed "
            "for good at the first start."
        )


def _kept(database: sa.Engine) -> tuple[int, int] | None:
    with database.connect() as connection:
        row = connection.execute(sa.select(_sharding)).first()
    return (row.shard, row.shards) if row else None


def _has_events(url: str) -> bool:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not (parsed.database and Path(parsed.database).exists()):
        return False
    database = engine(url)
    try:
        with database.connect() as connection:
            if not sa.inspect(connection).has_table(EVENTS):
                return False
            found = connection.execute(sa.select(sa.literal(1)).select_from(sa.table(EVENTS)).limit(1)).first()
            return found is not None
    except sa.exc.OperationalError:  # there is no such database, or none that we may enter
        return False
    finally:
        database.dispose()
