"""The decision that gives back a debit."""

from __future__ import annotations

from typing import Any

from services.quota.domain.account import Account
from services.quota.domain.context import Context
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
    return [reversal, *(_regrant(d, account, stamp, context, index) for index, d in enumerate(ended))]


def _regrant(given: q.Draw, account: Account, stamp: dict[str, Any], context: Context, index: int) -> Event:
    """A new grant with the provenance of one that has ended, for as long as that one ran."""
    old = account.grants[given.grant].event
    return q.PointsGranted(
        **{**stamp, "request_id": f"{stamp['request_id']}/{index}"},
        amount=given.amount,
        source="adjustment",
        scope=old.scope,
        priority=old.priority,
        effective_at=context.at,
        expires_at=None if old.expires_at is None else context.at + (old.expires_at - old.effective_at),
        plan=old.plan,
        plan_version=old.plan_version,
        origin=given.grant,
    )
