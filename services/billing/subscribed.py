"""Billing's own log becomes what is known of subscriptions: what they charge, what is due, what quota is asked for.

A part of the projection `books`. What the events mean is in `domain/`; an order is a command that quota is to be sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from services.billing import tables as t
from services.billing.domain.cycle import day_in_shanghai
from services.billing.domain.metering import microseconds
from shared.clock import period_of
from shared.contracts import quota as q
from shared.contracts import subscriptions as s
from shared.contracts.base import Scope
from shared.eventstore.log import LoggedEvent
from shared.eventstore.rows import upsert

STREAM = "subscriptions:"
LOOK_AGAIN_US = 0  # due at once: whoever looks finds out whether something is to be done
PERIOD_KINDS = ("plan", "bundle", "trial")


def fold(connection: sa.Connection, page: Sequence[LoggedEvent]) -> None:
    """The events of subscriptions in a page of billing's log."""
    heard = [logged for logged in page if logged.stream.startswith(STREAM)]
    # Whole periods come in thousands, at midnight; what else happens to a subscription is rare.
    for run in _runs(heard):
        if isinstance(run[0].event, s.PlanPeriodStarted):
            _begin(connection, run)
        else:
            for logged in run:
                _happen(connection, logged)


def account_of(stream: str) -> tuple[str, str]:
    """Operator and account in the name of a stream of subscriptions."""
    operator, _, account = stream.removeprefix(STREAM).partition("/")
    return operator, account


def _runs(heard: Sequence[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
    """Neighbours of which all or none are beginnings of periods, no period of an account twice in one."""
    run: list[LoggedEvent] = []
    streams: set[str] = set()
    for logged in heard:
        begins = logged.topic == s.PlanPeriodStarted.TOPIC
        if run and (begins != (run[0].topic == s.PlanPeriodStarted.TOPIC) or logged.stream in streams):
            yield run
            run, streams = [], set()
        run.append(logged)
        streams.add(logged.stream)
    if run:
        yield run


# --- periods begin --------------------------------------------------------------------------------
def _begin(connection: sa.Connection, run: Sequence[LoggedEvent]) -> None:
    charges, due, orders, unsettled = [], [], [], []
    for logged in run:
        event = logged.event
        assert isinstance(event, s.PlanPeriodStarted)
        who = _who(logged)
        charges.append(who | _charge(logged.position, event))
        row = _due(logged, event.subscription, event.plan, microseconds(event.ends_at))
        due.append(
            {f"its_{name}": row[name] for name in ("operator", "account", "subscription")}
            | {f"new_{name}": row[name] for name in ("plan", "version", "due_us")}
        )
        if event.grant:
            about = {"subscription": event.subscription, "number": event.number}
            orders.append(who | about | _grant_order(logged.position, who, event))
            if event.rollover_max:
                unsettled.append(who | about | _unsettled("rollover", logged.position, event))
    connection.execute(sa.insert(t.charges), charges)
    connection.execute(
        sa.update(t.subscriptions)
        .where(
            *(
                t.subscriptions.c[name] == sa.bindparam(f"its_{name}")
                for name in ("operator", "account", "subscription")
            )
        )
        .values({name: sa.bindparam(f"new_{name}") for name in ("plan", "version", "due_us")}),
        due,
    )
    if orders:
        connection.execute(sa.insert(t.orders), orders)
    if unsettled:
        connection.execute(sa.insert(t.unsettled), unsettled)


def _charge(position: int, event: s.PlanPeriodStarted) -> dict[str, Any]:
    first, after = day_in_shanghai(event.starts_at), day_in_shanghai(event.ends_at)
    return {
        "position": position,
        "kind": event.source,
        "period": period_of(event.starts_at),
        "at_us": microseconds(event.starts_at),
        "starts_us": microseconds(event.starts_at),
        "ends_us": microseconds(event.ends_at),
        "subscription": event.subscription,
        "number": event.number,
        "plan": event.plan,
        "plan_version": event.plan_version,
        "phase": event.phase,
        "from_day": first.isoformat(),
        "to_day": after.fromordinal(after.toordinal() - 1).isoformat(),
        "fee_fen": event.fee_fen,
        "discount_percent": event.discount_percent,
        "part_days": event.part_days,
        "whole_days": event.whole_days,
        "price_fen": event.price_fen,
        "amount": event.allowance,
        "left_days": 0,
        "unused": 0,
        "cut_us": 0,
        "cut_position": 0,
    }


def _grant_order(position: int, who: dict[str, str], event: s.PlanPeriodStarted) -> dict[str, Any]:
    command = q.Grant(
        operator=who["operator"],
        account=who["account"],
        request_id=event.grant,
        amount=event.allowance,
        source=event.source,
        price_fen=event.price_fen,
        scope=event.scope,
        priority=event.priority,
        effective_at=event.starts_at,
        expires_at=event.ends_at,
        plan=event.plan,
        plan_version=event.plan_version,
        subscription=event.subscription,
    )
    return _order("grant", event.grant, position, command)


def _order(kind: str, name: str, position: int, command: q.QuotaCommand) -> dict[str, Any]:
    return {"kind": kind, "name": name, "position": position, "command": msgspec.json.encode(command).decode()}


def _unsettled(kind: str, position: int, event: s.PlanPeriodStarted) -> dict[str, Any]:
    """`terms`: of the points that may roll over."""
    terms = {"scope": event.scope, "priority": max(0, event.priority - 1), "plan": event.plan}
    made = msgspec.json.encode(terms | {"plan_version": event.plan_version}).decode()
    return {"grant": event.grant, "kind": kind, "position": position, "terms": made}


# --- whatever else --------------------------------------------------------------------------------
def _happen(connection: sa.Connection, logged: LoggedEvent) -> None:
    event, who = logged.event, _who(logged)
    match event:
        case s.PlanPeriodCancelled():
            _cut(connection, logged, microseconds(event.at))
            _undo(connection, logged, event.number, {"kind": "cancelled"})
            _withdraw(connection, logged, event.number)
            _settled(connection, who, event)
        case s.PlanPeriodCut():
            _cut(connection, logged, microseconds(event.at))
            _withdraw(connection, logged, event.number)
        case s.PlanPeriodCredited():
            known = {
                "left_days": event.left_days,
                "unused": event.unused,
                "from_day": day_in_shanghai(event.at).isoformat(),
            }
            _undo(connection, logged, event.number, {"kind": "credited", **known})
            _settled(connection, who, event)
        case s.PointsRolledOver():
            if event.grant:
                _roll_over(connection, logged, event)
            _settled(connection, who, event)
        case s.SubscriptionStarted():
            row = _due(logged, event.subscription, event.plan, microseconds(event.starts_at))
            connection.execute(sa.insert(t.subscriptions), [row | {"taken": logged.position}])
            return
    name = event.subscription  # type: ignore[attr-defined]
    connection.execute(
        sa.update(t.subscriptions)
        .where(*_of(t.subscriptions, who), t.subscriptions.c.subscription == name)
        .values(due_us=LOOK_AGAIN_US, version=logged.version)
    )


def _cut(connection: sa.Connection, logged: LoggedEvent, at_us: int) -> None:
    """A period does not run any more from an instant on, as known from this event on."""
    where = (*_period(_who(logged), logged.event), *_is_period())
    connection.execute(sa.update(t.charges).where(*where).values(cut_us=at_us, cut_position=logged.position))


def _undo(connection: sa.Connection, logged: LoggedEvent, number: int, changed: dict[str, Any]) -> None:
    """A charge that takes a period's back, in part or whole: the period's row again, with what is different."""
    event, who = logged.event, _who(logged)
    changed |= {"position": logged.position, "at_us": microseconds(event.at), "period": period_of(event.at)}
    period = _period_row(connection, who, event.subscription, number)  # type: ignore[attr-defined]
    connection.execute(sa.insert(t.charges), [period | changed])


def _withdraw(connection: sa.Connection, logged: LoggedEvent, number: int) -> None:
    """Order what is left of a period's points to be withdrawn, and wait for what quota says of it."""
    event, who = logged.event, _who(logged)
    subscription = event.subscription  # type: ignore[attr-defined]
    period = _period_row(connection, who, subscription, number)
    if not period["amount"]:
        return
    grant = f"plan/{subscription}/{number}"
    command = q.VoidGrant(
        operator=who["operator"],
        account=who["account"],
        request_id=f"{grant}/void",
        grant=grant,
        reason="the plan's period ended early",
    )
    about = {"subscription": subscription, "number": number}
    # It may be there already, of a period that was cut and then refused.
    order = who | about | _order("void", grant, logged.position, command)
    upsert(connection, t.orders, [order], lambda new: {"position": new.position})
    row = who | about | {"grant": grant, "kind": "cut", "position": logged.position, "terms": "{}"}
    upsert(connection, t.unsettled, [row], lambda new: {"kind": new.kind, "position": new.position})


def _roll_over(connection: sa.Connection, logged: LoggedEvent, event: s.PointsRolledOver) -> None:
    who = _who(logged)
    c = t.unsettled.c
    found = connection.execute(
        sa.select(c.terms).where(*_of(t.unsettled, who), c.subscription == event.subscription, c.number == event.number)
    ).scalar_one()
    terms: dict[str, Any] = msgspec.json.decode(found)
    command = q.Grant(
        operator=who["operator"],
        account=who["account"],
        request_id=event.grant,
        amount=event.amount,
        source="rollover",
        scope=msgspec.convert(terms.pop("scope"), Scope),
        effective_at=event.starts_at,
        expires_at=event.ends_at,
        subscription=event.subscription,
        **terms,
    )
    about = {"subscription": event.subscription, "number": event.number}
    connection.execute(sa.insert(t.orders), [who | about | _order("grant", event.grant, logged.position, command)])


def _settled(connection: sa.Connection, who: dict[str, str], event: Any) -> None:
    c = t.unsettled.c
    connection.execute(
        sa.delete(t.unsettled).where(
            *_of(t.unsettled, who), c.subscription == event.subscription, c.number == event.number
        )
    )


# --- rows -----------------------------------------------------------------------------------------
def _who(logged: LoggedEvent) -> dict[str, str]:
    operator, account = account_of(logged.stream)
    return {"operator": operator, "account": account}


def _of(table: sa.Table, who: dict[str, str]) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.operator == who["operator"], table.c.account == who["account"]


def _period(who: dict[str, str], event: Any) -> tuple[sa.ColumnElement[bool], ...]:
    c = t.charges.c
    return (*_of(t.charges, who), c.subscription == event.subscription, c.number == event.number)


def _is_period() -> tuple[sa.ColumnElement[bool], ...]:
    return (t.charges.c.kind.in_(PERIOD_KINDS),)


def _period_row(connection: sa.Connection, who: dict[str, str], subscription: str, number: int) -> dict[str, Any]:
    c = t.charges.c
    asked = sa.select(t.charges).where(
        *_of(t.charges, who), c.subscription == subscription, c.number == number, *_is_period()
    )
    return dict(connection.execute(asked).one()._mapping)


def _due(logged: LoggedEvent, subscription: str, plan: str, due_us: int) -> dict[str, Any]:
    return _who(logged) | {"subscription": subscription, "plan": plan, "version": logged.version, "due_us": due_us}
