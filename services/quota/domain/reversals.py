"""The decision that gives back a debit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import count
from typing import Any

from services.quota.domain.account import Account
from services.quota.domain.context import Context
from services.quota.domain.wallet import refuse_above_most
from shared.clock import LATEST
from shared.contracts import quota as q
from shared.contracts.base import Event
from shared.errors import ReversalExceedsDebit, UnknownDebit


def reverse(command: q.Reverse, account: Account, context: Context) -> list[Event]:
    """Give back in reverse order of the draw: what was owed first, the first grant last."""
    event = context.find(command.debit)
    if not isinstance(event, q.TokensDebited):
        raise UnknownDebit(f"no debit {command.debit!r}", {"debit": command.debit})
    given = account.reversals.get(command.debit, {})
    reversible = event.amount - sum(given.values())
    amount = reversible if command.amount is None else command.amount
    if amount > reversible or reversible == 0:
        raise ReversalExceedsDebit(
            f"at most {reversible} of debit {command.debit!r} can be reversed", {"reversible": reversible}
        )
    left = amount
    overdrawn = min(left, event.overdrawn - given.get("", 0))
    left -= overdrawn
    draws: list[q.Draw] = []
    for taken in reversed(event.draws):
        back = min(left, taken.amount - given.get(taken.grant, 0))
        if back > 0:
            draws.append(q.Draw(taken.grant, back))
            left -= back
    assert left == 0, "a debit is its draws and what was overdrawn"
    refuse_above_most(account, sum(d.amount for d in draws if d.grant != q.CREDIT))
    ended = [d for d in draws if d.grant != q.CREDIT and account.grants[d.grant].ended(context.at)]
    stamp = context.stamp(command)
    reversal = q.DebitReversed(
        **stamp,
        debit=command.debit,
        model=event.model,
        rate_card=event.rate_card,
        amount=amount,
        draws=tuple(draws),
        overdrawn=overdrawn,
        regranted=tuple(d.grant for d in ended),
        reason=command.reason,
    )
    names = _free_names(command.request_id, account)
    return [reversal, *(_regrant(next(names), d, account, stamp, context) for d in ended)]


def _free_names(request_id: str, account: Account) -> Iterator[str]:
    """Names for grants that no request of their own names: a client may have given one of them away before."""
    return (name for n in count() if (name := f"{request_id}/{n}") not in account.grants)


def _regrant(name: str, given: q.Draw, account: Account, stamp: dict[str, Any], context: Context) -> Event:
    """A new grant with the provenance of one that has ended, for as long as that one ran."""
    old = account.grants[given.grant].event
    return q.PointsGranted(
        **{**stamp, "request_id": name},
        amount=given.amount,
        source="adjustment",
        scope=old.scope,
        priority=old.priority,
        effective_at=context.at,
        expires_at=_expiry(old, context.at),
        plan=old.plan,
        plan_version=old.plan_version,
        origin=given.grant,
    )


def _expiry(old: q.PointsGranted, at: datetime) -> datetime | None:
    """As long from `at` as the old grant ran; the calendar has an end."""
    if old.expires_at is None:
        return None
    runs = old.expires_at - old.effective_at
    return at + runs if runs < LATEST - at else LATEST
