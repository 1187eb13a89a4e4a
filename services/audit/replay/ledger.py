"""The ledger folded by the auditor's own rules, and its invariants, checked while it folds. Pure.

Written from the contract of quota's events. An event that breaks a rule is reported with its position and
folded all the same: what follows is judged by what the log says. It must not know services or money.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from services.audit.replay.account import PRIORITY, Account, Grant, Hold
from services.audit.replay.calendar import instant
from services.audit.replay.findings import Findings
from services.audit.replay.invariants import CREDIT, standing
from services.audit.replay.kinds import whole
from services.audit.replay.prices import Prices, Raw, rates_of
from services.audit.replay.requests import Fetch, Requests

Heard = Callable[[int, Account, str, Raw], None]
Handler = Callable[[int, Account, Raw], None]

# What may still come to an account that is closed: its holds are released with it, the sweep goes on.
AFTER_CLOSING = {"quota.ReservationReleased:1", "quota.GrantExpired:1", "quota.GrantVoided:1"}
SPENDS = {"quota.PointsReserved:1", "quota.ReservationExtended:1"}


class Ledger:
    """All accounts of a log of quota. `heard` is told of every event behind its account: usage and calls are counted
    there."""

    def __init__(self, prices: Prices, findings: Findings, heard: Heard, fetch: Fetch, log: str = "quota") -> None:
        self.accounts: dict[str, Account] = {}
        self.debited = 0
        self._prices = prices
        self._findings = findings
        self._heard = heard
        self._log = log
        self.requests = Requests(findings, fetch, log)
        self._handlers: dict[str, Handler] = {
            "quota.TokensDebited:1": self._tokens_debited,
            "quota.PointsReserved:1": self._points_reserved,
            "quota.ReservationExtended:1": self._reservation_extended,
            "quota.ReservationReleased:1": self._reservation_released,
            "quota.ReservationExpired:1": self._reservation_expired,
            "quota.PointsGranted:1": self._points_granted,
            "quota.DebitReversed:1": self._debit_reversed,
            "quota.GrantExpired:1": self._grant_expired,
            "quota.GrantVoided:1": self._grant_voided,
            "quota.AccountOpened:1": self._account_opened,
            "quota.CreditLimitSet:1": self._credit_limit_set,
            "quota.AccountSuspended:1": lambda _p, a, _e: a.set_status("suspended"),
            "quota.AccountResumed:1": lambda _p, a, _e: a.set_status("open"),
            "quota.AccountClosed:1": lambda p, a, e: a.close(p, instant(e["at"])),
        }

    def apply(self, position: int, stream: str, topic: str, event: Raw) -> None:
        """Fold one event of quota's log."""
        handler = self._handlers.get(topic)
        if handler is None:
            self._broken("unknown kind of event", position, stream, "a kind of the contract", topic)
            return
        account = self.accounts.get(stream)
        if account is None:
            account = self.accounts[stream] = Account(stream)
            if topic != "quota.AccountOpened:1":
                self._broken("event of an account that was not opened", position, stream, "AccountOpened", topic)
        account.version += 1
        self.requests.used(position, stream, topic, event, account.status == "closed")
        if account.status != "open" and topic != "quota.AccountOpened:1":
            self._check_status(position, account, topic)
        handler(position, account, event)
        self._heard(position, account, topic, event)

    # -- calls ------------------------------------------------------------------------------------
    def _points_reserved(self, position: int, a: Account, e: Raw) -> None:
        at = instant(e["at"])
        hold = a.holds[e["request_id"]] = Hold(e["model"], e["rate_card"], at, instant(e["expires_at"]))
        self._check_card(position, a, e, at)
        self._hold(position, a, hold, e, at)

    def _reservation_extended(self, position: int, a: Account, e: Raw) -> None:
        hold = self._live(position, a, e["reservation"])
        if hold is None:
            return
        if hold.expired:
            self._broken("expired reservation extended", position, a.stream, "refused", e["reservation"])
        hold.expires_at = instant(e["expires_at"])
        self._hold(position, a, hold, e, instant(e["at"]))

    def _hold(self, position: int, a: Account, hold: Hold, e: Raw, at: Any) -> None:
        total = 0
        for name, amount in e["draws"]:
            total += amount
            hold.remaining[name] = hold.remaining.get(name, 0) + amount
            grant = a.grants.get(name) or self._grant(position, a, name)
            self._check_draw(position, a, name, grant, amount, hold.model, at)
            grant.reserved += amount
            if name != CREDIT and grant.available < 0:
                self._broken("grant is overdrawn", position, a.stream, ">= 0", f"{name}: {grant.available}")
        if total != e["amount"]:
            self._broken("held amount is not the sum of its draws", position, a.stream, total, e["amount"])

    def _reservation_released(self, position: int, a: Account, e: Raw) -> None:
        hold = self._live(position, a, e["reservation"])
        if hold is not None:
            self._free_all(position, a, hold, e)
            del a.holds[e["reservation"]]

    def _reservation_expired(self, position: int, a: Account, e: Raw) -> None:
        hold = self._live(position, a, e["reservation"])
        if hold is None:
            return
        if hold.expired or instant(e["at"]) < hold.expires_at:
            self._broken("reservation expired early or twice", position, a.stream, hold.expires_at, e["at"])
        self._free_all(position, a, hold, e)
        hold.expired = True

    def _free_all(self, position: int, a: Account, hold: Hold, e: Raw) -> None:
        held = {name: amount for name, amount in hold.remaining.items() if amount}
        freed = dict(map(tuple, e.get("draws", ())))
        if freed != held or sum(freed.values()) != e["amount"]:
            self._broken("released is not what was held", position, a.stream, held, freed)
        self._free(position, a, hold, e.get("draws", ()))

    def _free(self, position: int, a: Account, hold: Hold | None, draws: Iterable[Any]) -> int:
        total = 0
        for name, amount in draws:
            total += amount
            grant = self._grant(position, a, name)
            grant.reserved -= amount
            if hold is not None:
                hold.remaining[name] = hold.remaining.get(name, 0) - amount
            if grant.reserved < 0:
                self._broken("more is freed than was held of a grant", position, a.stream, ">= 0", grant.reserved)
        return total

    def _tokens_debited(self, position: int, a: Account, e: Raw) -> None:
        amount = e["amount"]
        self.debited += amount
        at = instant(e["at"])
        draws, reservation = e["draws"], e.get("reservation")
        paid: dict[str, int] = {}
        given = 0
        if reservation:
            hold = self._live(position, a, reservation)
            if hold is not None:
                paid = self._settle(position, a, hold, e)
                priced_at, given = hold.reserved_at, hold.given
                hold.given += sum(rates_of(e["usage"])[:3])
                if e["rate_card"] != hold.rate_card or e["model"] != hold.model:
                    self._broken("price is not the pinned one", position, a.stream, hold.rate_card, e["rate_card"])
                if e.get("final", True):
                    del a.holds[reservation]
            else:
                priced_at = at
                self._free(position, a, None, e.get("freed", ()))
        else:
            priced_at = at
            self._check_card(position, a, e, at)
            if e.get("freed"):
                self._broken("freed without a reservation", position, a.stream, "nothing", e["freed"])
        self._check_price(position, a, e, amount, priced_at, given)
        drawn = overdrawn = e.get("overdrawn", 0)
        a.overdrawn += drawn
        for name, part in draws:
            drawn += part
            grant = a.grants.get(name) or self._grant(position, a, name)
            held = paid.get(name, 0)
            grant.debited += held
            if part != held:
                if part < held:
                    self._broken("held points were not used first", position, a.stream, held, part)
                self._check_draw(position, a, name, grant, part - held, e["model"], at)
                grant.debited += part - held
                if name != CREDIT and grant.available < 0:
                    self._broken("grant is overdrawn", position, a.stream, ">= 0", f"{name}: {grant.available}")
        if overdrawn:
            self._check_overdrawn(position, a, e["model"], at)
        if drawn != amount:
            self._broken("debit is not the sum of its draws and what was overdrawn", position, a.stream, drawn, amount)

    def _settle(self, position: int, a: Account, hold: Hold, e: Raw) -> dict[str, int]:
        """Free what leaves the hold; what it paid of the debit, by grant, in the order of the hold."""
        left, final = e["amount"], e.get("final", True)
        paid: dict[str, int] = {}
        expected: dict[str, int] = {}
        for name, held in hold.remaining.items():
            part = held if held < left else left
            left -= part
            if part > 0:
                paid[name] = part
            out = held if final else part
            if out > 0:
                expected[name] = out
        freed = e.get("freed", ())
        if dict(map(tuple, freed)) != expected:
            self._broken("freed is not what leaves the hold", position, a.stream, expected, freed)
        released = self._free(position, a, hold, freed) - sum(paid.values())
        if released != e.get("released", 0):
            self._broken("held is not settled plus released", position, a.stream, released, e.get("released", 0))
        return paid

    def _debit_reversed(self, position: int, a: Account, e: Raw) -> None:
        self.requests.reversed(position, a.stream, e)
        total = overdrawn = e.get("overdrawn", 0)
        a.overdrawn -= overdrawn
        if a.overdrawn < 0:
            self._broken("more is forgiven than was owed", position, a.stream, ">= 0", a.overdrawn)
        regranted = e.get("regranted", ())
        for name, amount in e["draws"]:
            total += amount
            if name in regranted:
                a.regrants[name] = a.regrants.get(name, 0) + amount
                continue
            grant = self._grant(position, a, name)
            grant.reversed += amount
            if grant.reversed > grant.debited:
                self._broken("more was reversed than debited of a grant", position, a.stream, grant.debited, name)
        if total != e["amount"]:
            self._broken("reversal is not the sum of its draws", position, a.stream, total, e["amount"])

    # -- grants and the account -----------------------------------------------------------------------
    def _points_granted(self, position: int, a: Account, e: Raw) -> None:
        name = e["request_id"]
        if name in a.grants or name == CREDIT:
            self._broken("two grants of one name", position, a.stream, "a new name", name)
        if name == CREDIT:
            return  # what is drawn by that name is drawn from the credit limit, whatever else bears it
        expires = e.get("expires_at")
        a.grants[name] = Grant(
            whole(e["amount"]),
            instant(e["effective_at"]),
            instant(expires) if expires else None,
            e.get("scope"),
            e.get("priority", PRIORITY),
        )
        origin = e.get("origin")
        if origin:
            owed = a.regrants.pop(origin, 0)
            if owed != e["amount"]:
                self._broken("granted back is not what was reversed", position, a.stream, owed, e["amount"])

    def _grant_expired(self, position: int, a: Account, e: Raw) -> None:
        grant = self._ended(position, a, e)
        if grant.expires_at is None or instant(e["at"]) < grant.expires_at:
            self._broken("grant expired early", position, a.stream, grant.expires_at, e["at"])
        grant.expired += e["amount"]

    def _grant_voided(self, position: int, a: Account, e: Raw) -> None:
        grant = self._ended(position, a, e)
        grant.void = True
        grant.voided += e["amount"]

    def _ended(self, position: int, a: Account, e: Raw) -> Grant:
        """Expired or voided: exactly what is left goes."""
        grant = self._grant(position, a, e["grant"])
        if e["amount"] != grant.available:
            self._broken("ended grant had another rest", position, a.stream, grant.available, e["amount"])
        return grant

    def _account_opened(self, position: int, a: Account, e: Raw) -> None:
        if a.status:
            self._broken("account opened twice", position, a.stream, "once", "twice")
        instant(e["at"])  # raises for what is none
        whole(e.get("credit_limit", 0))
        a.open(position, e)

    def _credit_limit_set(self, _position: int, a: Account, e: Raw) -> None:
        a.credit_limit = whole(e["credit_limit"])

    # -- checks -----------------------------------------------------------------------------------------
    def _check_status(self, position: int, a: Account, topic: str) -> None:
        if (a.status == "closed" and topic not in AFTER_CLOSING) or (a.status == "suspended" and topic in SPENDS):
            self._broken(f"account was {a.status}", position, a.stream, "refused", topic)

    def _check_card(self, position: int, a: Account, e: Raw, at: Any) -> None:
        card = self._prices.card(e["rate_card"])
        if card is None:
            return  # said once, where usage is priced
        if card.key != f"{a.operator}/{e['model']}":
            self._broken("rate card of another operator or model", position, a.stream, a.operator, e["rate_card"])
        elif self._prices.versions_of_card(card) > 1 or card.version.effective_from > at:
            better = self._prices.outdated(card, at, instant(e["recorded_at"]))
            if better is not None:
                self._broken("rate card was not in force", position, a.stream, better.number, e["rate_card"])

    def _check_price(self, position: int, a: Account, e: Raw, amount: int, at: Any, given: int) -> None:
        usage = rates_of(e["usage"])
        card = self._prices.card(e["rate_card"])
        if card is None:
            self._broken("no such rate card", position, a.stream, "a published one", e["rate_card"])
            return
        rates = card.rates(usage, at, given)
        if rates_of(e["rates"]) != rates:
            self._broken("rates are not those of the rate card", position, a.stream, rates, e["rates"])
        exact = usage[0] * rates[0] + usage[1] * rates[1] + usage[2] * rates[2] + usage[3] * rates[3]
        if exact != amount:
            self._broken("amount is not usage times rates", position, a.stream, exact, amount)

    def _check_draw(self, position: int, a: Account, name: str, grant: Grant, amount: int, model: str, at: Any) -> None:
        """A new draw is covered by the credit limit, or comes from a grant that may pay for it."""
        if name == CREDIT:
            if amount > a.credit_left:
                self._broken("credit limit exceeded", position, a.stream, a.credit_left, amount)
            return
        if not grant.valid(at):
            self._broken("drawn from a grant that was not valid", position, a.stream, "a valid grant", name)
        if grant.scope and not grant.covers(model, self._prices.family(model, at)):
            self._broken("drawn from a grant for other models", position, a.stream, grant.scope, model)

    def _check_overdrawn(self, position: int, a: Account, model: str, at: Any) -> None:
        """Only what nothing covers is owed."""
        family = self._prices.family(model, at)
        left = {n: g.available for n, g in a.grants.items() if g.available > 0 and g.valid(at)}
        covering = {n: amount for n, amount in left.items() if a.grants[n].covers(model, family)}
        if covering or a.credit_left > 0:
            found = covering or {CREDIT: a.credit_left}
            self._broken("overdrawn though there was something to draw from", position, a.stream, "nothing", found)

    def _grant(self, position: int, a: Account, name: str) -> Grant:
        if name == CREDIT:
            return a.credit
        grant = a.grants.get(name)
        if grant is None:
            self._broken("no such grant", position, a.stream, "a grant of the account", name)
            grant = a.grants[name] = Grant(0, instant("1970-01-01T00:00:00Z"), None, None)
        return grant

    def _live(self, position: int, a: Account, reservation: str) -> Hold | None:
        hold = a.holds.get(reservation)
        if hold is None:
            self._broken("reservation is not there or has ended", position, a.stream, "a live one", reservation)
        return hold

    def _broken(self, what: str, position: int, account: str, expected: Any, found: Any) -> None:
        self._findings.add("invariants", what, self._log, position, account, expected, found)

    # -- at the end -------------------------------------------------------------------------------------
    def finish(self) -> None:
        """What can only be said when everything is folded: reversals against their debits, books at rest."""
        self.requests.finish()
        if not self._findings.counts.get("invariants"):  # else they may be what was said before, once more
            for account in self.accounts.values():
                for what, expected, found in standing(account):
                    self._broken(what, 0, account.stream, expected, found)
        for account in self.accounts.values():
            for origin, amount in account.regrants.items():
                self._broken("reversed, but not granted back", 0, account.stream, amount, origin)
