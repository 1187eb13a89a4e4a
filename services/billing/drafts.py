"""Drafts: the bills that would be issued next, made on the same way and stored nowhere; at any time.

It must not know how bills are issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from services.billing import reading
from services.billing.cutoff import bounds, check_followed
from services.billing.domain.canonical import plain, sha256_of
from services.billing.questions import DraftBills
from services.billing.runs import ISSUE_MAX, bill_of, check_shard
from services.billing.usage import projection_name
from shared.catalogue.view import CatalogueView


def draft_bills(
    connection: sa.Connection, query: DraftBills, logs: Sequence[str], catalogue: CatalogueView
) -> dict[str, Any]:
    """Of the accounts behind `after` without a bill for the period; `logs`: quota's, by shard. Raises MalformedCommand,
    UnknownOperator, NotCaughtUp."""
    operator, period, shard = query.operator, query.period, query.quota_shard
    bounds(period)
    check_shard(connection, query, logs, catalogue)
    log = logs[shard]
    cut_off = query.quota_position
    if cut_off is None:
        cut_off = reading.followed(connection, projection_name(log))
    check_followed(connection, period, log, cut_off, operator)
    limit = min(query.limit, ISSUE_MAX)
    accounts = reading.unbilled(connection, operator, period, shard, cut_off, query.after, limit + 1)
    found = reading.inputs(connection, operator, period, cut_off, accounts[:limit])
    bills = [bill_of(each, period, catalogue, cut_off, log) for each in found]
    return {
        "operator": operator,
        "period": period,
        "quota_log": log,
        "quota_position": cut_off,
        "drafts": [{"bill": plain(bill), "bill_sha256": sha256_of(bill)} for bill in bills],
        "last": bills[-1].account if bills else query.after,
        "more": len(accounts) > limit,
    }
