"""Burn-down: from which grants an amount is drawn, and in which order.

Eligible are grants that are effective, not expired, cover the model and have something left that is
not held. Lower priority goes first, then sooner expiry (none last), then the older grant; after the
grants, the credit limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.quota.domain.account import Account, Hold
from shared.contracts.quota import CREDIT, Draw


def draw(account: Account, model: str, family: str, at: datetime, amount: int) -> tuple[tuple[Draw, ...], int]:
    """Where `amount` millipoints come from, and how much of it nothing covers."""
    draws: list[Draw] = []
    if amount > 0:
        for grant in account.burn_order:
            left = grant.available
            if left > 0 and grant.pays_for(model, family, at):
                if left >= amount:
                    draws.append(Draw(grant.name, amount))
                    return tuple(draws), 0
                draws.append(Draw(grant.name, left))
                amount -= left
        part = min(amount, account.credit_left)
        if part > 0:
            draws.append(Draw(CREDIT, part))
            amount -= part
    return tuple(draws), amount


def merged(*parts: Iterable[Draw]) -> tuple[Draw, ...]:
    """Draws added up by grant, in the order of first mention."""
    amounts: dict[str, int] = {}
    for part in parts:
        for one in part:
            amounts[one.grant] = amounts.get(one.grant, 0) + one.amount
    return tuple(Draw(grant, amount) for grant, amount in amounts.items())


def remaining(hold: Hold) -> tuple[Draw, ...]:
    """What a hold still holds, by grant."""
    return tuple(Draw(name, amount) for name, amount in hold.remaining.items() if amount > 0)
