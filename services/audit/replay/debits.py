"""Ordinary debits folded a section at a time: what the ledger does for each of them, for all of them at once.

It takes an account's events of a section only if all are ordinary and the ledger would find nothing in them; any other
account is left to the ledger with all that it has there. So it can find nothing, and what it leaves is found as ever.
Debits of an account only lower what its grants have left: if nothing is overdrawn at the section's end, nothing was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from services.audit.replay.account import EPOCH, Account, Grant
from services.audit.replay.calendar import period_and_day
from services.audit.replay.columns import Columns
from services.audit.replay.invariants import CREDIT
from services.audit.replay.ledger import Ledger
from services.audit.replay.ordinary import Coded, Ordinary, ordinary, plain
from services.audit.replay.prices import CLASSES, Card, Prices, Rates, rates_of
from services.audit.replay.runs import Runs, keys_of
from services.audit.replay.usage import Metered, Usage

PIECE = 8_192  # events that are folded at once, at least
RATE_MAX = 2**32
NO_RATES: Rates = (0, 0, 0, 0)


class Debits:
    """Folds ordinary debits into a ledger. `metered`: where usage is counted, once that is known; `until`: the position
    up to which `latest`, the time of the last record, counts; `folded`: how many debits were."""

    def __init__(self, ledger: Ledger, prices: Prices) -> None:
        self.metered: Metered | None = None
        self.until = 0
        self.latest = ""
        self.folded = 0
        self._ledger = ledger
        self._prices = prices
        index = ledger.requests.index
        if index.many is None:
            index.many = Runs()
        assert isinstance(index.many, Runs)
        self._runs = index.many

    def pieces(self, section: Columns) -> Iterator[tuple[int, int]]:
        """Start and length of the pieces that a section is folded in, one after the other."""
        count = len(section.positions)
        unusual = count - int(plain(section).sum())
        size = count
        if unusual:
            # Larger ones cost less for each account, and leave more of them to the ledger: one in twenty, at most.
            accounts = pc.count_distinct(section.streams).as_py()
            size = max(PIECE, count * accounts // (20 * unusual))
        yield from ((start, min(size, count - start)) for start in range(0, count, size or 1))

    def fold(self, section: Columns, versions: dict[str, int]) -> Any:
        """Fold what is ordinary; by row, whether it was. `versions`: the last one of each stream, which move on."""
        folded = np.zeros(len(section.positions), dtype=bool)
        found = ordinary(section, plain(section))
        if found is None:
            return folded
        self._runs.take_over(self._ledger.requests.index.positions)
        first = section.positions[0].as_py()
        left = np.zeros(len(found.streams.kinds), dtype=bool)
        keys = keys_of(found, self._ledger.requests.index)
        priced, kinds = self._priced(found)
        left[found.streams.codes[~(found.fine & priced)]] = True
        left[found.streams.codes[self._runs.repeated(keys)]] = True
        sections = self._fold(found, left, versions, first, first + len(folded) - 1)
        rows = ~left[found.streams.codes]
        self._runs.add(keys[rows], first + found.rows[rows])
        folded[found.rows[rows]] = True
        self.folded += int(rows.sum())
        self._ledger.debited += int(found.amounts[rows].sum())
        recorded = found.recorded_at.codes[rows & (first + found.rows <= self.until)]
        told = [found.recorded_at.kinds[n][0] for n in np.flatnonzero(np.bincount(recorded)).tolist()]
        self.latest = max((self.latest, *told))
        if sections:
            self._count(found, rows, kinds, sections)
        return folded

    # -- prices ------------------------------------------------------------------------------------------
    def _priced(self, found: Ordinary) -> tuple[Any, Coded]:
        """By row, whether it was priced as its rate card says; and which card and model it names."""
        operators: dict[str, int] = {}
        of = [operators.setdefault(stream.partition("/")[0], len(operators)) for stream in found.streams.kinds]
        by = Coded(np.array(of, dtype=np.int64)[found.streams.codes], list(operators))
        kinds = _combined(by, found.rate_card, found.model, found.rates)
        times = _Times(found)
        fine = np.zeros(len(kinds.kinds), dtype=bool)
        rates = np.zeros((len(kinds.kinds), len(CLASSES)), dtype=np.int64)
        judged = [self._card(kind, times) for kind in kinds.kinds]
        for n, card in enumerate(judged):
            if card is not None:
                fine[n], rates[n] = True, rates_of(kinds.kinds[n][3])
        priced = fine[kinds.codes]
        exact = sum(used * rates[kinds.codes, n] for n, used in enumerate(found.usage))
        priced &= exact == found.amounts
        for n, card in enumerate(judged):
            if card is not None and (card.tiers or card.off_peak):
                rows = np.flatnonzero(kinds.codes == n)
                priced[rows] &= _by_terms(card, rates_of(kinds.kinds[n][3]), found, rows)
        return priced, kinds

    def _card(self, kind: Sequence[Any], times: _Times) -> Card | None:
        """The card that is named, if it is the right one and may have these rates; tiers and hours are left open."""
        operator, reference, model, rates = kind
        if not isinstance(reference, str) or not isinstance(model, str) or not isinstance(rates, dict):
            return None
        card, given = self._prices.card(reference), rates_of(rates)
        if card is None or card.key != f"{operator}/{model}" or card.version.effective_from > times.first:
            return None
        if not all(type(rate) is int and 0 <= rate < RATE_MAX for rate in given):
            return None
        # In force at the end and in force at the beginning: no version between can have replaced it.
        if self._prices.versions_of_card(card) > 1 and self._prices.outdated(card, times.last, times.recorded_last):
            return None
        return card if card.tiers or card.off_peak or given == card.base else None

    # -- accounts ----------------------------------------------------------------------------------------
    def _fold(self, found: Ordinary, left: Any, versions: dict[str, int], first: int, last: int) -> dict[int, int]:
        """Fold the accounts that are not `left`, and leave those that the ledger must judge; of each that is billed,
        the section of the log that its bill has."""
        times, sections = _Times(found), {}
        one_period = len({period_and_day(kind[0])[0] for kind in found.at.kinds if kind is not None}) == 1
        metered = self.metered if self.metered is not None and self.metered.billed else None
        accounts, streams, grants = self._ledger.accounts, found.streams.kinds, found.grant.kinds
        for code, version, count, draws in _accounts(found, left):
            stream = streams[code]
            account = accounts.get(stream)
            if account is None or account.status != "open" or version != versions.get(stream, 0) + 1:
                left[code] = True
                continue
            drawn = [(_paying(account, grants[name], amount, times), amount) for name, amount in draws]
            if any(grant is None for grant, _ in drawn) if len(drawn) > 1 else drawn[0][0] is None:
                left[code] = True
                continue
            if metered is not None:
                section = metered.section_of(stream, first, last)
                if section is None or (section and not one_period):
                    left[code] = True
                    continue
                if section:
                    sections[code] = section
            for grant, amount in drawn:
                assert grant is not None
                grant.debited += amount
            account.version += count
            versions[stream] = version + count - 1
        return sections

    # -- usage -------------------------------------------------------------------------------------------
    def _count(self, found: Ordinary, rows: Any, kinds: Coded, sections: dict[int, int]) -> None:
        """Add up the usage of accounts that are billed."""
        assert self.metered is not None
        section_of = np.zeros(len(found.streams.kinds), dtype=np.int64)
        section_of[list(sections)] = list(sections.values())
        billed = np.flatnonzero(rows & (section_of[found.streams.codes] > 0))
        if not len(billed):
            return
        key = found.streams.codes[billed].astype(np.int64) * len(kinds.kinds) + kinds.codes[billed]
        order = np.argsort(key, kind="stable")
        billed, key = billed[order], key[order]
        starts = _starts(key)
        credit = np.array([kind == CREDIT for kind in found.grant.kinds], dtype=bool)[found.grant.codes[billed]]
        amounts = found.amounts[billed]
        columns = [amounts, np.where(credit, amounts, 0), *(used[billed] for used in found.usage)]
        sums = [np.add.reduceat(column, starts).tolist() for column in columns]
        calls = np.diff(starts, append=len(key)).tolist()
        period = period_and_day(next(kind[0] for kind in found.at.kinds if kind is not None))[0]
        codes, which = (each.tolist() for each in np.divmod(key[starts], len(kinds.kinds)))
        for code, kind, *numbers in zip(codes, which, calls, *sums, strict=True):
            _, card, model, _ = kinds.kinds[kind]
            self.metered.summed(found.streams.kinds[code], Usage(period, sections[code], model, card), numbers)


class _Times:
    """The first and last instants of a section's ordinary debits."""

    def __init__(self, found: Ordinary) -> None:
        at = [kind[1] for kind in found.at.kinds if kind is not None]
        recorded = [kind[1] for kind in found.recorded_at.kinds if kind is not None]
        self.first = min(at, default=EPOCH)
        self.last = max(at, default=EPOCH)
        self.recorded_last = max(recorded, default=EPOCH)


def _accounts(found: Ordinary, left: Any) -> Iterator[tuple[int, int, int, Sequence[tuple[int, int]]]]:
    """Of each account that is not left: its number, first version, how many events, and what was drawn from grants by
    their numbers. Those whose versions have a gap are left from here on."""
    rows = np.flatnonzero(~left[found.streams.codes])
    if not len(rows):
        return iter(())
    codes = found.streams.codes[rows]
    order = np.argsort(codes.astype(np.uint16) if len(found.streams.kinds) <= 2**16 else codes, kind="stable")
    ordered, versions = codes[order], found.versions[rows][order]
    starts = _starts(ordered)
    steps = np.ones(len(rows), dtype=bool)
    steps[1:] = versions[1:] == versions[:-1] + 1
    steps[starts] = True
    gaps = np.zeros(len(left), dtype=bool)
    gaps[ordered[~steps]] = True
    left |= gaps
    draws = _draws(found, rows, codes, order, starts)
    counts = np.diff(starts, append=len(rows))
    whole = zip(*(each.tolist() for each in (ordered[starts], versions[starts], counts)), draws, strict=True)
    return (each for each in whole if not gaps[each[0]]) if gaps.any() else whole


def _draws(found: Ordinary, rows: Any, codes: Any, order: Any, starts: Any) -> Sequence[Sequence[tuple[int, int]]]:
    """By account, grants and the sums that were drawn from them."""
    grants, amounts = found.grant.codes[rows][order], found.amounts[rows][order]
    steady = grants[1:] == grants[:-1]
    steady[starts[1:] - 1] = True
    if steady.all():  # none draws on a second grant in this section
        sums = np.add.reduceat(amounts, starts).tolist()
        return [(each,) for each in zip(grants[starts].tolist(), sums, strict=True)]
    kinds = len(found.grant.kinds)
    key = codes[order].astype(np.int64) * kinds + grants
    again = np.argsort(key, kind="stable")
    begins = _starts(key[again])
    sums = np.add.reduceat(amounts[again], begins).tolist()
    drawn: list[list[tuple[int, int]]] = []
    last = -1
    for each, amount in zip(key[again][begins].tolist(), sums, strict=True):
        code, grant = divmod(each, kinds)
        if code != last:
            drawn.append([])
            last = code
        drawn[-1].append((grant, amount))
    return drawn


def _paying(account: Account, name: str, amount: int, times: _Times) -> Grant | None:
    """What pays for so much, whenever in the section and for whatever model it is; None: the ledger must say."""
    if name == CREDIT:
        return account.credit if amount <= account.credit_left else None
    grant = account.grants.get(name)
    if grant is None or grant.void or grant.scope or grant.effective_at > times.first or amount > grant.available:
        return None
    return grant if grant.expires_at is None or grant.expires_at > times.last else None


def _by_terms(card: Card, given: Rates, found: Ordinary, rows: Any) -> Any:
    """Of a card with tiers or hours: by row, whether these are the rates of its hour. What is in a tier is left."""
    by_hour = [kind is not None and card.rates(NO_RATES, kind[1]) == given for kind in found.at.kinds]
    fine = np.array(by_hour, dtype=bool)[found.at.codes[rows]]
    if card.tiers:
        sent = found.usage[0][rows] + found.usage[1][rows] + found.usage[2][rows]
        fine &= sent <= min(min(above, 2**62) for above, _ in card.tiers)
    return fine


def _combined(*coded: Coded) -> Coded:
    """Which values stand together: few combinations of all that there could be."""
    codes, kinds = coded[0].codes, [[kind] for kind in coded[0].kinds]
    for each in coded[1:]:
        key = codes.astype(np.int64) * len(each.kinds) + each.codes
        there = np.unique(key) if len(kinds) * len(each.kinds) > 2**20 else np.flatnonzero(np.bincount(key))
        codes = np.searchsorted(there, key)
        kinds = [[*kinds[n // len(each.kinds)], each.kinds[n % len(each.kinds)]] for n in there.tolist()]
    return Coded(codes, kinds)


def _starts(ordered: Any) -> Any:
    """Where each run of equal values begins."""
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(begins)
