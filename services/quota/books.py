"""An account's books as an answer: what there is, what is held, what is owed, and what became of each grant.

It knows an account's state and nothing of where it came from. Amounts are millipoints.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.quota.domain.account import Account, Grant


def books(account: Account, at: datetime) -> dict[str, Any]:
    """The answer to `balance`, but for the names; expiry is judged at `at`."""
    return {
        "status": account.status,
        "version": account.version,
        "available": account.available_in_all(at),
        "reserved": sum(g.reserved for g in account.grants.values()) + account.credit_reserved,
        "credit_limit": account.credit_limit,
        "credit_left": account.credit_left,
        "overdrawn": account.overdrawn,
        "grants": [_grant(g, at) for g in account.grants.values()],
    }


def _grant(g: Grant, at: datetime) -> dict[str, Any]:
    return {
        "grant": g.name,
        "source": g.event.source,
        "plan": g.event.plan,
        "granted": g.event.amount,
        "available": g.available,
        "reserved": g.reserved,
        "debited": g.debited,
        "reversed": g.reversed,
        "expired": g.expired,
        "voided": g.voided,
        "ended": g.ended(at),
        "expires_at": g.event.expires_at.isoformat() if g.event.expires_at else None,
    }
