"""Reads the golden bills of `tests/golden/bills`: a case's YAML into what rating takes, its Markdown into sums.

Calls are priced by the sample's rate cards and go through metering, as they do in the house. The arithmetic of the
worked calculations is done here, exactly, by nothing of the project's.
"""

from __future__ import annotations

import ast
import functools
import operator
import re
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import yaml

from services.billing.domain.metering import microseconds
from services.billing.domain.rating import Account, Charge, Granted, Running, Used, rate
from services.catalog.sample import sample_catalogue
from shared.catalogue.view import CatalogueView, applicable_rates
from shared.contracts import catalog as c
from shared.contracts.base import Usage
from shared.contracts.billing import Bill
from tests.unit.billing_world import BEFORE, QuotaLog, heard, summed

FOLDER = Path(__file__).parents[1] / "golden" / "bills"
POSITIONS = {"quota": 1000, "catalog": 100, "billing": 10}  # of all cases


class Holder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operator: str
    account: str
    opened: datetime
    plan: str = ""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`times` equal calls; of each, `unpaid` millipoints were on credit or overdrawn."""

    at: datetime
    model: str
    usage: Usage
    unpaid: int = 0
    times: int = 1


class Reversal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A debit given back: `to_grants` and `to_credit` millipoints."""

    at: datetime
    model: str
    to_grants: int = 0
    to_credit: int = 0


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bill's inputs. `plans` are made for the case, beside the sample's; `charges` and `grants` have `at` for
    `at_us`, and stand in the log in their order; `running` are plans' first versions."""

    number: str
    period: str
    account: Holder
    plans: tuple[c.Plan, ...] = ()
    charges: tuple[dict[str, Any], ...] = ()
    running: tuple[str, ...] = ()
    grants: tuple[dict[str, Any], ...] = ()
    calls: tuple[Call, ...] = ()
    reversals: tuple[Reversal, ...] = ()
    late: tuple[Call, ...] = ()
    credit_fen: int = 0


def cases() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@functools.cache
def case_of(name: str) -> Case:
    return msgspec.convert(yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8")), Case)


def charges_of(case: Case) -> list[Charge]:
    return [
        Charge(**{"phase": 0, "plan_version": 1, **_placed(fields, n)})
        for n, fields in enumerate(case.charges, start=1)
    ]


def grants_of(case: Case) -> list[Granted]:
    return [Granted(**_placed(fields, n)) for n, fields in enumerate(case.grants, start=1)]


def _placed(fields: dict[str, Any], position: int) -> dict[str, Any]:
    fields = dict(fields)
    return {"at_us": microseconds(fields.pop("at")), "position": position, **fields}


def used(case: Case, calls: tuple[Call, ...], reversals: tuple[Reversal, ...] = ()) -> list[Used]:
    """What calls come to, summed as billing sums them."""
    quota = QuotaLog(case.account.operator, case.account.account)
    view = view_of(case.plans)
    for call in calls:
        reference, card = view.rate_card(quota.operator, call.model, call.at)
        rates = applicable_rates(card, call.usage, call.at)
        for _ in range(call.times):
            quota.debit(call.at, call.usage, credit=call.unpaid, model=call.model, rates=rates, rate_card=reference)
    for back in reversals:
        reference, _ = view.rate_card(quota.operator, back.model, back.at)
        quota.reverse(back.at, grants=back.to_grants, credit=back.to_credit, model=back.model, rate_card=reference)
    return summed([heard(quota)], quota.head)


def bill_of(name: str) -> Bill:
    case = case_of(name)
    holder = case.account
    return rate(
        Account(holder.operator, holder.account, holder.opened, holder.plan),
        case.period,
        view_of(case.plans),
        POSITIONS["quota"],
        number=case.number,
        billing_position=POSITIONS["billing"],
        grants=grants_of(case),
        usage=used(case, case.calls, case.reversals),
        late=used(case, case.late),
        charges=charges_of(case),
        running=[Running(plan, 1) for plan in case.running],
        credit_fen=case.credit_fen,
    )


@functools.cache
def view_of(plans: tuple[c.Plan, ...] = ()) -> CatalogueView:
    """The sample's plans and rate cards and a case's own plans, first versions all of them."""
    view = CatalogueView()
    for kind, items in ((c.PlanPublished, (*sample().plans, *plans)), (c.RateCardPublished, sample().rate_cards)):
        for item in items:
            event = kind(  # type: ignore[call-arg]
                at=BEFORE, recorded_at=BEFORE, request_id="p", version=1, effective_from=BEFORE, item=item
            )
            view.apply(POSITIONS["catalog"], event)
    return view


@functools.cache
def sample() -> c.Catalogue:
    return sample_catalogue()


# --- the worked calculations -----------------------------------------------------------------
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculation(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text("utf-8")


def equations(text: str) -> list[list[str]]:
    """The sums of a calculation: each indented line behind its colon, taken apart at `=`."""
    found = [line.rpartition(":")[2] for line in text.splitlines() if line.startswith("    ")]
    return [line.split("=") for line in found if "=" in line]


def value(text: str) -> Fraction:
    """A sum of integers, exactly. Thousands have commas, times is ×, minus −, and a bracket is a bracket."""
    plain = text.replace(",", "").replace("×", "*").replace("−", "-").strip()
    return _value(ast.parse(plain, mode="eval").body)


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return Fraction(OPERATIONS[type(op)](_value(left), _value(right)))
    raise ValueError(ast.unparse(node))


def table(text: str) -> list[tuple[str, str, int, Fraction]]:
    """The lines of the bill as a calculation has them: kind, text, fen, residual."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| ([−\d,]+) \| ([−\d/]+) \|$", text, re.MULTILINE)
    return [(kind, said, int(value(fen)), value(rest)) for kind, said, fen, rest in rows]


def total(text: str) -> tuple[int, int]:
    """The total and the tax in it, in fen."""
    found = re.search(r"^Total ([−\d,]+) fen, of which VAT ([−\d,]+) fen\.$", text, re.MULTILINE)
    assert found, "no total"
    return int(value(found[1])), int(value(found[2]))
