"""Bills and statements computed again, in exact fractions of a fen, from the rules of rating. Pure.

The figures of a line and its order are computed; its text is for people and is not. Every amount of money is
exact until the line's end and rounded there once, half away from zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction

from services.audit.replay.account import Account
from services.audit.replay.calendar import day_start, instant, period_start
from services.audit.replay.charges import Charge, Terms, adjustments, charge_lines, terms_of, terms_running
from services.audit.replay.prices import CLASSES, Prices, Raw, rates_of
from services.audit.replay.usage import Granted, Sums, Usage

VAT_PERCENT = 6
MILLIPOINTS_PER_FEN = 2_500_000
KINDS = {"plan": "plan_fee", "bundle": "bundle", "purchase": "purchase", "trial": "trial", "promotion": "trial"}
ORDER = ("plan_fee", "bundle", "plan_credit", "purchase", "trial")
LINE_DEFAULTS: Raw = {
    "model": "",
    "plan": "",
    "plan_version": 0,
    "subscription": "",
    "from_day": "",
    "to_day": "",
    "rate_card": "",
    "calls": 0,
    "usage": {},
    "amount": 0,
    "charged": 0,
    "residual": "0/1",
}


def rounded(value: Fraction) -> int:
    """To the nearest integer, a half away from zero."""
    doubled = 2 * abs(value) + 1
    whole = doubled.numerator // (2 * doubled.denominator)
    return whole if value >= 0 else -whole


def bill_of(
    issued: Raw, account: Account, grants: Iterable[Granted], own: Iterable[tuple[Usage, Sums]],
    late: Iterable[tuple[Usage, Sums]], prices: Prices, charges: Iterable[Charge] = (), running: Iterable[Raw] = (),
    credit_fen: int = 0,
) -> Raw:  # fmt: skip
    """The bill as it must be. From the issued one are taken its number, cut-offs and catalog position.

    `running`: the periods of plans that run at the period's start; `credit_fen`: what is left of the account's credits.
    """
    known = issued["catalog_position"]
    terms = terms_running(account.operator, running, prices, known)
    terms = _terms_of_account(account, issued["period"], prices, known) if terms is None else terms
    lines = _plan_lines(account.operator, charges, grants, prices, known)
    usage = _usage_lines("usage", own, terms.points_per_yuan) + _usage_lines("late_usage", late, terms.points_per_yuan)
    exact = Fraction(sum(line["charged"] for line in usage) * 100, terms.points_per_yuan * 1000)
    lines += usage + [_line(*each) for each in adjustments([line["fen"] for line in usage], exact, terms, rounded)]
    total = sum(line["fen"] for line in lines)
    if (credit := min(credit_fen, total)) > 0:
        lines.append(_line("credit", Fraction(-credit), {}))
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
        reference, tariff = prices.tariff(home, serving, model, day_start(day), known_at) or ("", None)
        found.setdefault((model, reference), (tariff, Sums()))[1].add(sums)
    lines = [_wholesale_line(*key, *found[key]) for key in sorted(found)]
    totals = {name: sum(line[name] for line in lines) for name in ("calls", "gross_fen", "discount_fen", "net_fen")}
    return {"home": home, "serving": serving, "period": period, "lines": lines, **totals, "quota_position": cut_off}


def _line(kind: str, exact: Fraction, about: Raw) -> Raw:
    fen = rounded(exact)
    rest = exact - fen
    return {**LINE_DEFAULTS, **about, "kind": kind, "fen": fen, "residual": f"{rest.numerator}/{rest.denominator}"}


def _terms_of_account(account: Account, period: str, prices: Prices, known: int) -> Terms:
    """Of the account's plan at the period's start, else at its opening, else list price."""
    opened = account.opened[1] if account.opened else {}
    plan = opened.get("plan")
    if plan:
        for at in (period_start(period), instant(opened["at"])):
            version = prices.in_force("plan", f"{account.operator}/{plan}", at, position=known)
            if version is not None:
                return terms_of(version.item)
    return Terms()


def _plan_lines(
    operator: str, charges: Iterable[Charge], grants: Iterable[Granted], prices: Prices, known: int
) -> list[Raw]:
    """By kind what periods charge, then what grants do; a discount stands behind what it is off."""
    by_kind: dict[str, list[Raw]] = {kind: [] for kind in ORDER}
    last = ""
    for kind, exact, about in charge_lines(charges):
        last = last if kind == "discount" else kind
        by_kind[last].append(_line(kind, exact, about))
    for kind, lines in _grant_lines(operator, grants, prices, known).items():
        by_kind[kind] += lines
    return [line for lines in by_kind.values() for line in lines]


def _grant_lines(operator: str, grants: Iterable[Granted], prices: Prices, known: int) -> dict[str, list[Raw]]:
    by_kind: dict[str, list[Raw]] = {kind: [] for kind in KINDS.values()}
    for grant in sorted(grants, key=lambda g: (instant(g.at), g.position)):
        event = grant.event
        kind = KINDS.get(event["source"])
        if kind is None:
            continue
        paid, plan, number = event.get("price_fen", 0), event.get("plan", ""), event.get("plan_version", 0)
        about = {"plan": plan, "plan_version": number}
        fen = 0 if kind == "trial" else paid
        if kind == "plan_fee":
            version = prices.plan_version(operator, plan, number, known) if plan and number else None
            fen = paid if version is None else version.get("fee_fen", 0)
        by_kind[kind].append({**LINE_DEFAULTS, **about, "kind": kind, "fen": fen, "amount": event["amount"]})
        if kind == "plan_fee" and fen != paid:
            by_kind[kind].append({**LINE_DEFAULTS, **about, "kind": "discount", "fen": paid - fen})
    return by_kind


def _usage_lines(kind: str, rows: Iterable[tuple[Usage, Sums]], points_per_yuan: int) -> list[Raw]:
    by_model: dict[tuple[str, str], Sums] = {}
    for key, sums in rows:
        by_model.setdefault((key.model, key.rate_card), Sums()).add(sums)
    lines = []
    for model, rate_card in sorted(by_model):
        used = by_model[model, rate_card]
        exact = Fraction(used.charged * 100, points_per_yuan * 1000)
        fen = rounded(exact)
        rest = exact - fen
        lines.append(
            {
                **LINE_DEFAULTS,
                "kind": kind,
                "fen": fen,
                "model": model,
                "rate_card": rate_card,
                "calls": used.calls,
                "usage": _by_class(used.tokens),
                "amount": used.amount,
                "charged": used.charged,
                "residual": f"{rest.numerator}/{rest.denominator}",
            }
        )
    return lines


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
