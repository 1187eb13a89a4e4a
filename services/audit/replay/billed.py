"""Billing's log as the auditor folds it, and its bills and statements compared with those computed again. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from services.audit.replay.account import Account
from services.audit.replay.calendar import instant, period_end, period_start
from services.audit.replay.charges import Charged
from services.audit.replay.findings import Area, Findings
from services.audit.replay.prices import Prices, Raw
from services.audit.replay.rating import LINE_DEFAULTS, bill_of, statement_of
from services.audit.replay.sharding import log_of
from services.audit.replay.subscriptions import AccountSubscriptions
from services.audit.replay.usage import Metered, cut_off_at

BILL_DEFAULTS: Raw = {"currency": "CNY", "quota_log": "quota", "billing_position": 0}
SUBSCRIPTIONS = "subscriptions:"


class Issued(NamedTuple):
    """A bill or statement as its event in billing's log has it."""

    position: int
    recorded_at: str
    content: Raw
    sha256: str


class Cut(NamedTuple):
    """What later bills of an account need to know of an earlier one. `credit_fen`: what it used of the credits."""

    position: int
    period: str
    quota_position: int
    billing_position: int
    credit_fen: int


class Made(NamedTuple):
    """A bill of the period, and what the account had when it was made: earlier bills, and what was left of credits."""

    stream: str
    issued: Issued
    earlier: tuple[Cut, ...]
    credit_fen: int


def sha256_of(content: Raw) -> str:
    """The hash of canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Billed:
    """Everything billed. Of other periods than the audited one only the cut-offs are kept."""

    def __init__(self, period: str, findings: Findings, shards: int = 1) -> None:
        """`shards`: of quota, each with a log of its own."""
        self.period = period
        self._shards = shards
        self.bills: dict[str, Issued] = {}  # of the period, by `operator/account`
        self.numbers: dict[str, str] = {}  # of the period: bill's number to `operator/account`
        self.statements: dict[tuple[str, str], Issued] = {}  # of the period, by (home, serving)
        self.cuts: dict[str, list[Cut]] = {}
        self._findings = findings
        self._serials: dict[str, int] = {}
        self._totals: dict[str, int] = {}  # what is left of each bill to be credited
        self.paid: dict[str, int] = {}
        self.credited: dict[str, int] = {}
        self.subscriptions: dict[str, AccountSubscriptions] = {}
        self._made: list[Made] = []  # bills of the period, void ones too
        self._ever_cut: dict[str, set[int]] = {}
        self._void: set[str] = set()
        self._owners: dict[str, str] = {}  # bill's number to `operator/account`
        self._credits: dict[str, list[tuple[int, int]]] = {}
        self._trials: set[str] = set()
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
        if stream.startswith(SUBSCRIPTIONS):
            account = stream.removeprefix(SUBSCRIPTIONS)
            if account not in self.subscriptions:
                self.subscriptions[account] = AccountSubscriptions(account, partial(self._wrong, "bills"))
            self.subscriptions[account].apply(position, topic.partition(".")[2].partition(":")[0], event)
        elif topic == "billing.AccountCredited:1":
            self._credits.setdefault(stream.partition(":")[2], []).append((position, event["fen"]))
        elif topic == "billing.TrialTaken:1":
            if stream in self._trials:
                self._wrong("bills", "trial taken twice", position, stream, "once", event["subscription"])
            self._trials.add(stream)
        elif handler is None:
            self._wrong("bills", "unknown kind of event", position, stream, "a kind of the contract", topic)
        else:
            handler(position, event)

    def _bill_issued(self, position: int, event: Raw) -> None:
        bill = event["bill"]
        operator, account = bill["operator"], f"{bill['operator']}/{bill['account']}"
        serial = self._serials[operator] = self._serials.get(operator, 0) + 1
        number = f"{operator}-{bill['period']}-{serial:06d}"
        if bill["number"] != number:
            self._wrong("bills", "bill numbers have a gap", position, account, number, bill["number"])
        if sha256_of(bill) != event["bill_sha256"]:
            self._wrong("bills", "hash is not the bill's", position, account, sha256_of(bill), event["bill_sha256"])
        cuts = self.cuts.setdefault(account, [])
        if any(cut.period == bill["period"] for cut in cuts):
            self._wrong("bills", "account billed twice", position, account, "one bill", bill["number"])
        known = bill.get("billing_position", 0)
        if known >= position:
            self._wrong("bills", "bill knows what came after it", position, account, f"below {position}", known)
        made = Issued(position, event["recorded_at"], bill, event["bill_sha256"])
        if bill["period"] == self.period:
            given = sum(fen for at, fen in self._credits.get(account, ()) if at <= known)
            left = given - sum(cut.credit_fen for cut in cuts)
            self._made.append(Made(account, made, tuple(cuts), left))
            self.bills[account] = made
            self.numbers[bill["number"]] = account
        used = -sum(line["fen"] for line in bill["lines"] if line["kind"] == "credit")
        cuts.append(Cut(position, bill["period"], bill["quota_position"], known, used))
        self._ever_cut.setdefault(account, set()).add(bill["quota_position"])
        self._totals[bill["number"]] = bill["total_fen"]
        self._owners[bill["number"]] = account

    def _bill_voided(self, position: int, event: Raw) -> None:
        number = event["number"]
        account = self._owners.get(number)
        if account is None or number in self._void:
            self._wrong("bills", "no bill to make void", position, number, "an issued bill", "none")
            return
        if self.paid.get(number) or self.credited.get(number):
            self._wrong("bills", "void bill was paid or credited", position, account, "nothing", number)
        self._void.add(number)
        cuts = self.cuts[account]
        last = cuts.pop()
        if not number.startswith(f"{account.partition('/')[0]}-{last.period}-"):
            self._wrong("bills", "void bill is not the account's last", position, account, last.period, number)
        if self.numbers.get(number) == account:
            del self.bills[account]

    def _statement_issued(self, position: int, event: Raw) -> None:
        statement = event["statement"]
        pair = (statement["home"], statement["serving"])
        digest = sha256_of(statement)
        if digest != event["statement_sha256"]:
            self._wrong("statements", "hash is not the statement's", position, "/".join(pair), digest, "another")
        if statement["period"] == self.period:
            if pair in self.statements:
                self._wrong("statements", "two statements of one pair", position, "/".join(pair), "one", "two")
            self.statements[pair] = Issued(position, event["recorded_at"], statement, event["statement_sha256"])

    def _credit_note_issued(self, position: int, event: Raw) -> None:
        left = self._totals.get(event["bill_number"])
        if event["bill_number"] in self._void:
            self._wrong("bills", "credit note on a void bill", position, event["bill_number"], "none", event["fen"])
        if left is None or event["fen"] > left:
            self._wrong("bills", "credit note exceeds its bill", position, event["bill_number"], left, event["fen"])
        self._totals[event["bill_number"]] = (left or 0) - event["fen"]
        self.credited[event["bill_number"]] = self.credited.get(event["bill_number"], 0) + event["fen"]

    def _bill_paid(self, position: int, event: Raw) -> None:
        if event["number"] not in self._totals:
            self._wrong("bills", "payment of no bill", position, event["number"], "an issued bill", "none")
        if event["number"] in self._void:
            self._wrong("bills", "payment of a void bill", position, event["number"], "none", event["fen"])
        self.paid[event["number"]] = self.paid.get(event["number"], 0) + event["fen"]

    def cut_offs(self) -> dict[str, list[int]]:
        """Of each account, the quota positions at which its bills were cut off, ascending."""
        return {account: sorted(positions) for account, positions in self._ever_cut.items()}

    # -- comparing --------------------------------------------------------------------------------
    def check_bills(self, accounts: Mapping[str, Account], metered: Metered, prices: Prices) -> None:
        """Every bill of the period, computed again; and every account that should have one."""
        for stream, issued, earlier, credit_fen in self._made:
            account = accounts.get(stream)
            if account is None:
                self._wrong("bills", "bill of no account", issued.position, stream, "an opened account", "none")
                continue
            in_quota = partial(self._carries, issued.content["quota_position"], earlier, "quota_position")
            known = issued.content.get("billing_position", 0)
            in_billing = partial(self._carries, known, earlier, "billing_position")
            usage = metered.usage.get(stream, {}).items()
            subscribed = self.subscriptions.get(stream)
            charged = subscribed.charged if subscribed is not None else Charged()
            expected = bill_of(
                issued.content,
                account,
                [g for g in metered.grants.get(stream, []) if in_quota(g.period, g.section)],
                [(k, s) for k, s in usage if k.period == self.period and in_quota(k.period, k.section)],
                [(k, s) for k, s in usage if k.period < self.period and in_quota(k.period, k.section)],
                prices,
                [c for c in charged.charges if c.period <= self.period and in_billing(c.period, c.position)],
                charged.running(period_start(self.period), known),
                credit_fen,
            )
            expected["quota_log"] = self._log_of(stream)
            self._compare("bills", issued, stream, expected, {**BILL_DEFAULTS, **issued.content}, LINE_DEFAULTS)
        self._check_all_billed(accounts)

    def _carries(self, cut_off: int, earlier: Sequence[Cut], which: str, period: str, position: int) -> bool:
        """Whether the period's bill has what lies at this position, or in this section, of a log: its own period's, and
        what came late for a billed period and no other bill has carried. `which`: the cut-off in that log."""
        if position > cut_off:
            return False
        if period == self.period:
            return True
        own = next((cut for cut in earlier if cut.period == period), None)
        if own is None:
            return False
        carriers = [cut for cut in earlier if cut.period > period and cut.position > own.position]
        return bool(position > max(getattr(cut, which) for cut in (own, *carriers)))

    def check_subscriptions(
        self, metered: Metered, prices: Prices, settled_before: datetime, known_until: datetime
    ) -> None:
        """Periods by the catalogue, and what was granted for them; see `AccountSubscriptions`."""
        for stream in sorted(self.subscriptions.keys() | metered.ordered.keys()):
            found = self.subscriptions.get(stream) or AccountSubscriptions(stream, partial(self._wrong, "bills"))
            found.check_terms(stream.partition("/")[0], prices)
            ordered, ended = metered.ordered.get(stream, {}), metered.ended.get(stream, {})
            found.check_grants(ordered, ended, settled_before, known_until)

    def _check_all_billed(self, accounts: Mapping[str, Account]) -> None:
        cut_offs: dict[tuple[str, str], int] = {}  # by operator and log of quota
        for stream, issued in self.bills.items():
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
            expected = statement_of(
                home,
                serving,
                self.period,
                sum(cut_offs),
                metered.wholesale.get((home, serving), {}),
                prices,
                instant(issued.recorded_at),
            )
            if len(cut_offs) > 1:
                expected["quota_positions"] = cut_offs
            self._compare("statements", issued, f"{home}/{serving}", expected, issued.content, {})
        for pair, first in metered.pairs.items():
            due = any(position <= latest[shard] for shard, position in first.items())
            if due and pair not in self.statements:
                self._wrong("statements", "statement is missing", 0, "/".join(pair), "a statement", "none")

    def _compare(self, area: Area, issued: Issued, about: str, expected: Raw, found: Raw, defaults: Raw) -> None:
        for what, want, has in _unequal(expected, found, defaults):
            self._wrong(area, f"{what} is not what was computed", issued.position, about, want, has)

    def _wrong(self, area: Area, what: str, position: int, about: str, expected: Any, found: Any) -> None:
        self._findings.add(area, what, "billing", position, about, expected, found)


def _unequal(expected: Raw, found: Raw, line_defaults: Raw) -> Iterator[tuple[str, Any, Any]]:
    """Path, expected and found value of each field that differs; the lines' texts are for people."""
    for field in expected.keys() | found.keys():
        if field != "lines" and expected.get(field) != found.get(field):
            yield field, expected.get(field), found.get(field)
    if len(expected["lines"]) != len(found["lines"]):
        yield "number of lines", len(expected["lines"]), len(found["lines"])
    for n, (want, issued) in enumerate(zip(expected["lines"], found["lines"], strict=False)):
        line = {**line_defaults, **issued}
        line["usage"] = {name: count for name, count in line["usage"].items() if count}
        for field in want.keys() | line.keys():
            if field != "text" and want.get(field) != line.get(field):
                yield f"lines[{n}].{field}", want.get(field), line.get(field)
