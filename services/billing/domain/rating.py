"""Rating: grants, usage and the catalogue become a bill. A pure function, asked twice it answers the same.

Money is exact (fractions of a fen) until a line's end and rounded there once, half away from zero; what
rounding took is the line's residual; the total is the sum of the lines. The rules in prose are in the
room's README. It must not know where its inputs come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from services.billing.domain.charges import Charge, Running
from shared.catalogue.view import CatalogueView
from shared.clock import period_bounds
from shared.contracts.billing import Bill, BillLine, LineKind, TokenSums
from shared.contracts.catalog import Plan
from shared.errors import UnknownPlan
from shared.units import FEN_PER_YUAN, MILLIPOINTS_PER_POINT, POINTS_PER_YUAN, round_half_away, yuan

VAT_PERCENT = 6  # value-added telecommunication and information services in China
TEXT_MAX = 500  # a line's text, as the published language bounds it

# Grants that appear on a bill, in its order; an adjustment moves points and no money.
GRANT_KINDS: dict[str, LineKind] = {
    "plan": "plan_fee",
    "bundle": "bundle",
    "purchase": "purchase",
    "trial": "trial",
    "promotion": "trial",
}
KIND_ORDER: tuple[LineKind, ...] = ("plan_fee", "bundle", "purchase", "trial")


class Account(NamedTuple):
    """Whom the bill is for. `plan` is the offer named when the account was opened."""

    operator: str
    account: str
    opened_at: datetime
    plan: str = ""


class Granted(NamedTuple):
    """A grant with its price. `at_us`: microseconds since 1970."""

    at_us: int
    position: int
    source: str
    amount: int
    price_fen: int = 0
    plan: str = ""
    plan_version: int = 0


class Used(NamedTuple):
    """Usage of a model under a rate card, summed; millipoints net of reversals."""

    model: str
    rate_card: str
    calls: int
    usage: TokenSums
    amount: int
    charged: int


def rate(
    account: Account,
    period: str,
    catalogue: CatalogueView,
    quota_position: int,
    quota_log: str = "quota",
    *,
    number: str = "",
    grants: Iterable[Granted] = (),
    usage: Iterable[Used] = (),
    late: Iterable[Used] = (),
    billing_position: int = 0,
    charges: Iterable[Charge] = (),  # noqa: ARG001 - rated with the terms of subscriptions
    running: Sequence[Running] = (),  # noqa: ARG001
    credit_fen: int = 0,
) -> Bill:
    """The bill of one account for a period, as known at `quota_position` of its shard's log, `billing_position` of
    billing's own and the catalogue's own position. `credit_fen`: what is left of the account's credits."""
    price = points_per_yuan(account, period, catalogue)
    lines = grant_lines(account.operator, grants, catalogue)
    lines += [_usage_line("usage", used, price) for used in _by_model(usage)]
    lines += [_usage_line("late_usage", used, price) for used in _by_model(late)]
    total = sum(line.fen for line in lines)
    if (credit := min(credit_fen, total)) > 0:
        lines.append(BillLine(kind="credit", text="Credit", fen=-credit))
        total -= credit
    return Bill(
        number=number,
        operator=account.operator,
        account=account.account,
        period=period,
        lines=tuple(lines),
        total_fen=total,
        vat_percent=VAT_PERCENT,
        vat_fen=vat_of(total),
        calls=sum(line.calls for line in lines),
        tokens=sum(line.usage.total for line in lines),
        debited=sum(line.amount for line in lines if line.kind in ("usage", "late_usage")),
        quota_position=quota_position,
        quota_log=quota_log,
        catalog_position=catalogue.position,
        billing_position=billing_position,
    )


def vat_of(total_fen: int) -> int:
    """The value-added tax that a price includes."""
    return round_half_away(Fraction(total_fen * VAT_PERCENT, 100 + VAT_PERCENT))


def points_per_yuan(account: Account, period: str, catalogue: CatalogueView) -> int:
    """The price as you go: of the account's plan at the period's start, else at its opening, else list price."""
    if account.plan:
        for at in (period_bounds(period)[0], account.opened_at):
            found = catalogue.in_force(Plan, f"{account.operator}/{account.plan}", at)
            if found is not None:
                return found.item.points_per_yuan or POINTS_PER_YUAN
    return POINTS_PER_YUAN


def grant_lines(operator: str, grants: Iterable[Granted], catalogue: CatalogueView) -> list[BillLine]:
    """Plan fees with their discounts, bundles, purchases, trials; inside a kind by time and position."""
    by_kind: dict[LineKind, list[Granted]] = {kind: [] for kind in KIND_ORDER}
    for grant in sorted(grants, key=lambda g: (g.at_us, g.position)):
        kind = GRANT_KINDS.get(grant.source)
        if kind is not None:
            by_kind[kind].append(grant)
    return [
        line
        for kind, found in by_kind.items()
        for grant in found
        for line in _LINES[kind](grant, _plan_of(operator, grant, catalogue))
    ]


def _plan_of(operator: str, grant: Granted, catalogue: CatalogueView) -> Plan | None:
    if not grant.plan or not grant.plan_version:
        return None
    try:
        return catalogue.plan_version(operator, grant.plan, grant.plan_version)
    except UnknownPlan:
        return None


def _plan_fee(grant: Granted, plan: Plan | None) -> list[BillLine]:
    name = plan.name if plan else grant.plan or "plan"
    fee = plan.fee_fen if plan else grant.price_fen
    lines = [_grant_line("plan_fee", name, fee, grant, grant.amount)]
    if grant.price_fen != fee:
        lines.append(_grant_line("discount", f"Discount on {name}", grant.price_fen - fee, grant, 0))
    return lines


def _bundle(grant: Granted, plan: Plan | None) -> list[BillLine]:
    text = f"Tokens bundled with {grant.plan or 'another product'}"
    if plan and plan.bundle:
        sold = plan.bundle
        text = (
            f"Tokens bundled with {sold.product}: {sold.token_share_percent}% of the bundle price "
            f"of {yuan(sold.bundle_price_fen)} yuan"
        )
    return [_grant_line("bundle", text, grant.price_fen, grant, grant.amount)]


def _purchase(grant: Granted, plan: Plan | None) -> list[BillLine]:
    text = f"Points purchased: {plan.name}" if plan else "Points purchased"
    return [_grant_line("purchase", text, grant.price_fen, grant, grant.amount)]


def _trial(grant: Granted, plan: Plan | None) -> list[BillLine]:
    text = "Trial points" if grant.source == "trial" else "Promotional points"
    return [_grant_line("trial", f"{text}: {plan.name}" if plan else text, 0, grant, grant.amount)]


_LINES: dict[LineKind, Callable[[Granted, Plan | None], list[BillLine]]] = {
    "plan_fee": _plan_fee,
    "bundle": _bundle,
    "purchase": _purchase,
    "trial": _trial,
}


def _grant_line(kind: LineKind, text: str, fen: int, grant: Granted, amount: int) -> BillLine:
    return BillLine(
        kind=kind, text=text[:TEXT_MAX], fen=fen, plan=grant.plan, plan_version=grant.plan_version, amount=amount
    )


def _by_model(usage: Iterable[Used]) -> Sequence[Used]:
    return sorted(usage, key=lambda used: (used.model, used.rate_card))


def _usage_line(kind: LineKind, used: Used, price: int) -> BillLine:
    exact = Fraction(used.charged * FEN_PER_YUAN, price * MILLIPOINTS_PER_POINT)
    fen = round_half_away(exact)
    residual = exact - fen
    return BillLine(
        kind=kind,
        text=f"{'Late usage' if kind == 'late_usage' else 'Usage'} of {used.model}",
        fen=fen,
        model=used.model,
        rate_card=used.rate_card,
        calls=used.calls,
        usage=used.usage,
        amount=used.amount,
        charged=used.charged,
        residual=f"{residual.numerator}/{residual.denominator}",
    )
