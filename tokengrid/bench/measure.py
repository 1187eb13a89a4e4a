"""How something is measured: rounds that take turns, the median of each. Must not know what is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Work = Callable[[], object]
Progress = Callable[[str], None]


class Row(NamedTuple):
    """One line of the table. `ratio` is value / the value of the row named `against`, of the same run.

    `goal`: what we promise ourselves, in words, and whether it was `met` in this run; None where there is none.
    """

    name: str
    value: float
    unit: str
    ratio: float | None = None
    against: str | None = None
    goal: str | None = None
    met: bool | None = None


@dataclass(frozen=True)
class Measure:
    """`prepare` makes the work of one round, `count` units of it; only the work is timed.

    `against`: the rows it is compared with; each gives a row of the table. `check` looks at what the work gave,
    when the clock has stopped.
    """

    name: str
    unit: str
    count: int
    prepare: Callable[[], Work]
    against: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda _given: None


def interleaved(measures: Sequence[Measure], rounds: int, progress: Progress) -> list[Row]:
    """Units per second, the median of `rounds`; each round does every measure once.

    What disturbs the machine for a second then disturbs a round of all, and not all rounds of one.
    """
    rates: dict[str, list[float]] = {each.name: [] for each in measures}
    for number in range(1, rounds + 1):
        for each in measures:
            progress(f"{each.name} ({number} of {rounds})")
            work = each.prepare()
            start = time.perf_counter()
            given = work()
            rates[each.name].append(each.count / (time.perf_counter() - start))
            each.check(given)
    return [
        Row(each.name, statistics.median(rates[each.name]), each.unit, None, against)
        for each in measures
        for against in each.against or (None,)
    ]


def with_ratios(rows: Iterable[Row]) -> list[Row]:
    """The rows with their ratios filled in; one whose `against` was not measured loses it."""
    rows = list(rows)
    values = {row.name: row.value for row in rows}
    made = []
    for row in rows:
        other = values.get(row.against or "")
        made.append(row._replace(ratio=row.value / other) if other else row._replace(ratio=None, against=None))
    return made


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted_values[max(0, min(len(sorted_values) - 1, -(-int(share * 1000) * len(sorted_values) // 1000) - 1))]


def first_error(answers: Iterable[dict[str, Any]]) -> None:
    """Raises AssertionError with the first answer that is none: a refused debit is fast and worth nothing."""
    for answer in answers:
        assert "ok" in answer, answer
