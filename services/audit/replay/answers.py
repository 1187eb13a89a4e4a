"""What the services answer, compared with what was folded: balances, bills, statements.

It asks page by page. On a system at work the read model moves while it is read: the replay is brought to the very
position that a page of it stands at before the two are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from services.audit.replay.billed import Billed, sha256_of
from services.audit.replay.findings import Findings
from services.audit.replay.ledger import Ledger
from services.audit.replay.prices import Raw
from services.audit.replay.reader import Caller

PAGE = 500
PAUSE_S = 0.05
RACES_MAX = 5  # how often a page may be asked for again because the read model moved


class Answers:
    """Compares the services' answers, area by area."""

    def __init__(self, client: Caller, findings: Findings) -> None:
        self._client = client
        self._findings = findings

    # -- balances -----------------------------------------------------------------------------------
    def check_balances(
        self,
        ledger: Ledger,
        position: int,
        read_on: Callable[[int], int],
        wait_s: float,
        log: str = "quota",
        shard: int | None = None,
    ) -> None:
        """Every account of quota's read model against the ledger, which stands at `position` of quota's log and
        is read on by `read_on`. `wait_s`: how long the read model may take to follow. Where quota has several logs,
        this is about one, `log`, and the read model of its `shard`."""
        due = {s for s, a in ledger.accounts.items() if a.opened is not None and a.opened[0] <= position}
        until = time.monotonic() + wait_s
        after, more = "", True
        while more:
            page = self._page(after, position, until, shard)
            differing: list[tuple[str, Raw, Raw]] = []
            for _ in range(RACES_MAX):
                position = max(position, read_on(page["position"]))
                differing = [d for account in page["accounts"] if (d := _difference(ledger, account)) is not None]
                if not differing:
                    break
                again = self._page(after, position, until, shard)
                if again["position"] == page["position"] and again["accounts"] == page["accounts"]:
                    break
                page = again
            for stream, expected, found in differing:
                self._report(log, stream, page["position"], expected, found)
            streams = [_stream(account) for account in page["accounts"]]
            due.difference_update(streams)
            after, more = (streams[-1], page["more"]) if streams else ("", False)
        for stream in sorted(due):
            self._add_balance(log, stream, position, "account is missing from the balances", "an account", "none")

    def _page(self, after: str, position: int, until: float, shard: int | None) -> Raw:
        """A page of balances that stands at `position` or behind it, if the read model gets there in time."""
        which = {} if shard is None else {"shard": shard}
        while True:
            page: Raw = self._client.call("quota", "balances", after=after, limit=PAGE, **which)
            if page["position"] >= position or time.monotonic() > until:
                return page
            time.sleep(PAUSE_S)

    def _report(self, log: str, stream: str, position: int, expected: Raw, found: Raw) -> None:
        for field in sorted(expected.keys() | found.keys()):
            if expected.get(field) != found.get(field) and field != "grants":
                self._add_balance(log, stream, position, f"{field} differs", expected.get(field), found.get(field))
        ours, theirs = expected.get("grants", {}), found.get("grants", {})
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                self._add_balance(log, stream, position, f"grant {name} differs", ours.get(name), theirs.get(name))

    def _add_balance(self, log: str, stream: str, position: int, what: str, expected: Any, found: Any) -> None:
        self._findings.add("balances", what, log, position, stream, expected, found)

    # -- bills and statements -----------------------------------------------------------------------
    def check_bills(self, billed: Billed, read_to: int) -> None:
        """Billing's list of bills against its log, which was folded up to `read_to`."""
        due = dict(billed.numbers)
        for row in self._pages("bills", "bills", "number", period=billed.period):
            number = row["number"]
            stream, issued = due.pop(number, ("", None))
            if issued is None:
                # What was issued after the audit read the log is not yet to be judged.
                if self._client.call("billing", "head") <= read_to:
                    self._findings.add("bills", "bill is not in the log", "billing", 0, number, "none", number)
                continue
            expected = {
                "account": stream,
                "sha256": sha256_of(issued.content),
                "total_fen": issued.content["total_fen"],
                "vat_fen": issued.content["vat_fen"],
                "quota_position": issued.content["quota_position"],
                "quota_log": issued.content.get("quota_log", "quota"),
                "paid_fen": billed.paid.get(number, 0),
                "credited_fen": billed.credited.get(number, 0),
                "void": number in billed.void,
            }
            found = {**row, "account": f"{row['operator']}/{row['account']}", "void": row["status"] == "void"}
            for field, value in expected.items():
                if found.get(field) != value:
                    what = f"{field} of the answered bill differs"
                    self._findings.add("bills", what, "billing", issued.position, stream, value, found.get(field))
        for number, (stream, _) in due.items():
            self._findings.add("bills", "bill is not answered", "billing", 0, stream, number, "none")

    def check_statements(self, billed: Billed, read_to: int) -> None:
        """Billing's statements against its log, which was folded up to `read_to`."""
        due = dict(billed.statements)
        for row in self._pages("statements", "statements", "", period=billed.period):
            statement = row["statement"]
            pair = (statement["home"], statement["serving"])
            about = "/".join(pair)
            issued = due.pop(pair, None)
            if issued is None:
                if self._client.call("billing", "head") <= read_to:
                    self._findings.add("statements", "statement is not in the log", "billing", 0, about, "none", about)
            elif (digest := sha256_of(issued.content)) != sha256_of(statement) or digest != row["statement_sha256"]:
                self._findings.add(
                    "statements", "answered statement differs", "billing", issued.position, about, digest,
                    row["statement_sha256"],
                )  # fmt: skip
        for pair, issued in due.items():
            self._findings.add(
                "statements", "statement is not answered", "billing", issued.position, "/".join(pair), "one", "none"
            )

    def _pages(self, method: str, key: str, name: str, **query: Any) -> Iterator[Raw]:
        after, more = "", True
        while more:
            page = self._client.call("billing", method, after=after, limit=PAGE, **query)
            yield from page[key]
            more = page["more"] and bool(page[key])
            if more:
                last = page[key][-1]
                after = last[name] if name else f"{last['statement']['home']}/{last['statement']['serving']}"


def _stream(account: Raw) -> str:
    return f"{account['operator']}/{account['account']}"


def _difference(ledger: Ledger, found: Raw) -> tuple[str, Raw, Raw] | None:
    stream = _stream(found)
    account = ledger.accounts.get(stream)
    expected = account.state() if account is not None else {}
    grants = dict(found["grants"])
    if not any(grants.get("credit", {"": 1}).values()):
        del grants["credit"]  # held once and released: nothing became of it
    shown = {name: found[name] for name in ("status", "version", "credit_limit", "overdrawn")} | {"grants": grants}
    return None if shown == expected else (stream, expected, shown)
