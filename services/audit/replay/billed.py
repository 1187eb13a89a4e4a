"""Billing's log as the auditor folds it, and its bills and statements compared with those computed again. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from services.audit.replay.account import Account
from services.audit.replay.calendar import instant, period_end, period_start
from services.audit.replay.charges import LINE_DEFAULTS, Carries, Subscribed, Terms, plan_lines, running_terms
from services.audit.replay.findings import Area, Findings
from services.audit.replay.kinds import check_bill, check_statement
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.rating import bill_of, statement_of, terms_for
from services.audit.replay.sharding import log_of
from services.audit.replay.subscriptions import Subscriptions
from services.audit.replay.usage import Metered, cut_off_at

BILL_DEFAULTS: Raw = {"currency": "CNY", "quota_log": "quota", "billing_position": 0}


class Issued(NamedTuple):
    """A bill or statement as its event in billing's log has it."""

    position: int
    recorded_at: str
    content: Raw
    sha256: str


class Cut(NamedTuple):
    """What later bills of an account need to know of an earlier one. `credit_fen`: used of the account's credits."""

    position: int
    period: str
    quota_position: int
    billing_position: int
    credit_fen: int
    number: str


Of = Callable[[Cut], int]  # the cut-off of a bill in one of the logs


def sha256_of(content: Raw) -> str:
    """The hash of canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Billed:
    """Everything billed. Of other periods than the audited one only the cut-offs are kept."""

    def __init__(self, period: str, findings: Findings, subscriptions: Subscriptions, shards: int = 1) -> None:
        """`shards`: of quota, each with a log of its own."""
        self.period = period
        self.subscriptions = subscriptions
        self._shards = shards
        self.bills: dict[str, Issued] = {}  # of the period, those that stand, by `operator/account`
        self.numbers: dict[str, tuple[str, Issued]] = {}  # of the period, void or not: `operator/account` and bill
        self.judged: dict[str, Issued] = {}  # those of `bills` that were computed again and compared
        self.statements: dict[tuple[str, str], Issued] = {}  # of the period, by (home, serving)
        self.statements_computed: dict[tuple[str, str], Raw] = {}
        self.cuts: dict[str, list[Cut]] = {}  # of the bills that stand
        self._findings = findings
        self._serials: dict[str, int] = {}
        self._left: dict[str, int] = {}  # of each bill to be credited
        self._owners: dict[str, str] = {}  # of each bill: `operator/account`
        self.paid: dict[str, int] = {}
        self.credited: dict[str, int] = {}
        self.void: set[str] = set()
        self._credits: dict[str, list[tuple[int, int]]] = {}  # by account: positions and fen
        self._handlers = {
            "billing.BillIssued:1": self._bill_issued,
            "billing.StatementIssued:1": self._statement_issued,
            "billing.CreditNoteIssued:1": self._credit_note_issued,
            "billing.BillPaid:1": self._bill_paid,
            "billing.BillVoided:1": self._bill_voided,
        }

    # -- folding ----------------------------------------------------------------------------------
    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:
        """Fold one event of billing's log."""
        handler = self._handlers.get(topic)
        if handler is not None:
            handler(position, event)
        elif topic in self.subscriptions.topics:
            self.subscriptions.apply(position, stream, topic, event)
        elif topic == "billing.AccountCredited:1":
            self._credits.setdefault(stream.partition(":")[2], []).append((position, event["fen"]))
        else:
            self._wrong("bills", "unknown kind of event", position, stream, "a kind of the contract", topic)

    def _bill_issued(self, position: int, event: Raw) -> None:
        bill = event["bill"]
        check_bill(bill)
        operator, account = bill["operator"], f"{bill['operator']}/{bill['account']}"
        serial = self._serials[operator] = self._serials.get(operator, 0) + 1
        number = f"{operator}-{bill['period']}-{serial:06d}"
        if bill["number"] != number:
            self._wrong("bills", "bill numbers have a gap", position, account, number, bill["number"])
        if bill["number"] in self._owners:
            self._wrong("bills", "two bills of one number", position, account, number, bill["number"])
            return  # the first is what is paid, credited or voided by it
        if sha256_of(bill) != event["bill_sha256"]:
            self._wrong("bills", "hash is not the bill's", position, account, sha256_of(bill), event["bill_sha256"])
        known = bill.get("billing_position", 0)
        if known >= position:
            self._wrong("bills", "bill knows of what came later", position, account, f"< {position}", known)
        cuts = self.cuts.setdefault(account, [])
        if any(cut.period == bill["period"] for cut in cuts):
            self._wrong("bills", "account billed twice", position, account, "one bill", bill["number"])
        used = -sum(line["fen"] for line in bill["lines"] if line["kind"] == "credit")
        cuts.append(Cut(position, bill["period"], bill["quota_position"], known, used, bill["number"]))
        self._left[bill["number"]] = bill["total_fen"]
        self._owners[bill["number"]] = account
        if bill["period"] == self.period:
            issued = Issued(position, event["recorded_at"], bill, event["bill_sha256"])
            self.bills[account] = issued
            self.numbers[bill["number"]] = (account, issued)

    def _bill_voided(self, position: int, event: Raw) -> None:
        number = event["number"]
        account = self._owners.get(number, "")
        settled = {"paid": self.paid.get(number, 0), "credited": self.credited.get(number, 0)}
        if any(settled.values()):
            self._wrong("bills", "void bill was paid or credited", position, account, "neither", f"{number}: {settled}")
        cuts = self.cuts.get(account, [])
        last = cuts[-1].number if cuts else "none"
        if number != last:
            self._wrong("bills", "void bill is not the account's last", position, account, last, number)
        self.void.add(number)
        self.cuts[account] = [cut for cut in cuts if cut.number != number]
        if account in self.bills and self.bills[account].content["number"] == number:
            del self.bills[account]

    def _statement_issued(self, position: int, event: Raw) -> None:
        statement = event["statement"]
        check_statement(statement)
        pair = (statement["home"], statement["serving"])
        digest = sha256_of(statement)
        if digest != event["statement_sha256"]:
            self._wrong("statements", "hash is not the statement's", position, "/".join(pair), digest, "another")
        if statement["period"] == self.period:
            if pair in self.statements:
                self._wrong("statements", "two statements of one pair", position, "/".join(pair), "one", "two")
            self.statements[pair] = Issued(position, event["recorded_at"], statement, event["statement_sha256"])

    def _credit_note_issued(self, position: int, event: Raw) -> None:
        self._check_stands("credit note", position, event["bill_number"])
        left = self._left.get(event["bill_number"])
        if left is None or event["fen"] > left:
            self._wrong("bills", "credit note exceeds its bill", position, event["bill_number"], left, event["fen"])
        self._left[event["bill_number"]] = (left or 0) - event["fen"]
        self.credited[event["bill_number"]] = self.credited.get(event["bill_number"], 0) + event["fen"]

    def _bill_paid(self, position: int, event: Raw) -> None:
        self._check_stands("payment", position, event["number"])
        if event["number"] not in self._owners:
            self._wrong("bills", "payment of no bill", position, event["number"], "an issued bill", "none")
        self.paid[event["number"]] = self.paid.get(event["number"], 0) + event["fen"]

    def _check_stands(self, what: str, position: int, number: str) -> None:
        if number in self.void:
            self._wrong("bills", f"{what} of a void bill", position, self._owners[number], "none", number)

    def cut_offs(self) -> dict[str, list[int]]:
        """Of each account, the quota positions at which its bills were cut off, ascending."""
        return {account: sorted({cut.quota_position for cut in cuts}) for account, cuts in self.cuts.items()}

    # -- comparing --------------------------------------------------------------------------------
    def check_bills(self, accounts: Mapping[str, Account], metered: Metered, prices: Prices) -> None:
        """Every bill of the period, computed again; and every account that should have one."""
        for stream, issued in self.bills.items():
            account = accounts.get(stream)
            if account is None:
                self._wrong("bills", "bill of no account", issued.position, stream, "an opened account", "none")
                continue
            with self._findings.judging("bills", "bill cannot be computed", "billing", issued.position, stream):
                computed = self.computed(issued, account, metered, prices)
                self._differ("bills", issued, stream, bill_differences(computed, issued))
                self.judged[stream] = issued
        self._check_all_billed(accounts)

    def computed(self, issued: Issued, account: Account, metered: Metered, prices: Prices) -> Raw:
        """A bill of the period, computed again."""
        carries = self.carries(account.stream, issued)
        carried = [(key, sums) for key, sums in metered.usage.get(account.stream, {}).items() if carries(*key[:2])]
        bill = bill_of(
            issued.content,
            account,
            [g for g in metered.grants.get(account.stream, []) if carries(g.period, g.section)],
            [(key, sums) for key, sums in carried if key.period == self.period],
            [(key, sums) for key, sums in carried if key.period != self.period],
            prices,
            self._subscribed(account.stream, issued, prices),
        )
        return bill | {"quota_log": self._log_of(account.stream)}

    def terms(self, issued: Issued, account: Account, prices: Prices) -> Terms:
        """What usage costs as you go on a bill."""
        return terms_for(issued.content, account, prices, self._subscribed(account.stream, issued, prices))

    def carries(self, stream: str, issued: Issued) -> Carries:
        """Whether a bill of the period has what is of a period and stands at a position of quota's log."""
        cut_off, earlier = issued.content["quota_position"], self._earlier(stream, issued)
        return partial(self._carries, cut_off=cut_off, of=lambda cut: cut.quota_position, earlier=earlier)

    def _earlier(self, stream: str, issued: Issued) -> list[Cut]:
        return [cut for cut in self.cuts.get(stream, ()) if cut.position < issued.position]

    def _subscribed(self, stream: str, issued: Issued, prices: Prices) -> Subscribed:
        """What a bill has of its account's subscriptions and credits, as known at its cut-off in billing's log."""
        bill, earlier = issued.content, self._earlier(stream, issued)
        known = bill.get("billing_position", 0)
        carries = partial(self._carries, cut_off=known, of=lambda cut: cut.billing_position, earlier=earlier)
        given = sum(fen for position, fen in self._credits.get(stream, ()) if position <= known)
        used = sum(cut.credit_fen for cut in earlier)
        taken = self.subscriptions.accounts.get(stream, {}).values()
        start, catalog_position = period_start(self.period), bill["catalog_position"]
        terms = running_terms(bill["operator"], taken, start, known, prices, catalog_position)
        return Subscribed(plan_lines(taken, carries), terms, given - used)

    def _carries(self, period: str, position: int, *, cut_off: int, of: Of, earlier: list[Cut]) -> bool:
        """Whether the audited period's bill has what is of `period` and stands here in a log: its own period's, and
        what came late for a billed period and no other bill has carried."""
        if position > cut_off or period > self.period:
            return False
        if period == self.period:
            return True
        own = next((cut for cut in earlier if cut.period == period), None)
        if own is None:
            return False
        carriers = [cut for cut in earlier if cut.period > period and cut.position > own.position]
        return position > max(of(cut) for cut in (own, *carriers))

    def _check_all_billed(self, accounts: Mapping[str, Account]) -> None:
        cut_offs: dict[tuple[str, str], int] = {}  # by operator and log of quota
        for stream, issued in self.numbers.values():
            close = (stream.partition("/")[0], self._log_of(stream))
            cut_offs[close] = max(cut_offs.get(close, 0), issued.content["quota_position"])
        end = period_end(self.period)
        for stream, account in accounts.items():
            if account.opened is None or stream in self.bills:
                continue
            position, event = account.opened
            if position <= cut_offs.get((account.operator, self._log_of(stream)), 0) and instant(event["at"]) < end:
                self._wrong("bills", "bill is missing", 0, stream, f"a bill for {self.period}", "none")

    def _log_of(self, stream: str) -> str:
        return log_of(stream, self._shards)

    def settled(self) -> dict[tuple[str, str], list[int]]:
        """Of each pair's statement, the positions of quota's logs at which it was cut off, by shard."""
        return {pair: self._statement_cut_offs(issued.content) for pair, issued in self.statements.items()}

    def _statement_cut_offs(self, statement: Raw) -> list[int]:
        return list(statement.get("quota_positions") or [statement["quota_position"]])

    def check_statements(self, metered: Metered, prices: Prices) -> None:
        """Every statement of the period, computed again; and every pair that should have one."""
        latest = [0] * self._shards
        for (home, serving), issued in self.statements.items():
            cut_offs = self._statement_cut_offs(issued.content)
            if len(cut_offs) != self._shards:
                what = "cut-off of another number of logs"
                self._wrong("statements", what, issued.position, f"{home}/{serving}", self._shards, cut_offs)
            latest = [max(known, cut_off_at(cut_offs, shard)) for shard, known in enumerate(latest)]
            about = f"{home}/{serving}"
            with self._findings.judging(
                "statements", "statement cannot be computed", "billing", issued.position, about
            ):
                used, known_at = metered.wholesale.get((home, serving), {}), instant(issued.recorded_at)
                expected = statement_of(home, serving, self.period, sum(cut_offs), used, prices, known_at)
                if len(cut_offs) > 1:
                    expected["quota_positions"] = cut_offs
                self._differ("statements", issued, about, statement_differences(expected, issued))
                self.statements_computed[home, serving] = expected
        for pair, first in metered.pairs.items():
            due = any(position <= latest[shard] for shard, position in first.items())
            if due and pair not in self.statements:
                self._wrong("statements", "statement is missing", 0, "/".join(pair), "a statement", "none")

    def _differ(self, area: Area, issued: Issued, about: str, differing: Iterator[tuple[str, Any, Any]]) -> None:
        for what, want, has in differing:
            self._wrong(area, f"{what} is not what was computed", issued.position, about, want, has)

    def _wrong(self, area: Area, what: str, position: int, about: str, expected: Any, found: Any) -> None:
        self._findings.add(area, what, "billing", position, about, expected, found)


def bill_differences(computed: Raw, issued: Issued) -> Iterator[tuple[str, Any, Any]]:
    """Path, computed and issued value of each field of a bill that differs."""
    return _unequal(computed, {**BILL_DEFAULTS, **issued.content}, LINE_DEFAULTS)


def statement_differences(computed: Raw, issued: Issued) -> Iterator[tuple[str, Any, Any]]:
    """As `bill_differences`, of a statement."""
    return _unequal(computed, issued.content, {})


def _unequal(expected: Raw, found: Raw, line_defaults: Raw) -> Iterator[tuple[str, Any, Any]]:
    """Path, expected and found value of each field that differs; the lines' texts are for people."""
    for field in expected.keys() | found.keys():
        if field != "lines" and expected.get(field) != found.get(field):
            yield field, expected.get(field), found.get(field)
    if len(expected["lines"]) != len(found["lines"]):
        yield "number of lines", len(expected["lines"]), len(found["lines"])
    for n, (want, issued) in enumerate(zip(expected["lines"], found["lines"], strict=False)):
        line = {**line_defaults, **issued}
        line["usage"] = {name: count for name, count in line.get("usage", {}).items() if count}
        for field in want.keys() | line.keys():
            if field != "text" and want.get(field) != line.get(field):
                yield f"lines[{n}].{field}", want.get(field), line.get(field)
