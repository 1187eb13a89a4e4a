"""Bills and statements computed again, in exact fractions of a fen, from the rules of rating. Pure.

The figures of a line and its order are computed; its text is for people and is not. Every amount of money is
exact until the line's end and rounded there once, half away from zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from fractions import Fraction

from services.audit.replay.account import Account
from services.audit.replay.calendar import day_start, instant, period_start
from services.audit.replay.charges import NO_SUBSCRIPTION, Subscribed, Terms, terms_of
from services.audit.replay.charges import line as line_of
from services.audit.replay.periods import rounded
from services.audit.replay.prices import CLASSES, Prices, Raw, rates_of
from services.audit.replay.usage import Granted, Sums, Usage

VAT_PERCENT = 6
MILLIPOINTS_PER_FEN = 2_500_000
KINDS = {"plan": "plan_fee", "bundle": "bundle", "purchase": "purchase", "trial": "trial", "promotion": "trial"}
ORDER = ("plan_fee", "bundle", "plan_credit", "purchase", "trial")


def bill_of(
    issued: Raw, account: Account, grants: Iterable[Granted], own: Iterable[tuple[Usage, Sums]],
    late: Iterable[tuple[Usage, Sums]], prices: Prices, subscribed: Subscribed = NO_SUBSCRIPTION,
) -> Raw:  # fmt: skip
    """The bill as it must be. From the issued one are taken its number, cut-offs and catalog position."""
    known = issued["catalog_position"]
    terms = terms_for(issued, account, prices, subscribed)
    granted = _grant_lines(account.operator, grants, prices, known)
    lines = [made for kind in ORDER for made in (*subscribed.lines.get(kind, ()), *granted.get(kind, ()))]
    lines += _lines_as_you_go(own, late, terms)
    total = sum(line["fen"] for line in lines)
    credit = min(subscribed.credit_fen, total)
    if credit > 0:
        lines.append(line_of("credit", -credit))
        total -= credit
    return {
        "number": issued["number"],
        "operator": account.operator,
        "account": account.stream.partition("/")[2],
        "period": issued["period"],
        "currency": "CNY",
        "lines": lines,
        "total_fen": total,
        "vat_percent": VAT_PERCENT,
        "vat_fen": rounded(Fraction(total * VAT_PERCENT, 100 + VAT_PERCENT)),
        "calls": sum(line["calls"] for line in lines),
        "tokens": sum(sum(line["usage"].values()) for line in lines),
        "debited": sum(line["amount"] for line in lines if line["kind"] in ("usage", "late_usage")),
        "quota_position": issued["quota_position"],
        "catalog_position": known,
        "billing_position": issued.get("billing_position", 0),
    }


def statement_of(
    home: str, serving: str, period: str, cut_off: int, rows: dict[tuple[str, str], Sums], prices: Prices,
    known_at: datetime,
) -> Raw:  # fmt: skip
    """What `home` owes `serving`: one line for each model and tariff."""
    found: dict[tuple[str, str], tuple[Raw | None, Sums]] = {}
    for (model, day), sums in rows.items():
        reference, tariff = prices.tariff(home, serving, model, day_start(date.fromisoformat(day)), known_at) or (
            "",
            None,
        )
        found.setdefault((model, reference), (tariff, Sums()))[1].add(sums)
    lines = [_wholesale_line(*key, *found[key]) for key in sorted(found)]
    totals = {name: sum(line[name] for line in lines) for name in ("calls", "gross_fen", "discount_fen", "net_fen")}
    return {"home": home, "serving": serving, "period": period, "lines": lines, **totals, "quota_position": cut_off}


def terms_for(issued: Raw, account: Account, prices: Prices, subscribed: Subscribed) -> Terms:
    """The terms as you go: of a subscription, else of the account's plan at the period's start, else at its opening,
    else the list's; without a commitment of an account that was closed by then."""
    terms = _terms_of_plan(issued, account, prices, subscribed)
    return terms._replace(commitment_fen=0) if _closed_before(issued, account) else terms


def _terms_of_plan(issued: Raw, account: Account, prices: Prices, subscribed: Subscribed) -> Terms:
    if subscribed.terms is not None:
        return subscribed.terms
    period, known = issued["period"], issued["catalog_position"]
    opened = account.opened[1] if account.opened else {}
    plan = opened.get("plan")
    if plan:
        for at in (period_start(period), instant(opened["at"])):
            version = prices.in_force("plan", f"{account.operator}/{plan}", at, position=known)
            if version is not None:
                return terms_of(version.item)
    return Terms()


def _closed_before(issued: Raw, account: Account) -> bool:
    """Whether an account was closed when its bill's period began, as known at the bill's cut-off."""
    if account.closed is None:
        return False
    position, at = account.closed
    return position <= issued["quota_position"] and at <= period_start(issued["period"])


def _grant_lines(operator: str, grants: Iterable[Granted], prices: Prices, known: int) -> dict[str, list[Raw]]:
    """By kind, those of grants that no subscription ordered."""
    by_kind: dict[str, list[Raw]] = {}
    for grant in sorted(grants, key=lambda g: (instant(g.at), g.position)):
        event = grant.event
        kind = KINDS.get(event["source"])
        if kind is None or event.get("subscription"):
            continue
        paid, plan, number = event.get("price_fen", 0), event.get("plan", ""), event.get("plan_version", 0)
        about = {"plan": plan, "plan_version": number}
        fen = 0 if kind == "trial" else paid
        if kind == "plan_fee":
            version = prices.plan_version(operator, plan, number, known) if plan and number else None
            fen = paid if version is None else version.get("fee_fen", 0)
        lines = by_kind.setdefault(kind, [])
        lines.append(line_of(kind, fen, amount=event["amount"], **about))
        if kind == "plan_fee" and fen != paid:
            lines.append(line_of("discount", paid - fen, **about))
    return by_kind


def _lines_as_you_go(own: Iterable[tuple[Usage, Sums]], late: Iterable[tuple[Usage, Sums]], terms: Terms) -> list[Raw]:
    """Usage, and what the terms take off it or add to it."""
    lines = _usage_lines("usage", own, terms.points_per_yuan) + _usage_lines("late_usage", late, terms.points_per_yuan)
    exact = sum((_exact(line["charged"], terms.points_per_yuan) for line in lines), Fraction(0))
    if terms.usage_discount_percent and exact > 0:
        lines.append(line_of("discount", -exact * terms.usage_discount_percent / 100))
    comes_to = sum(line["fen"] for line in lines)
    if 0 < terms.cap_fen < comes_to:
        lines.append(line_of("cap", terms.cap_fen - comes_to))
        comes_to = terms.cap_fen
    if terms.commitment_fen and comes_to < terms.commitment_fen:
        lines.append(line_of("commitment", terms.commitment_fen - comes_to))
    return lines


def _usage_lines(kind: str, rows: Iterable[tuple[Usage, Sums]], points_per_yuan: int) -> list[Raw]:
    by_model: dict[tuple[str, str], Sums] = {}
    for key, sums in rows:
        by_model.setdefault((key.model, key.rate_card), Sums()).add(sums)
    lines = []
    for model, rate_card in sorted(by_model):
        used = by_model[model, rate_card]
        counted = {"calls": used.calls, "usage": _by_class(used.tokens), "amount": used.amount, "charged": used.charged}
        exact = _exact(used.charged, points_per_yuan)
        lines.append(line_of(kind, exact, model=model, rate_card=rate_card, **counted))
    return lines


def _exact(millipoints: int, points_per_yuan: int) -> Fraction:
    """Fen."""
    return Fraction(millipoints, 10 * points_per_yuan)


def _wholesale_line(model: str, reference: str, tariff: Raw | None, sums: Sums) -> Raw:
    exact, percent = Fraction(0), 0
    if tariff is not None:
        percent = tariff.get("discount_percent", 0)
        rates = rates_of(tariff.get("rates", {}))
        if any(rates):
            exact = Fraction(sum(t * r for t, r in zip(sums.tokens, rates, strict=True)), MILLIPOINTS_PER_FEN)
        else:
            exact = Fraction(sums.amount * tariff.get("retail_percent", 0), 100 * MILLIPOINTS_PER_FEN)
    gross, discount = rounded(exact), rounded(exact * percent / 100)
    return {
        "model": model,
        "tariff": reference,
        "calls": sums.calls,
        "usage": _by_class(sums.tokens),
        "amount": sums.amount,
        "gross_fen": gross,
        "discount_fen": discount,
        "net_fen": gross - discount,
    }


def _by_class(tokens: list[int]) -> dict[str, int]:
    return {name: count for name, count in zip(CLASSES, tokens, strict=True) if count}
