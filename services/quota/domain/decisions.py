"""What a command does to an account: one pure function each, from state and command to events.

A refusal raises and changes nothing. Errors are raised in their order of precedence
(`shared.errors.PRECEDENCE`). Time, the catalogue and records of the past come in by `Context`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.quota.domain import calls, reversals, wallet
from services.quota.domain.account import Account
from services.quota.domain.context import Context, ExpireGrant, ExpireReservation
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import AccountClosed, AccountSuspended, UnknownAccount

Decision = Callable[[Any, Account, Context], list[Event]]


def decide(command: q.QuotaCommand, account: Account, context: Context) -> list[Event]:
    """What happens to the account. Raises a TokengridError if the command is refused."""
    if account.status != "open":
        _refuse_unless_possible(command, account)
    return DECISIONS[type(command)](command, account, context)


def _refuse_unless_possible(command: q.QuotaCommand, account: Account) -> None:
    """What an account that is not open may still do."""
    name = f"{command.operator}/{command.account}"
    if isinstance(command, q.OpenAccount):
        return
    if account.status is None:
        raise UnknownAccount(f"no account {name}", {"operator": command.operator, "account": command.account})
    if account.status == "closed" and not isinstance(command, ExpireGrant):
        raise AccountClosed(f"account {name} is closed")
    if account.status == "suspended" and _spends(command):
        raise AccountSuspended(f"account {name} is suspended")


def _spends(command: q.QuotaCommand) -> bool:
    """What a suspended account may not do. Usage that happened is never lost: settle and overdraw stay."""
    if isinstance(command, q.Debit):
        return command.on_insufficient == "refuse"
    return isinstance(command, q.Reserve | q.Extend)


DECISIONS: dict[type[q.QuotaCommand], Decision] = {
    q.OpenAccount: wallet.open_account,
    q.Grant: wallet.grant,
    q.VoidGrant: wallet.void_grant,
    q.Reserve: calls.reserve,
    q.Extend: calls.extend,
    q.Settle: calls.settle,
    q.Release: calls.release,
    q.Debit: calls.debit,
    q.Reverse: reversals.reverse,
    q.SetCreditLimit: wallet.set_credit_limit,
    q.Suspend: wallet.suspend,
    q.Resume: wallet.resume,
    q.CloseAccount: wallet.close_account,
    ExpireReservation: calls.expire_reservation,
    ExpireGrant: wallet.expire_grant,
}
