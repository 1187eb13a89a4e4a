"""The terms as you go: what usage costs that no grant has paid for, and which plan says so.

It must not know what was used.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from services.billing.domain.charges import Running
from services.billing.domain.metering import microseconds
from shared.catalogue.view import CatalogueView
from shared.clock import period_bounds
from shared.contracts.catalog import Plan
from shared.errors import UnknownPlan
from shared.units import POINTS_PER_YUAN


class Account(NamedTuple):
    """Whom the bill is for. `plan` is the offer named when the account was opened; `closed`: the position of its
    closing in quota's log, 0 while it is open, and `closed_us` when that was, in microseconds since 1970."""

    operator: str
    account: str
    opened_at: datetime
    plan: str = ""
    closed: int = 0
    closed_us: int = 0

    def closed_before(self, period: str, quota_position: int) -> bool:
        """Whether it was closed when a period began, as known at a position of quota's log."""
        return 0 < self.closed <= quota_position and self.closed_us <= microseconds(period_bounds(period)[0])


class Terms(NamedTuple):
    """The price of points, a discount on usage, the most and the least that a month of it costs (0: no bound)."""

    points_per_yuan: int = POINTS_PER_YUAN
    usage_discount_percent: int = 0
    cap_fen: int = 0
    commitment_fen: int = 0


def terms_as_you_go(account: Account, period: str, catalogue: CatalogueView, running: Iterable[Running] = ()) -> Terms:
    """Those of the first running plan with usage as you go; else of the account's plan in force at the period's start,
    else at its opening; else list price."""
    for taken in running:
        plan = plan_named(account.operator, taken.plan, taken.plan_version, catalogue)
        if plan is not None and plan.overage == "payg":
            return _terms_of(plan)
    if account.plan:
        for at in (period_bounds(period)[0], account.opened_at):
            found = catalogue.in_force(Plan, f"{account.operator}/{account.plan}", at)
            if found is not None:
                return _terms_of(found.item)
    return Terms()


def plan_named(operator: str, plan: str, number: int, catalogue: CatalogueView) -> Plan | None:
    """The very version of a plan that a grant or period names; None where the catalogue does not have it, as it has no
    version 0."""
    try:
        return catalogue.plan_version(operator, plan, number)
    except UnknownPlan:
        return None


def _terms_of(plan: Plan) -> Terms:
    return Terms(
        plan.points_per_yuan or POINTS_PER_YUAN, plan.usage_discount_percent, plan.cap_fen, plan.commitment_fen
    )
