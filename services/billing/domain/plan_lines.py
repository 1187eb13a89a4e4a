"""Lines 1 to 5 of a bill: periods of plans, grants, and what is given back.

Inside a kind, periods come before grants, each by time and position. It must not know what was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from services.billing.domain.charges import Charge, exact_credit, exact_discount, exact_fee
from services.billing.domain.lines import line_of
from services.billing.domain.terms import plan_named
from shared.catalogue.view import CatalogueView
from shared.contracts.billing import BillLine, LineKind
from shared.contracts.catalog import Plan
from shared.units import yuan

# What appears on a bill: an adjustment or rollover moves points and no money.
KINDS: dict[str, LineKind] = {
    "plan": "plan_fee",
    "bundle": "bundle",
    "credited": "plan_credit",
    "cancelled": "plan_credit",
    "purchase": "purchase",
    "trial": "trial",
    "promotion": "trial",
}


class Granted(NamedTuple):
    """A grant with its price. `at_us`: microseconds since 1970."""

    at_us: int
    position: int
    source: str
    amount: int
    price_fen: int = 0
    plan: str = ""
    plan_version: int = 0


def plan_lines(
    operator: str, charges: Iterable[Charge], grants: Iterable[Granted], catalogue: CatalogueView
) -> list[BillLine]:
    """Plan fees with their discounts, bundles, credits for plans, purchases, trials."""
    by_kind: dict[LineKind, list[BillLine]] = {kind: [] for kind in KINDS.values()}
    for charge in sorted(_standing(charges), key=lambda c: (c.at_us, c.position)):
        plan = plan_named(operator, charge.plan, charge.plan_version, catalogue)
        by_kind[KINDS[charge.kind]] += _CHARGED[charge.kind](charge, plan)
    for grant in sorted(grants, key=lambda g: (g.at_us, g.position)):
        if grant.source in KINDS:
            plan = plan_named(operator, grant.plan, grant.plan_version, catalogue)
            by_kind[KINDS[grant.source]] += _GRANTED[grant.source](grant, plan)
    return [line for lines in by_kind.values() for line in lines]


# --- periods ---------------------------------------------------------------------------------
def _standing(charges: Iterable[Charge]) -> list[Charge]:
    """Without the periods that are both charged and cancelled here: nothing is due for them, nothing is given back."""
    charges = list(charges)
    periods = {(c.subscription, c.number) for c in charges if c.kind not in ("credited", "cancelled")}
    cancelled = {(c.subscription, c.number) for c in charges if c.kind == "cancelled"}
    gone = periods & cancelled
    return [c for c in charges if (c.subscription, c.number) not in gone]


def _fee(charge: Charge, plan: Plan | None) -> list[BillLine]:
    text = _bundled(charge.plan, plan) if charge.kind == "bundle" else _name(charge, plan)
    about = (charge.fee_fen, charge.part_days, charge.whole_days)
    lines = [line_of(KINDS[charge.kind], text, exact_fee(*about), **_about(charge), amount=charge.amount)]
    if charge.discount_percent:
        less = exact_discount(*about, charge.discount_percent)
        lines.append(line_of("discount", f"Discount on {_name(charge, plan)}", -less, **_about(charge)))
    return lines


def _free(charge: Charge, plan: Plan | None) -> list[BillLine]:
    return [line_of("trial", _titled("Trial points", plan), 0, **_about(charge), amount=charge.amount)]


def _credited(charge: Charge, plan: Plan | None) -> list[BillLine]:
    if not charge.price_fen:
        return []
    back = exact_credit(charge.price_fen, charge.left_days, charge.part_days, charge.unused, charge.amount)
    return [line_of("plan_credit", f"Unused part of {_name(charge, plan)}", -back, **_about(charge))]


def _cancelled(charge: Charge, plan: Plan | None) -> list[BillLine]:
    if not charge.price_fen:
        return []
    return [line_of("plan_credit", f"Cancelled: {_name(charge, plan)}", -charge.price_fen, **_about(charge))]


_CHARGED: dict[str, Callable[[Charge, Plan | None], list[BillLine]]] = {
    "plan": _fee,
    "bundle": _fee,
    "trial": _free,
    "credited": _credited,
    "cancelled": _cancelled,
}


def _name(charge: Charge, plan: Plan | None) -> str:
    """The plan's name, and that of the phase the period is in."""
    if plan is None:
        return charge.plan or "plan"
    phase = plan.phases[charge.phase - 1].name if 1 <= charge.phase <= len(plan.phases) else ""
    return f"{plan.name}: {phase}" if phase else plan.name


def _about(charge: Charge) -> dict[str, str | int]:
    return {
        "plan": charge.plan,
        "plan_version": charge.plan_version,
        "subscription": charge.subscription,
        "from_day": charge.from_day,
        "to_day": charge.to_day,
    }


# --- grants that no subscription ordered -----------------------------------------------------
def _plan_fee(grant: Granted, plan: Plan | None) -> list[BillLine]:
    name = plan.name if plan else grant.plan or "plan"
    fee = plan.fee_fen if plan else grant.price_fen
    lines = [_grant_line("plan_fee", name, fee, grant, grant.amount)]
    if grant.price_fen != fee:
        lines.append(_grant_line("discount", f"Discount on {name}", grant.price_fen - fee, grant))
    return lines


def _bundle(grant: Granted, plan: Plan | None) -> list[BillLine]:
    return [_grant_line("bundle", _bundled(grant.plan, plan), grant.price_fen, grant, grant.amount)]


def _purchase(grant: Granted, plan: Plan | None) -> list[BillLine]:
    return [_grant_line("purchase", _titled("Points purchased", plan), grant.price_fen, grant, grant.amount)]


def _trial(grant: Granted, plan: Plan | None) -> list[BillLine]:
    text = "Trial points" if grant.source == "trial" else "Promotional points"
    return [_grant_line("trial", _titled(text, plan), 0, grant, grant.amount)]


_GRANTED: dict[str, Callable[[Granted, Plan | None], list[BillLine]]] = {
    "plan": _plan_fee,
    "bundle": _bundle,
    "purchase": _purchase,
    "trial": _trial,
    "promotion": _trial,
}


def _grant_line(kind: LineKind, text: str, fen: int, grant: Granted, amount: int = 0) -> BillLine:
    return line_of(kind, text, fen, plan=grant.plan, plan_version=grant.plan_version, amount=amount)


# --- texts of both ---------------------------------------------------------------------------
def _titled(text: str, plan: Plan | None) -> str:
    return f"{text}: {plan.name}" if plan else text


def _bundled(key: str, plan: Plan | None) -> str:
    if plan is None or plan.bundle is None:
        return f"Tokens bundled with {key or 'another product'}"
    sold = plan.bundle
    return (
        f"Tokens bundled with {sold.product}: {sold.token_share_percent}% of the bundle price "
        f"of {yuan(sold.bundle_price_fen)} yuan"
    )
