"""Settlement: what operators owe each other for calls served across. Pure.

Wholesale is priced by the tariff in force on the debit's day (tariffs take effect at midnight in
Shanghai), exactly, and rounded once per line: gross, then the discount on the exact gross.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

from shared.catalogue.view import CatalogueView
from shared.clock import SHANGHAI
from shared.contracts.base import TOKEN_CLASSES, Rates
from shared.contracts.billing import Statement, StatementLine, TokenSums
from shared.contracts.catalog import Tariff
from shared.units import MILLIPOINTS_PER_FEN, round_half_away


class Served(NamedTuple):
    """What an operator served for another on one day (`YYYY-MM-DD`) with one model; `amount`: retail millipoints."""

    model: str
    day: str
    calls: int
    usage: TokenSums
    amount: int


class _Line:
    def __init__(self, tariff: Tariff | None) -> None:
        self.tariff = tariff
        self.calls = self.amount = 0
        self.tokens = dict.fromkeys(TOKEN_CLASSES, 0)

    def add(self, served: Served) -> None:
        self.calls += served.calls
        self.amount += served.amount
        for name in TOKEN_CLASSES:
            self.tokens[name] += getattr(served.usage, name)

    def wholesale(self) -> Fraction:
        """Millipoints, exact."""
        if self.tariff is None:
            return Fraction(0)
        if self.tariff.rates != Rates():
            return Fraction(sum(count * getattr(self.tariff.rates, name) for name, count in self.tokens.items()))
        return Fraction(self.amount * self.tariff.retail_percent, 100)

    def priced(self, model: str, reference: str) -> StatementLine:
        exact = self.wholesale() / MILLIPOINTS_PER_FEN
        gross = round_half_away(exact)
        discount = round_half_away(exact * self.tariff.discount_percent / 100) if self.tariff else 0
        return StatementLine(
            model=model,
            tariff=reference,
            calls=self.calls,
            usage=TokenSums(**self.tokens),
            amount=self.amount,
            gross_fen=gross,
            discount_fen=discount,
            net_fen=gross - discount,
        )


def statement(
    home: str, serving: str, period: str, cut_offs: Sequence[int], served: Iterable[Served], catalogue: CatalogueView
) -> Statement:
    """What `home` owes `serving` for a period; one line per model and tariff. `cut_offs`: of quota's logs, by shard."""
    found: dict[tuple[str, str], _Line] = {}
    for part in served:
        reference, tariff = catalogue.tariff(home, serving, part.model, day_start(part.day)) or ("", None)
        found.setdefault((part.model, reference), _Line(tariff)).add(part)
    lines = tuple(found[key].priced(*key) for key in sorted(found))
    return Statement(
        home=home,
        serving=serving,
        period=period,
        lines=lines,
        calls=sum(line.calls for line in lines),
        gross_fen=sum(line.gross_fen for line in lines),
        discount_fen=sum(line.discount_fen for line in lines),
        net_fen=sum(line.net_fen for line in lines),
        quota_position=sum(cut_offs),
        quota_positions=tuple(cut_offs) if len(cut_offs) > 1 else (),
    )


def day_start(day: str) -> datetime:
    """Midnight in Shanghai."""
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=SHANGHAI)


def settlement(nets: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """(home, serving, net fen) of a period's statements as a matrix, one position per pair, and a balance each.

    `matrix[home][serving]` is what home owes serving; in `netting` the debtor owes the creditor what is left of
    both directions; `balances` is what an operator receives (+) or pays (-) in all, and sums to zero.
    """
    matrix: dict[str, dict[str, int]] = {}
    for home, serving, net in sorted(nets):
        matrix.setdefault(home, {})[serving] = net
    pairs = sorted({(min(a, b), max(a, b)) for a, row in matrix.items() for b in row})
    netting = []
    balances: dict[str, int] = {}
    for a, b in pairs:
        position = matrix.get(a, {}).get(b, 0) - matrix.get(b, {}).get(a, 0)
        debtor, creditor = (a, b) if position >= 0 else (b, a)
        netting.append({"debtor": debtor, "creditor": creditor, "fen": abs(position)})
        balances[debtor] = balances.get(debtor, 0) - abs(position)
        balances[creditor] = balances.get(creditor, 0) + abs(position)
    return {"matrix": matrix, "netting": netting, "balances": dict(sorted(balances.items()))}
