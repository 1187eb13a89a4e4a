"""What a what-if comes to: by kind of line and by operator, who pays more, and a row per subscriber as CSV.

Pure; it must not know how bills were rated again.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

from services.billing.whatif import Rerated
from shared.contracts.billing import Bill, LineKind

KINDS: tuple[str, ...] = get_args(LineKind)
COLUMNS = (
    *("operator", "account", "bill", "actual_fen", "what_if_fen", "difference_fen"),
    *(f"{kind}_difference_fen" for kind in KINDS),
)


class Sum(NamedTuple):
    """`name`: an operator or a kind of line. Fen."""

    name: str
    actual_fen: int
    what_if_fen: int

    @property
    def difference_fen(self) -> int:
        return self.what_if_fen - self.actual_fen


class Sums(NamedTuple):
    """`more`, `less`, `same`: how many subscribers pay so; `unlike`: numbers of bills that the logs do not give again
    as they were issued, whose difference is not of the catalogue alone."""

    total: Sum
    operators: list[Sum]
    kinds: list[Sum]
    more: int
    less: int
    same: int
    unlike: list[str]


def sums(rerated: Sequence[Rerated]) -> Sums:
    operators: dict[str, list[Rerated]] = {}
    kinds_before: Counter[str] = Counter()
    kinds_after: Counter[str] = Counter()
    for one in rerated:
        operators.setdefault(one.issued.operator, []).append(one)
        kinds_before.update(_by_kind(one.issued))
        kinds_after.update(_by_kind(one.other))
    more = sum(one.difference_fen > 0 for one in rerated)
    less = sum(one.difference_fen < 0 for one in rerated)
    return Sums(
        _sum("all", rerated),
        [_sum(operator, its) for operator, its in sorted(operators.items())],
        [Sum(k, kinds_before[k], kinds_after[k]) for k in KINDS if k in kinds_before or k in kinds_after],
        more,
        less,
        len(rerated) - more - less,
        [one.issued.number for one in rerated if one.again != one.issued],
    )


def movers(rerated: Iterable[Rerated], limit: int) -> list[Rerated]:
    """Those whose bill changes most, in either direction."""
    changed = [one for one in rerated if one.difference_fen]
    return sorted(changed, key=lambda one: (-abs(one.difference_fen), one.issued.number))[:limit]


def as_csv(rerated: Iterable[Rerated]) -> Iterator[str]:
    """A head line, then a line per subscriber; RFC 4180, fen as integers."""
    yield _line(COLUMNS)
    for one in rerated:
        before, after = _by_kind(one.issued), _by_kind(one.other)
        about = (one.issued.operator, one.issued.account, one.issued.number)
        fen = (one.issued.total_fen, one.other.total_fen, one.difference_fen)
        yield _line((*about, *fen, *(after[kind] - before[kind] for kind in KINDS)))


def _line(cells: Iterable[str | int]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _sum(name: str, rerated: Iterable[Rerated]) -> Sum:
    pairs = [(one.issued.total_fen, one.other.total_fen) for one in rerated]
    return Sum(name, sum(before for before, _ in pairs), sum(after for _, after in pairs))


def _by_kind(bill: Bill) -> Counter[str]:
    fen: Counter[str] = Counter()
    for line in bill.lines:
        fen[line.kind] += line.fen
    return fen
