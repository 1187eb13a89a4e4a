"""Lines 6 to 10 of a bill: usage and late usage, what the terms take off or add, nothing else.

The discount is of the exact sum of usage; cap and commitment are differences of rounded lines. It must not know what
plans cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from services.billing.domain.lines import line_of
from services.billing.domain.terms import Terms
from shared.contracts.billing import BillLine, LineKind, TokenSums
from shared.units import FEN_PER_YUAN, MILLIPOINTS_PER_POINT, yuan


class Used(NamedTuple):
    """Usage of a model under a rate card, summed; millipoints net of reversals."""

    model: str
    rate_card: str
    calls: int
    usage: TokenSums
    amount: int
    charged: int


def usage_lines(usage: Iterable[Used], late: Iterable[Used], terms: Terms) -> list[BillLine]:
    """What was used, by model and rate card, the late behind it; then discount, cap and commitment, where they have an
    effect."""
    usage, late = _by_model(usage), _by_model(late)
    lines = [_usage_line("usage", used, terms) for used in usage]
    lines += [_usage_line("late_usage", used, terms) for used in late]
    if terms.usage_discount_percent:
        percent, exact = terms.usage_discount_percent, _exact(sum(used.charged for used in (*usage, *late)), terms)
        if exact > 0:
            lines.append(line_of("discount", f"Discount on usage: {percent} %", -exact * percent / 100))
    fen = sum(line.fen for line in lines)
    if terms.cap_fen and fen > terms.cap_fen:
        lines.append(line_of("cap", f"Cap of {yuan(terms.cap_fen)} yuan on usage", terms.cap_fen - fen))
        fen = terms.cap_fen
    if terms.commitment_fen and fen < terms.commitment_fen:
        text = f"Commitment of {yuan(terms.commitment_fen)} yuan a month"
        lines.append(line_of("commitment", text, terms.commitment_fen - fen))
    return lines


def _by_model(usage: Iterable[Used]) -> Sequence[Used]:
    return sorted(usage, key=lambda used: (used.model, used.rate_card))


def _exact(charged: int, terms: Terms) -> Fraction:
    """Fen for millipoints."""
    return Fraction(charged * FEN_PER_YUAN, terms.points_per_yuan * MILLIPOINTS_PER_POINT)


def _usage_line(kind: LineKind, used: Used, terms: Terms) -> BillLine:
    return line_of(
        kind,
        f"{'Late usage' if kind == 'late_usage' else 'Usage'} of {used.model}",
        _exact(used.charged, terms),
        model=used.model,
        rate_card=used.rate_card,
        calls=used.calls,
        usage=used.usage,
        amount=used.amount,
        charged=used.charged,
    )
