"""Decisions about the account itself and its grants."""

from __future__ import annotations

from datetime import UTC

from services.quota.domain.account import Account
from services.quota.domain.burndown import remaining
from services.quota.domain.context import Context, ExpireGrant
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import AccountExists, IdempotencyConflict, LimitExceeded, MalformedCommand, UnknownGrant
from shared.units import AMOUNT_MAX

GRANTS_MAX = 10_000  # grants of one account that are not used up: each debit walks them


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
    ]
    return [q.AccountClosed(**stamp), *releases]


# --- grants ------------------------------------------------------------------------------------
def grant(command: q.Grant, account: Account, context: Context) -> list[Event]:
    if command.plan and command.plan_version:
        context.catalogue.plan_version(command.operator, command.plan, command.plan_version)
    elif command.plan:
        context.catalogue.plan(command.operator, command.plan, context.at)
    if command.request_id in account.grants:
        raise IdempotencyConflict(f"there is a grant {command.request_id!r}, given back by a reversal")
    effective_at = command.effective_at or context.at
    if command.expires_at is not None and command.expires_at <= effective_at:
        raise MalformedCommand(
            "grant: it would have expired before it is effective",
            {"command": command.NAME, "fields": {"expires_at": [f"must be after {effective_at.isoformat()}"]}},
        )
    if account.grants_left >= GRANTS_MAX:
        raise LimitExceeded(f"an account has at most {GRANTS_MAX} grants that are not used up", {"limit": GRANTS_MAX})
    refuse_above_most(account, command.amount)
    return [
        q.PointsGranted(
            **context.stamp(command),
            amount=command.amount,
            source=command.source,
            price_fen=command.price_fen,
            scope=command.scope,
            priority=command.priority,
            effective_at=effective_at.astimezone(UTC),
            expires_at=command.expires_at and command.expires_at.astimezone(UTC),
            plan=command.plan,
            plan_version=command.plan_version,
            subscription=command.subscription,
        )
    ]


def refuse_above_most(account: Account, more: int) -> None:
    """Raises LimitExceeded if the account would hold more than a JSON reader can count."""
    if account.balance + more > AMOUNT_MAX:
        raise LimitExceeded(f"an account holds at most {AMOUNT_MAX} millipoints", {"limit": AMOUNT_MAX})


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
