"""Decisions about the account itself and its grants."""

from __future__ import annotations

from services.quota.domain.account import Account
from services.quota.domain.burndown import remaining
from services.quota.domain.context import Context, ExpireGrant
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import AccountExists, LimitExceeded, UnknownGrant
from shared.units import AMOUNT_MAX

GRANTS_MAX = 10_000  # live grants of one account: each debit walks them


def open_account(command: q.OpenAccount, account: Account, context: Context) -> list[Event]:
    context.catalogue.operator(command.operator, context.at)
    if account.status is not None:
        raise AccountExists(f"account {command.operator}/{command.account} exists")
    if command.plan:
        context.catalogue.plan(command.operator, command.plan, context.at)
    return [
        q.AccountOpened(
            **context.stamp(command),
            subscriber=command.subscriber,
            plan=command.plan,
            credit_limit=command.credit_limit,
        )
    ]


def set_credit_limit(command: q.SetCreditLimit, _: Account, context: Context) -> list[Event]:
    return [q.CreditLimitSet(**context.stamp(command), credit_limit=command.credit_limit)]


def suspend(command: q.Suspend, _: Account, context: Context) -> list[Event]:
    return [q.AccountSuspended(**context.stamp(command), reason=command.reason)]


def resume(command: q.Resume, _: Account, context: Context) -> list[Event]:
    return [q.AccountResumed(**context.stamp(command))]


def close_account(command: q.CloseAccount, account: Account, context: Context) -> list[Event]:
    stamp = context.stamp(command)
    releases = [
        q.ReservationReleased(
            **{**stamp, "request_id": f"{command.request_id}/{index}"},
            reservation=name,
            amount=hold.amount,
            draws=remaining(hold),
            reason="account closed",
        )
        for index, (name, hold) in enumerate(account.holds.items())
        if not hold.expired
    ]
    return [q.AccountClosed(**stamp), *releases]


# --- grants ------------------------------------------------------------------------------------
def grant(command: q.Grant, account: Account, context: Context) -> list[Event]:
    if command.plan and command.plan_version:
        context.catalogue.plan_version(command.operator, command.plan, command.plan_version)
    elif command.plan:
        context.catalogue.plan(command.operator, command.plan, context.at)
    if len(account.grants) >= GRANTS_MAX:
        raise LimitExceeded(f"an account has at most {GRANTS_MAX} grants", {"limit": GRANTS_MAX})
    if sum(g.available + g.reserved for g in account.grants.values()) + command.amount > AMOUNT_MAX:
        raise LimitExceeded(f"an account holds at most {AMOUNT_MAX} millipoints", {"limit": AMOUNT_MAX})
    return [
        q.PointsGranted(
            **context.stamp(command),
            amount=command.amount,
            source=command.source,
            price_fen=command.price_fen,
            scope=command.scope,
            priority=command.priority,
            effective_at=command.effective_at or context.at,
            expires_at=command.expires_at,
            plan=command.plan,
            plan_version=command.plan_version,
        )
    ]


def void_grant(command: q.VoidGrant, account: Account, context: Context) -> list[Event]:
    found = account.grants.get(command.grant)
    if found is None:
        raise UnknownGrant(f"no grant {command.grant!r}", {"grant": command.grant})
    return [q.GrantVoided(**context.stamp(command), grant=command.grant, amount=found.available, reason=command.reason)]


def expire_grant(command: ExpireGrant, account: Account, context: Context) -> list[Event]:
    found = account.grants.get(command.grant)
    if found is None or found.available <= 0 or not found.ended(context.at):
        return []
    if found.void:  # something held came back after it was voided
        return [q.GrantVoided(**context.stamp(command), grant=command.grant, amount=found.available)]
    return [q.GrantExpired(**context.stamp(command), grant=command.grant, amount=found.available)]
