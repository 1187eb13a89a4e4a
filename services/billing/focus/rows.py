"""Issued bills and credit notes as rows of FOCUS 1.2. Pure; the choices behind it are in docs/focus.md.

Every decimal is written from an integer. It must not know where bills are kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from fractions import Fraction

from services.billing.focus.columns import COLUMNS
from services.billing.focus.lines import Shown, shown
from services.billing.focus.sharing import costs, with_points
from shared.clock import period_bounds, period_of
from shared.contracts.billing import Bill, BillLine, CreditNoteIssued
from shared.units import FEN_PER_YUAN, MILLIPOINTS_PER_POINT, POINTS_PER_YUAN, largest_remainder, round_half_away, yuan

BILLING_CURRENCY = "CNY"
POINTS = "Points"  # the virtual currency that models are priced in, and its unit
TOKENS = "Tokens"
PREPAID = "Prepaid points"
PRICE_PLACES = 12  # yuan per point: exact for every price that is a round number of points
FEN_PLACES, POINT_PLACES = 2, 3

Row = dict[str, str]

_NOT_OURS = {
    "AvailabilityZone",
    "BillingAccountType",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "RegionId",
    "RegionName",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
}
CUSTOM = ("x_BillLine", "x_LineKind", "x_VatPercent")
HEADER = (*(name for name in COLUMNS if name not in _NOT_OURS), *CUSTOM)


def focus_csv(rows: Iterable[Row]) -> str:
    """The file's text: CSV (RFC 4180, UTF-8), a header and one line a row; what is null is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def bill_rows(bill: Bill, provider: str) -> list[Row]:
    """A bill's rows in the order of its lines, and one for points it sold that were not used. `provider`: the
    operator's name. The sum of BilledCost, and that of EffectiveCost, is the bill's total.

    Raises ValueError for a line of a kind that has no mapping.
    """
    kinds = shown(bill.lines)
    cost = costs(bill.lines, kinds)
    base = _base(bill.operator, bill.account, bill.number, provider, bill.period) | _charged_in(bill.period)
    base["x_VatPercent"] = str(bill.vat_percent)
    found: list[Row] = []
    for place, (line, kind) in enumerate(zip(bill.lines, kinds, strict=True)):
        common = base | _line(bill, place, line, kind)
        if kind.category == "Usage":
            found += _usage(common, bill, line, cost.with_points[place], cost.to_pay[place])
        elif kind.category == "Purchase":
            found.append(common | _purchase(bill, line, kind))
        else:
            found.append(common | _money(line.fen, line.fen if kind.listed else 0, line.fen, cost.own[place]))
    if cost.unused or cost.unused_fen:
        found.append(base | _unused(bill, cost.unused, cost.unused_fen))
    return found


def credit_note_row(note: CreditNoteIssued, operator: str, account: str, period: str, provider: str) -> Row:
    """A credit note as a correction of `period`, its bill's, in the period in which it was issued; an invoice of its
    own, as it has a number of its own."""
    return (
        _base(operator, account, note.number, provider, period_of(note.at))
        | _charged_in(period)
        | {
            "ChargeCategory": "Credit",
            "ChargeClass": "Correction",
            "ChargeDescription": f"Credit note on bill {note.bill_number}"
            + (f": {note.reason}" if note.reason else ""),
            "ChargeFrequency": "One-Time",
            "x_LineKind": "credit_note",
        }
        | _money(-note.fen, -note.fen, -note.fen, -note.fen)
    )


def _base(operator: str, account: str, invoice: str, provider: str, billing_period: str) -> Row:
    start, end = period_bounds(billing_period)
    return {
        "BillingAccountId": f"{operator}/{account}",
        "BillingCurrency": BILLING_CURRENCY,
        "BillingPeriodEnd": _instant(end),
        "BillingPeriodStart": _instant(start),
        "InvoiceId": invoice,
        "InvoiceIssuerName": provider,
        "PricingCurrency": BILLING_CURRENCY,
        "ProviderName": provider,
        "PublisherName": provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "AI tokens",
        "ServiceSubcategory": "Generative AI",
    }


def _line(bill: Bill, place: int, line: BillLine, kind: Shown) -> Row:
    row = {
        "ChargeCategory": kind.category,
        "ChargeDescription": line.text,
        "ChargeFrequency": kind.frequency,
        "x_BillLine": str(place + 1),
        "x_LineKind": line.kind,
    }
    if kind.correction:
        # A bill says that it happened before, not in which month: nearly all that comes late is of the last one.
        row |= {"ChargeClass": "Correction", **_charged_in(_month_before(bill.period))}
    return row


# --- what a row costs ------------------------------------------------------------------------
def _money(billed: int, listed: int, contracted: int, effective: int) -> Row:
    """A charge that has no unit price; in fen."""
    return {
        "BilledCost": yuan(billed),
        "ContractedCost": yuan(contracted),
        "EffectiveCost": yuan(effective),
        "ListCost": yuan(listed),
        "PricingCurrencyEffectiveCost": yuan(effective),
    }


def _purchase(bill: Bill, line: BillLine, kind: Shown) -> Row:
    """One of an offer at its price, or one given back; its points are what is committed, its cost is borne by usage."""
    sku = f"{bill.operator}/plans/{line.plan}" if line.plan else _points_sku(bill)
    price, listed = yuan(abs(line.fen)), yuan(abs(line.fen) if kind.listed else 0)
    return {
        **_money(line.fen, line.fen if kind.listed else 0, line.fen, 0),
        **_committed(bill, line.amount),
        "ContractedUnitPrice": price,
        "ListUnitPrice": listed,
        "PricingCategory": "Standard",
        "PricingCurrencyContractedUnitPrice": price,
        "PricingCurrencyListUnitPrice": listed,
        "PricingQuantity": "-1.000" if line.fen < 0 else "1.000",
        "PricingUnit": "Units",
        "SkuId": sku,
        "SkuMeter": PREPAID,
        "SkuPriceDetails": _details(Plan=line.plan) if line.plan else "",
        "SkuPriceId": f"{sku}@{line.plan_version}" if line.plan_version else sku,
    }


def _usage(common: Row, bill: Bill, line: BillLine, with_points_fen: int, to_pay_fen: int) -> Iterator[Row]:
    """A usage line: the part that was paid with points, and the part that is to pay; tokens by points."""
    prepaid = with_points(line)
    price = _price(line) or next(filter(None, map(_price, bill.lines)), None) or Fraction(1, POINTS_PER_YUAN)
    weights = [max(0, prepaid), max(0, line.charged)]
    tokens = largest_remainder(line.usage.total, weights if any(weights) else [1, 0])
    sku = line.rate_card.rpartition("@")[0] or f"{bill.operator}/{line.model}"  # what the rate card is a version of
    model = {"ResourceId": f"{bill.operator}/{line.model}", "ResourceType": "Model"}
    common = common | {
        "ConsumedUnit": TOKENS,
        **model,
        "SkuId": sku,
        "SkuMeter": TOKENS,
        "SkuPriceDetails": _details(Model=line.model),
        "SkuPriceId": line.rate_card or sku,
    }
    if prepaid or not (line.charged or line.fen):
        committed = _committed(bill, prepaid)
        if "ChargeClass" in common:  # how much of a commitment a correction took is not said: the rules differ over it
            del committed["CommitmentDiscountQuantity"], committed["CommitmentDiscountUnit"]
        yield {
            **common,
            **_priced(prepaid, price, 0, with_points_fen),
            **committed,
            "ChargeDescription": f"{line.text}, paid with points",
            "CommitmentDiscountStatus": "Used",
            "ConsumedQuantity": str(tokens[0]),
            "PricingCategory": "Committed",
            **model,
        }
    if line.charged or line.fen:
        yield {
            **common,
            **_priced(line.charged, price, line.fen, to_pay_fen),
            "ChargeDescription": f"{line.text}, as you go",
            "ConsumedQuantity": str(tokens[1]),
            "PricingCategory": "Standard",
        }


def _unused(bill: Bill, amount: int, fen: int) -> Row:
    """What the bill sold and nobody used: nothing is priced, and its part of the cost stands here."""
    sku = _points_sku(bill)
    return {
        **_priced(0, Fraction(1, POINTS_PER_YUAN), 0, fen),
        **_committed(bill, amount),
        "ChargeCategory": "Usage",
        "ChargeDescription": "Points not used in the period",
        "ChargeFrequency": "Usage-Based",
        "CommitmentDiscountStatus": "Unused",
        "PricingCategory": "Committed",
        "PricingCurrencyEffectiveCost": decimal(amount, POINT_PLACES),
        "SkuId": sku,
        "SkuMeter": PREPAID,
        "SkuPriceId": sku,
        "x_LineKind": "unused",
    }


def _priced(amount: int, price: Fraction, billed: int, effective: int) -> Row:
    """Millipoints at a price in yuan a point. Costs at unit prices are their exact product, not rounded to fen."""
    contracted = round_half_away(price * 10**PRICE_PLACES)
    listed = round_half_away(Fraction(10**PRICE_PLACES, POINTS_PER_YUAN))
    return {
        "BilledCost": yuan(billed),
        "ContractedCost": decimal(amount * contracted, PRICE_PLACES + POINT_PLACES, FEN_PLACES),
        "ContractedUnitPrice": decimal(contracted, PRICE_PLACES, FEN_PLACES),
        "EffectiveCost": yuan(effective),
        "ListCost": decimal(amount * listed, PRICE_PLACES + POINT_PLACES, FEN_PLACES),
        "ListUnitPrice": decimal(listed, PRICE_PLACES, FEN_PLACES),
        "PricingCurrency": POINTS,
        "PricingCurrencyContractedUnitPrice": "1.000",
        "PricingCurrencyEffectiveCost": decimal(amount, POINT_PLACES),
        "PricingCurrencyListUnitPrice": "1.000",
        "PricingQuantity": decimal(amount, POINT_PLACES),
        "PricingUnit": POINTS,
    }


def _committed(bill: Bill, amount: int) -> Row:
    """The account's prepaid points, all in one pot: which purchase a call was paid from is not on a bill."""
    pot = f"{bill.operator}/{bill.account}/{POINTS.lower()}"
    return {
        "CommitmentDiscountCategory": "Spend",
        "CommitmentDiscountId": pot,
        "CommitmentDiscountName": PREPAID,
        "CommitmentDiscountQuantity": decimal(amount, POINT_PLACES),
        "CommitmentDiscountType": PREPAID,
        "CommitmentDiscountUnit": POINTS,
        "ResourceId": pot,
        "ResourceType": PREPAID,
    }


def _points_sku(bill: Bill) -> str:
    return f"{bill.operator}/{POINTS.lower()}"


def _details(**properties: str) -> str:
    """Properties of a price that the specification has no name for."""
    return json.dumps({f"x_{name}": value for name, value in properties.items()}, ensure_ascii=False)


def _price(line: BillLine) -> Fraction | None:
    """Yuan per point of what was to pay, as the line itself has it: exact, by what rounding took."""
    exact_fen = line.fen + Fraction(line.residual)
    if line.charged <= 0 or exact_fen <= 0:
        return None
    return exact_fen * MILLIPOINTS_PER_POINT / (FEN_PER_YUAN * line.charged)


# --- how values are written ------------------------------------------------------------------
def decimal(value: int, places: int, keep: int | None = None) -> str:
    """An integer of 10^-places as a decimal; with `keep`, zeros beyond so many places are left out."""
    whole, rest = divmod(abs(value), 10**places)
    digits = f"{rest:0{places}d}"
    if keep is not None:
        digits = digits[:keep] + digits[keep:].rstrip("0")
    return f"{'-' if value < 0 else ''}{whole}.{digits}"


def _charged_in(period: str) -> Row:
    start, end = period_bounds(period)
    return {"ChargePeriodEnd": _instant(end), "ChargePeriodStart": _instant(start)}


def _month_before(period: str) -> str:
    year, month = map(int, period.split("-"))
    return f"{year - (month == 1):04d}-{(month - 2) % 12 + 1:02d}"


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
