"""Writes the report of a month as a folder of pages, one page at a time.

The index comes last: a folder without one is a report that was not finished. Whatever does not fit the bounds is named
on the index.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from services.audit import markup as m
from services.audit.replay.findings import Difference
from services.audit.replay.reader import Progress
from services.audit.replay.recomputed import Again, Audited, Numbered, Settled
from services.audit.report import names
from services.audit.report.bill import USAGE, bill_page, debit_tables, debits_page, lines_of
from services.audit.report.debits import LineSum, chunked, proof
from services.audit.report.gather import ISSUED, Head, Wanted, gather, line_key
from services.audit.report.index import Month, render_html
from services.audit.report.listing import Sums, bill_row, listing_page
from services.audit.report.spool import Spool
from services.audit.report.statement import statement_key, statement_page
from shared.errors import MalformedCommand, SetupFailed

DEBITS_MAX = 200_000  # with proofs: some 800 MB of pages


Told = Callable[[int, int], None]  # how many of how many


class Written(NamedTuple):
    """What was written. `left_out`: what has no page, and why, in sentences."""

    pages: int
    debits: int
    left_out: tuple[str, ...]


def empty_folder(folder: Path) -> None:
    """Makes the folder. Raises SetupFailed if it has anything in it, or cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise SetupFailed(f"{folder} is not empty: a report is written into a folder of its own.")
    except OSError as error:
        raise SetupFailed(f"{folder} cannot be written to: {error.strerror}.") from None


def write_pages(
    audited: Audited,
    folder: Path,
    *,
    bills: Collection[str] = (),
    debits_max: int = DEBITS_MAX,
    progress: Progress | None = None,
    written: Told = lambda _done, _count: None,
) -> Written:
    """The report of what was audited, in an empty folder. `bills`: the numbers of those that get pages, all if none is
    named; `debits_max`: how many debits are shown, from the first bill on, where no bill is named.

    `progress` is told of the logs, which are read once more, and `written` of the bills.

    Raises MalformedCommand if there is no such bill, SetupFailed for a folder that is not empty or cannot be written
    to, and what the logs' source raises.
    """
    known = {bill.number for bill in audited.computed.numbered()} if bills else set()
    if missing := sorted(set(bills) - known):
        period = audited.report.period
        raise MalformedCommand(f"There is no bill {missing[0]!r} of {period} in billing's log.", {"bill": missing[0]})
    empty_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".spool-", dir=folder) as spooled, Spool(Path(spooled)) as spool:
            return _Report(audited, folder, spool, frozenset(bills), debits_max).write(progress, written)
    except (OSError, sqlite3.Error) as error:
        raise SetupFailed(f"The report in {folder} was not finished: {error}.") from None


class _Report:
    def __init__(self, audited: Audited, folder: Path, spool: Spool, chosen: Collection[str], debits_max: int) -> None:
        self._report, self._computed = audited.report, audited.computed
        self._audited = audited
        self._folder = folder
        self._spool = spool
        self._chosen = chosen
        self._debits_max = debits_max
        self._pages = 0
        self._month = Month(place=self._place)
        self._heads: Mapping[str, Head] = {}
        self._shown: dict[str, Wanted] = {}
        self._issued: dict[int, tuple[int, str]] = {}  # bills and statements, by position: where they are spooled
        # Where what differs is shown: events by log and position, bills by account, number and position.
        self._differing = {(d.log, d.position) for d in audited.report.differences}
        self._about = {d.account for d in audited.report.differences}
        self._places: dict[tuple[str, int], str] = {}
        self._bills: dict[str, str] = {}

    def write(self, progress: Progress | None, written: Told) -> Written:
        self._choose()
        statements = tuple(self._computed.statements())
        self._issued |= {each.issued.position: (0, statement_key(n)) for n, each in enumerate(statements, 1)}
        self._heads = self._month.heads = gather(self._audited, self._shown, self._issued, self._spool, progress)
        self._write_bills(written)
        self._write_statements(statements)
        self._put(names.INDEX, render_html(self._report, self._month))
        month = self._month
        return Written(self._pages, month.debits, tuple(month.left_out))

    # -- what is shown ------------------------------------------------------------------------------
    def _choose(self) -> None:
        """The bills whose debits are shown: those that were asked for, else from the first on while they fit."""
        room, left_out, bills = self._debits_max, 0, 0
        for serial, bill in enumerate(self._computed.numbered(), 1):
            if not self._has_page(bill):
                continue
            self._issued[bill.issued.position] = (serial, ISSUED)
            if not bill.stands:
                continue
            count = self._computed.debits(bill)
            if not self._chosen and count > room:
                left_out, bills, room = left_out + count, bills + 1, 0
                continue
            room -= count
            carries = self._computed.carries(bill)
            self._shown[bill.stream] = Wanted(serial, self._computed.period, carries)
        if self._chosen:
            self._month.left_out.append(f"Only bills that were asked for have pages, {len(self._chosen):,} of them.")
        if left_out:
            self._month.left_out.append(
                f"The bound of {self._debits_max:,} debits left {left_out:,} debits of {bills:,} bills without proofs "
                f"here; their lines are shown. A bill's own: tokengrid audit replay {self._report.period} "
                "--pages FOLDER --bill NUMBER, or a larger --debits-max."
            )

    def _has_page(self, bill: Numbered) -> bool:
        return not self._chosen or bill.number in self._chosen

    # -- bills --------------------------------------------------------------------------------------
    def _write_bills(self, written: Told) -> None:
        count = sum(1 for _ in self._computed.numbered())
        self._month.listings = names.listing_of(count) if count else 0
        rows: list[m.Html] = []
        sums = Sums()
        for serial, bill in enumerate(self._computed.numbered(), 1):
            again = self._computed.again(bill)
            path = names.bill(serial) if self._has_page(bill) else ""
            operator = bill.stream.partition("/")[0]
            self._month.first.setdefault(operator, names.listing_of(serial))
            for each in (sums, self._month.sums.setdefault(operator, Sums())):
                each.add(bill, again)
            rows.append(bill_row(names.listing(names.listing_of(serial)), bill, again, path))
            if path:
                self._write_bill(serial, path, bill, again)
            written(serial, count)
            if serial % names.BILLS_A_PAGE == 0:
                self._write_listing(serial, rows, sums)
                rows, sums = [], Sums()
        if rows:
            self._write_listing(serial, rows, sums)

    def _write_listing(self, serial: int, rows: list[m.Html], sums: Sums) -> None:
        number = names.listing_of(serial)
        page = listing_page(self._report.period, number, self._month.listings, rows, sums)
        self._put(names.listing(number), page)

    def _write_bill(self, serial: int, path: str, bill: Numbered, again: Again | None) -> None:
        for about in {bill.stream, bill.number} & self._about:
            self._bills[about] = path
        if ("billing", bill.issued.position) in self._differing:
            self._places["billing", bill.issued.position] = path
        starts: dict[int, str] = {}
        parts = [m.element("h2", "Debits")]
        shown = self._shown.get(bill.stream)
        if again is None:
            parts.append(m.element("p", f"{bill.status}: it was not computed again."))
        elif shown is None or shown.serial != serial:
            parts.append(m.element("p", "They are beyond the bound of this report, and left out here.", cls="no"))
        elif (count := self._computed.debits(bill)) <= names.DEBITS_A_PAGE:
            parts.append(debit_tables(self._debits(serial, path, bill, again, starts), lines_of(bill, again)))
        else:
            parts.append(self._write_debits(serial, bill, again, starts, count))
        parts.append(self._issued_as(serial, ISSUED))
        settled = self._computed.settled(bill)
        self._put(path, bill_page(serial, bill, again, self._computed.prices, settled, starts, parts))

    def _issued_as(self, serial: int, line: str) -> m.Html:
        """The event of a bill or statement, with its proof."""
        shown = (proof(event, self._heads[event.log]) for event in self._spool.events(serial, line))
        return m.join(m.element("h2", "As it was issued, in billing's log"), *shown)

    def _write_statements(self, statements: Sequence[Settled]) -> None:
        self._month.statements = statements
        for n, statement in enumerate(statements, 1):
            if ("billing", statement.issued.position) in self._differing:
                self._places["billing", statement.issued.position] = names.statement(n)
            self._put(names.statement(n), statement_page(n, statement, self._issued_as(0, statement_key(n))))

    def _write_debits(self, serial: int, bill: Numbered, again: Again, starts: dict[int, str], count: int) -> m.Html:
        """The debits on pages of their own; the way to them."""
        chunks = chunked(self._debits(serial, "", bill, again, starts), names.DEBITS_A_PAGE)
        chunk, number = next(chunks, None), 0
        while chunk:
            number += 1
            following = next(chunks, None)
            here = names.debits(serial, number)
            tables = debit_tables(chunk, lines_of(bill, again), names.between(here, names.bill(serial)))
            self._put(here, debits_page(serial, bill, tables, number, following is not None))
            chunk = following
        way = names.between(names.bill(serial), names.debits(serial, 1))
        return m.element("p", m.link(way, f"{count:,} debits on {number:,} pages"))

    def _debits(
        self, serial: int, path: str, bill: Numbered, again: Again, starts: dict[int, str]
    ) -> Iterator[tuple[int, m.Html]]:
        """The rows of each line, by its number. `path`: the page they are on; pages of their own if it is empty."""
        rows = 0
        for n, (_, line) in enumerate(lines_of(bill, again), 1):
            if line.get("kind") not in USAGE:
                continue
            summed = LineSum(line)
            for shown in self._spool.events(serial, line_key(line["kind"], line["model"], line["rate_card"])):
                here = path or names.debits(serial, rows // names.DEBITS_A_PAGE + 1)
                starts.setdefault(n, f"{here}#debits-{n}")
                if (shown.log, shown.position) in self._differing:
                    self._places[shown.log, shown.position] = f"{here}#{names.anchor(shown.log, shown.position)}"
                under = proof(shown, self._heads[shown.log])
                yield n, summed.rows(shown.log, shown.position, shown.topic, shown.state, under)
                rows, self._month.debits = rows + 1, self._month.debits + 1
            yield n, summed.sum_row()
            rows += 1

    # -- everything ---------------------------------------------------------------------------------
    def _place(self, difference: Difference) -> str:
        """The page that shows what a difference is about, seen from the index; empty if none does."""
        if found := self._places.get((difference.log, difference.position)):
            return found
        if difference.area == "statements":
            return "#settlement"
        if difference.area == "log":
            return "#logs"
        return self._bills.get(difference.account, "")

    def _put(self, path: str, page: str) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # What is no Unicode cannot be hashed either, and was said to be none.
        target.write_text(page, encoding="utf-8", errors="replace", newline="\n")
        self._pages += 1
