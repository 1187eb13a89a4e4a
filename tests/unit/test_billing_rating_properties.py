"""Whatever was taken, given back and used: lines are exact to their residual, bounds hold, order does not matter."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from services.billing.domain.canonical import sha256_of
from services.billing.domain.charges import Charge, credit_for, period_allowance, period_price
from services.billing.domain.rating import Account, Granted, Used, rate
from shared.contracts.base import Usage
from shared.contracts.billing import Bill, BillLine, TokenSums
from shared.contracts.catalog import Plan
from tests.unit.billing_world import JULY, JUNE, QuotaLog, catalogue, heard, july, june, summed

ORDER = ("plan_fee", "bundle", "plan_credit", "purchase", "trial")
KINDS = {"plan": "plan_fee", "bundle": "bundle", "purchase": "purchase", "trial": "trial", "promotion": "trial"}
SUBSCRIPTIONS = ("s1", "s2", "s3")
PERCENT = st.one_of(st.just(0), st.integers(0, 100))
FEN = st.integers(0, 99_999)


class World(NamedTuple):
    """All that one bill is made of."""

    terms: dict[str, int]
    charges: list[Charge]
    grants: list[Granted]
    usage: list[Used]
    late: list[Used]
    credit_fen: int

    @property
    def plan(self) -> Plan:
        return Plan(operator="sh-telecom", plan="own", name="Own", kind="payg", fee_fen=700, **self.terms)

    def bill(self, **changed: Any) -> Bill:
        made = {**self._asdict(), **changed}
        del made["terms"]
        view = catalogue(self.plan).view()
        return rate(Account("sh-telecom", "a1", june(1), "own"), JUNE, view, 9, billing_position=8, **made)


@st.composite
def charges(draw: st.DrawFn) -> list[Charge]:
    """Some periods, each charged, cut, cancelled, or charged and cancelled on this bill."""
    found: list[Charge] = []
    for number in range(draw(st.integers(0, 4))):
        whole = draw(st.integers(1, 31))
        part, amount = draw(st.integers(1, whole)), draw(st.integers(0, 10**9))
        fee, percent = draw(FEN), draw(PERCENT)
        about = (draw(st.sampled_from(SUBSCRIPTIONS)), number, "own", 1, 0, "2026-06-01", "2026-06-30", fee, percent)
        about += (part, whole, period_price(fee, part, whole, percent), amount)
        charged = Charge(draw(st.integers(0, 3)), 10 * number, draw(st.sampled_from(["plan", "bundle"])), *about)
        undone = charged._replace(at_us=draw(st.integers(0, 3)), position=10 * number + 1)
        cut = undone._replace(
            kind="credited", left_days=draw(st.integers(0, part)), unused=draw(st.integers(0, amount))
        )
        cancelled = undone._replace(kind="cancelled")
        found += draw(st.sampled_from([[charged], [charged, cut], [cut], [cancelled], [charged, cancelled, cut]]))
    return found


GRANT = st.tuples(
    st.integers(0, 3),
    st.sampled_from([*KINDS, "adjustment"]),
    st.integers(1, 10**9),
    FEN,
    st.sampled_from([("", 0), ("own", 1)]),
)
GRANTS = st.lists(GRANT, max_size=4).map(
    lambda rows: [Granted(at, n, source, amount, fen, *plan) for n, (at, source, amount, fen, plan) in enumerate(rows)]
)
CHARGED = st.integers(-(10**6), 10**11)
USAGE = st.dictionaries(st.sampled_from(["kimi", "glm", "qwen"]), CHARGED).map(
    lambda found: [Used(model, "rc@1", 1, TokenSums(input=1), charged, charged) for model, charged in found.items()]
)
TERMS = st.fixed_dictionaries(
    {
        "points_per_yuan": st.sampled_from([1, 3, 7, 200_000, 250_000, 999_983]),
        "usage_discount_percent": PERCENT,
        "cap_fen": st.one_of(st.just(0), FEN),
        "commitment_fen": st.one_of(st.just(0), FEN),
    }
)
FEW = settings(max_examples=50)  # worlds are large
WORLDS = st.builds(World, TERMS, charges(), GRANTS, USAGE, USAGE, st.one_of(st.just(0), FEN))


# --- the rules, word by word -----------------------------------------------------------------
def rounded(exact: Fraction) -> int:
    return int(abs(exact) + Fraction(1, 2)) * (1 if exact >= 0 else -1)


def exact_lines(world: World) -> list[tuple[str, Fraction]]:
    """What each line of the bill is exactly, in order."""
    lines: list[tuple[str, str, Fraction]] = []  # kind, kind of the line it follows, exact fen
    undone = {(c.subscription, c.number) for c in world.charges if c.kind == "cancelled"}
    charged = {(c.subscription, c.number) for c in world.charges if c.kind in ("plan", "bundle")}
    standing = [c for c in world.charges if (c.subscription, c.number) not in undone & charged]
    for c in sorted(standing, key=lambda c: (c.at_us, c.position)):
        if c.kind in ("plan", "bundle"):
            fee = Fraction(c.fee_fen) * c.part_days / c.whole_days
            lines.append((KINDS[c.kind], KINDS[c.kind], fee))
            lines += [("discount", KINDS[c.kind], -fee * c.discount_percent / 100)] if c.discount_percent else []
        elif c.kind == "credited" and c.price_fen:
            shares = [Fraction(c.left_days, c.part_days)] + ([Fraction(c.unused, c.amount)] if c.amount else [])
            lines.append(("plan_credit", "plan_credit", -c.price_fen * min(shares)))
        elif c.kind == "cancelled" and c.price_fen:
            lines.append(("plan_credit", "plan_credit", Fraction(-c.price_fen)))
    for g in sorted(world.grants, key=lambda g: (g.at_us, g.position)):
        if g.source in KINDS:
            kind = KINDS[g.source]
            fee = world.plan.fee_fen if g.source == "plan" and g.plan else 0 if kind == "trial" else g.price_fen
            lines.append((kind, kind, Fraction(fee)))
            lines += (
                [("discount", kind, Fraction(g.price_fen - fee))] if kind == "plan_fee" and fee != g.price_fen else []
            )
    found = [(kind, exact) for at in ORDER for kind, after, exact in lines if after == at]
    terms, start = world.terms, len(found)
    for kind, usage in (("usage", world.usage), ("late_usage", world.late)):
        for used in sorted(usage):
            found.append((kind, Fraction(used.charged, 10 * terms["points_per_yuan"])))
    exact = sum((fen for _, fen in found[start:]), Fraction(0))
    if exact > 0 and terms["usage_discount_percent"]:
        found.append(("discount", -exact * terms["usage_discount_percent"] / 100))
    fen = sum(rounded(exact) for _, exact in found[start:])
    if terms["cap_fen"] and fen > terms["cap_fen"]:
        found.append(("cap", Fraction(terms["cap_fen"] - fen)))
    fen = sum(rounded(exact) for _, exact in found[start:])
    if terms["commitment_fen"] and fen < terms["commitment_fen"]:
        found.append(("commitment", Fraction(terms["commitment_fen"] - fen)))
    credit = min(world.credit_fen, sum(rounded(exact) for _, exact in found))
    return found + ([("credit", Fraction(-credit))] if credit > 0 else [])


@given(world=WORLDS)
def test_a_bill_is_what_the_rules_say_exact_to_the_residual(world: World) -> None:
    made = world.bill()
    assert [(line.kind, line.fen + Fraction(line.residual)) for line in made.lines] == exact_lines(world)
    assert [line.fen for line in made.lines] == [rounded(exact) for _, exact in exact_lines(world)]
    assert made.total_fen == sum(line.fen for line in made.lines)
    assert abs(Fraction(made.total_fen * 6, 106) - made.vat_fen) <= Fraction(1, 2)


def of_usage(made: Bill) -> list[BillLine]:
    """Lines 6 to 10."""
    terms = ("usage", "late_usage", "cap", "commitment")
    return [line for line in made.lines if line.kind in terms or line.text.startswith("Discount on usage")]


@FEW
@given(world=WORLDS)
def test_cap_commitment_and_credit_hold(world: World) -> None:
    made, lines = world.bill(), of_usage(world.bill())
    capped = sum(line.fen for line in lines if line.kind != "commitment")
    assert not world.terms["cap_fen"] or capped <= world.terms["cap_fen"]
    assert sum(line.fen for line in lines) >= (world.terms["commitment_fen"] or capped)
    credit = -sum(line.fen for line in made.lines if line.kind == "credit")
    assert 0 <= credit <= world.credit_fen
    assert made.total_fen >= 0 or not credit
    assert made.total_fen + credit == world.bill(credit_fen=0).total_fen


@FEW
@given(world=WORLDS, more=st.integers(0, 100))
def test_more_discount_never_costs_more(world: World, more: int) -> None:
    percent = world.terms["usage_discount_percent"]
    cheaper = world._replace(terms=world.terms | {"usage_discount_percent": max(percent, more)})
    assert cheaper.bill().total_fen <= world.bill().total_fen


@FEW
@given(world=WORLDS, seed=st.integers(0, 99))
def test_the_order_of_inputs_does_not_matter_nor_does_asking_twice(world: World, seed: int) -> None:
    expected = sha256_of(world.bill())
    lists = {name: rows for name, rows in world._asdict().items() if isinstance(rows, list)}
    shuffled = {name: random.Random(seed).sample(rows, len(rows)) for name, rows in lists.items()}
    assert sha256_of(world.bill(**shuffled)) == expected == sha256_of(world.bill())


@FEW
@given(world=WORLDS, points_per_yuan=st.integers(1, 10**6))
def test_later_versions_change_no_line(world: World, points_per_yuan: int) -> None:
    log = catalogue(world.plan)
    later = {"fee_fen": 1, "points_per_yuan": points_per_yuan, "usage_discount_percent": 100}
    log.publish(Plan(operator="sh-telecom", plan="own", name="New", kind="payg", **later), 2, effective=june(2))
    inputs = {**world._asdict(), "billing_position": 8}
    del inputs["terms"]
    made = rate(Account("sh-telecom", "a1", june(1), "own"), JUNE, log.view(), 9, **inputs)
    assert (made.lines, made.total_fen) == (world.bill().lines, world.bill().total_fen)


@FEW
@given(world=WORLDS, fee=FEN, part=st.integers(1, 30), percent=PERCENT, kind=st.sampled_from(["plan", "bundle"]))
def test_charging_and_then_cancelling_is_nothing(world: World, fee: int, part: int, percent: int, kind: Any) -> None:
    about = ("new", 1, "own", 1, 0, "2026-06-01", "2026-06-30", fee, percent, part, 30)
    charged = Charge(1, 70, kind, *about, period_price(fee, part, 30, percent), 5)
    cancelled = charged._replace(kind="cancelled", position=71)
    # On one bill neither is there; on two, the second gives back what the first charged.
    assert world.bill(charges=[charged, *world.charges, cancelled]) == world.bill()
    bills = [rate(Account("o", "a", june(1)), JUNE, catalogue().view(), 1, charges=[c]) for c in (charged, cancelled)]
    assert sum(bill.total_fen for bill in bills) == 0


PERIODS = {
    "fee": FEN,
    "days": st.integers(1, 31).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))),
    "percent": PERCENT,
    "allowance": st.integers(0, 10**12),
}


@given(**PERIODS, used=st.integers(0, 10**12))
def test_a_credit_is_never_negative_nor_more_than_the_price(
    fee: int, days: tuple[int, int], percent: int, allowance: int, used: int
) -> None:
    left, whole = days
    price = period_price(fee, whole, whole, percent)
    unused = max(0, allowance - used)
    credit = credit_for(price, left, whole, unused, allowance)
    assert 0 <= credit <= price
    assert credit <= credit_for(price, left, whole, allowance, allowance) <= credit_for(price, whole, whole, 0, 0)
    assert period_price(fee, whole, whole, 100) <= price <= period_price(fee, whole, whole, 0) == fee


@given(**PERIODS)
def test_a_period_cut_and_begun_anew_costs_the_whole(
    fee: int, days: tuple[int, int], percent: int, allowance: int
) -> None:
    left, whole = days
    price = period_price(fee, whole, whole, percent)
    credit = credit_for(price, left, whole, allowance, allowance)
    rest = period_price(fee, left, whole, percent)
    lines = 3 if percent else 2  # that were rounded: the credit, the new fee and its discount
    paid = price - credit + rest
    assert abs(paid - price) <= lines
    halves = period_allowance(allowance, whole - left, whole) + period_allowance(allowance, left, whole)
    assert abs(halves - allowance) <= 1


EVENT = st.tuples(
    st.integers(1, 30), st.booleans(), st.integers(1, 5000), st.sampled_from(["kimi", "glm"]), st.integers(0, 4)
)


@FEW
@given(world=WORLDS, rows=st.lists(EVENT, max_size=25), seed=st.integers(0, 99))
def test_events_in_any_order_and_parts_give_the_same_bill(world: World, rows: list[Any], seed: int) -> None:
    # Each event stands at its position, some recorded weeks late; in which part a follower meets it is drawn.
    quota, parts = QuotaLog(), [[] for _ in range(5)]
    for day, late, tokens, model, _ in rows:
        about: dict[str, Any] = {"model": model, "recorded": july(20) if late else june(day)}
        if tokens % 5:
            quota.debit(june(day), Usage(input=tokens), overdrawn=tokens % 5 * tokens, **about)
        else:
            quota.reverse(june(day), credit=tokens, **about)
    events = heard(quota)
    for event, row in zip(random.Random(seed).sample(events, len(events)), rows, strict=True):
        parts[row[4]].append(event)
    for cut_off in (len(events), len(events) // 2):
        whole = world.bill(usage=summed([[e for e in events if e.position <= cut_off]], cut_off))
        known = [[e for e in part if e.position <= cut_off] for part in parts]
        assert sha256_of(world.bill(usage=summed(known, cut_off))) == sha256_of(whole)


def test_an_account_with_nothing_has_an_empty_bill_every_month() -> None:
    account = Account("sh-telecom", "a1", june(1))
    for period in (JUNE, JULY):
        made = rate(account, period, catalogue().view(), 1)
        assert (made.lines, made.total_fen, made.vat_fen) == ((), 0, 0)
