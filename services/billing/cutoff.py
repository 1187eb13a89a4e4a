"""What must hold before anything is issued for a period: it is over, and billing knows it up to the cut-off.

The cut-off is a position of quota's log, or of that of one of its shards. It must not know what is issued.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from services.billing import reading
from services.billing.usage import projection_name
from shared.clock import period_bounds
from shared.errors import MalformedCommand, NotCaughtUp, PeriodOpen
from shared.sharding import shard_named


def malformed(field: str, complaint: str) -> MalformedCommand:
    """A refusal that names its field."""
    return MalformedCommand(f"{field} {complaint}", {"fields": {field: [complaint]}})


def bounds(period: str) -> tuple[datetime, datetime]:
    """`period_bounds`, refusing months outside the calendar."""
    try:
        return period_bounds(period)
    except ValueError:
        raise malformed("period", "no month of the calendar") from None


def check_ended(period: str, at: datetime) -> None:
    """Raises PeriodOpen while the period runs."""
    end = bounds(period)[1]
    if at < end:
        raise PeriodOpen(f"{period} ends at {end.isoformat()}", {"period": period, "ends_at": end.isoformat()})


def check_followed(connection: sa.Connection, period: str, log: str, cut_off: int, operator: str | None = None) -> None:
    """Raises NotCaughtUp while billing is behind the cut-off, MalformedCommand for one that lies too early.

    Usage recorded while the period ran is kept as sums, so the cut-off must be behind all of it; the head of
    quota's log at any moment after the period's end is.
    """
    followed = reading.followed(connection, projection_name(log))
    if followed < cut_off:
        details = {"log": log, "position": followed, "head": cut_off}
        raise NotCaughtUp(f"the log {log} is followed up to {followed}, not yet to {cut_off}", details)
    least = reading.on_time_until(connection, period, shard_named(log), operator)
    if cut_off < least:
        raise malformed("quota_position", f"must be at least {least}: usage of {period} was recorded up to there")
