"""Rating: plans, grants, usage and the catalogue become a bill. A pure function, asked twice it answers the same.

Money is exact (fractions of a fen) until a line's end and rounded there once, half away from zero; what
rounding took is the line's residual; the total is the sum of the lines. The rules in prose are in the
room's README; this is their order: plans (1 to 5), usage (6 to 10), credits (11), tax. It must not know where its
inputs come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from services.billing.domain.charges import Charge, Running
from services.billing.domain.lines import line_of
from services.billing.domain.plan_lines import Granted, plan_lines
from services.billing.domain.terms import Account, terms_as_you_go
from services.billing.domain.usage_lines import Used, usage_lines
from shared.catalogue.view import CatalogueView
from shared.contracts.billing import Bill
from shared.units import round_half_away

__all__ = ("Account", "Charge", "Granted", "Running", "Used", "rate", "vat_of")

VAT_PERCENT = 6  # value-added telecommunication and information services in China


def rate(
    account: Account,
    period: str,
    catalogue: CatalogueView,
    quota_position: int,
    quota_log: str = "quota",
    *,
    number: str = "",
    billing_position: int = 0,
    grants: Iterable[Granted] = (),
    usage: Iterable[Used] = (),
    late: Iterable[Used] = (),
    charges: Iterable[Charge] = (),
    running: Iterable[Running] = (),
    credit_fen: int = 0,
) -> Bill:
    """The bill of one account for a period, as known at `quota_position` of its shard's log, `billing_position` of
    billing's own and the catalogue's own position.

    `grants`: those that no subscription ordered; `credit_fen`: what is left of the account's credits.
    """
    terms = terms_as_you_go(account, period, catalogue, running)
    if account.closed_before(period, quota_position):
        terms = terms._replace(commitment_fen=0)
    lines = plan_lines(account.operator, charges, grants, catalogue)
    lines += usage_lines(usage, late, terms)
    total = sum(line.fen for line in lines)
    credit = min(credit_fen, total)
    if credit > 0:
        lines.append(line_of("credit", "Credit", -credit))
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
