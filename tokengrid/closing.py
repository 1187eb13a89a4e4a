"""The month's close, through the services, as a billing department would: wait for billing, bill, settle.

A month has one cut-off for each log of quota. The bills that are there tell which: so a close that was interrupted
goes on to the very bills that it would have come to. It must not know how a bill is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import eventlet

from shared.errors import LimitExceeded, MalformedCommand, TokengridError, UnknownOperator
from shared.messaging.client import Client
from tokengrid.following import RETRIES, await_positions, heads
from tokengrid.screen import Screen, Tick

BILLS_PAGE = 200
DEADLINE_S = 60.0  # a page of bills, or all statements, is more work than a call
# Of several closes of an operator at once one goes ahead in each commit; the others try again.
STANDSTILLS_MAX = 100
PAUSE_S = 0.05
REFUSALS = (LimitExceeded, MalformedCommand, UnknownOperator)  # of one operator, which do not keep the others waiting


class Part(NamedTuple):
    """An operator's accounts in one shard of quota; `missing`: how many bills at most are to be issued."""

    operator: str
    shard: int
    missing: int


class Closed(NamedTuple):
    """What a close has come to. `cut_offs`: by shard of quota; `operators`: as `close_status` tells of each;
    `refusals`: the refusal that ended a part."""

    cut_offs: list[int]
    operators: list[dict[str, Any]]
    refusals: dict[Part, TokengridError]
    statements: int


def close_month(
    client: Client,
    period: str,
    screen: Screen,
    operators: Sequence[str] = (),
    *,
    new_cut_offs: bool = False,
    settle: bool = True,
) -> Closed:
    """Issue all bills of a period that are missing, of all operators or of some; then the statements.

    `new_cut_offs`: cut off at the heads of quota's logs as they are now, whatever the bills that are there say. Raises
    whatever is not one operator's matter, such as PeriodOpen; then, and if it is killed, it can be called again.
    """
    ends = list(heads(client, "quota").values())

    def known() -> tuple[dict[str, Any], list[int]]:
        status = client.call("billing", "close_status", period=period, retries=RETRIES)
        return status, [0] * len(ends) if new_cut_offs else _cut_offs(status["operators"], len(ends))

    cut_offs = [cut_off or end for cut_off, end in zip(known()[1], ends, strict=True)]
    wait_for_billing(client, cut_offs, screen)
    # Only now does billing know every account up to there, and with them their operators and bills.
    status, cut_off_before = known()
    found = _chosen(client, period, status["operators"], operators)
    cut_offs = [cut_off or end for cut_off, end in zip(cut_off_before, cut_offs, strict=True)]
    parts = [
        Part(operator["operator"], shard, its["remaining"] + (its["late"] if new_cut_offs else 0))
        for operator in found
        for shard, its in enumerate(operator["shards"])
    ]
    unpinned = [shard for shard, cut_off in enumerate(cut_off_before) if not cut_off]
    with screen.stage("issuing the bills", "bills", sum(part.missing for part in parts)) as tick:
        refusals = _issue(client, period, parts, cut_offs, unpinned, tick)
    statements = 0
    if settle:
        agreed = [] if new_cut_offs else status["statement_cut_offs"]
        with screen.stage("settling between operators", "statements") as tick:
            for answer in _pieces(client, "settle_period", period=period, quota_positions=agreed or cut_offs):
                statements += answer["issued"]
                tick(statements)
    after = client.call("billing", "close_status", period=period, retries=RETRIES)["operators"]
    names = {operator["operator"] for operator in found}
    return Closed(cut_offs, [o for o in after if o["operator"] in names], refusals, statements)


def wait_for_billing(client: Client, ends: Sequence[int], screen: Screen) -> None:
    """Wait until billing has followed quota's logs to these positions, and show how far it is."""
    followed = client.call("billing", "status", retries=RETRIES)["followed"]["quota_shards"]
    begin = sum(map(min, followed, ends))
    with screen.stage("waiting for billing", "events", sum(ends) - begin) as tick:
        await_positions(client, "billing", "quota", ends, lambda reached, _end: tick(max(0, reached - begin)))


def _chosen(
    client: Client, period: str, found: Sequence[dict[str, Any]], operators: Sequence[str]
) -> list[dict[str, Any]]:
    """Those asked for, in order of their names; all that have accounts if none is."""
    if not operators:
        return list(found)
    by_name = {operator["operator"]: operator for operator in found}
    for name in set(operators) - by_name.keys():  # without accounts, or unknown: billing tells
        asked = client.call("billing", "close_status", period=period, operator=name, retries=RETRIES)
        by_name[name] = asked["operators"][0]
    return [by_name[name] for name in sorted(set(operators))]


def _cut_offs(operators: Sequence[dict[str, Any]], shards: int) -> list[int]:
    """By shard: where the period's bills that are there were cut off, at last; 0 where there is none."""
    return [max((operator["shards"][shard]["cut_off"] for operator in operators), default=0) for shard in range(shards)]


def _issue(
    client: Client, period: str, parts: Sequence[Part], cut_offs: Sequence[int], unpinned: Sequence[int], tick: Tick
) -> dict[Part, TokengridError]:
    """Issue the bills of each part; the refusals met."""
    refusals: dict[Part, TokengridError] = {}

    def issue(part: Part, **limit: int) -> Iterator[dict[str, Any]]:
        close = {"operator": part.operator, "quota_shard": part.shard, "quota_position": cut_offs[part.shard]}
        return _pieces(client, "issue_bills", period=period, **close, **limit)

    done = 0
    if len(cut_offs) > 1:
        # A bill of each shard first: with it the cut-off is on record, should this close not come that far.
        for shard in unpinned:
            first = next((part for part in parts if part.shard == shard and part.missing), None)
            if first is not None:
                try:
                    next(issue(first, limit=1))
                except REFUSALS as refusal:
                    refusals[first] = refusal
    for part in parts:
        left = part.missing
        try:
            for answer in issue(part, limit=BILLS_PAGE):
                left = answer["remaining"]
                tick(done + max(0, part.missing - left))
        except REFUSALS as refusal:
            refusals[part] = refusal
        done += max(0, part.missing - left)
    return refusals


def _pieces(client: Client, method: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Answers to the same call until nothing remains. Raises TokengridError if nothing moves any more."""
    standstills = 0
    while True:
        answer = client.call("billing", method, deadline_s=DEADLINE_S, retries=RETRIES, **fields)
        yield answer
        if not answer["remaining"]:
            return
        standstills = 0 if answer["issued"] else standstills + 1
        if standstills > STANDSTILLS_MAX:
            raise TokengridError(f"Billing leaves {answer['remaining']} of {method} undone: {fields}.")
        if standstills:
            eventlet.sleep(PAUSE_S)
