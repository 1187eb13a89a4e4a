"""What a single value of a FOCUS dataset may look like: a number, an instant, a currency, an allowed value.

It must not know of other columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime

from services.billing.focus.columns import ALLOWED, CURRENCIES, Column, Format

# More digits are no cost on earth; an exponent would be expanded, and Python reads no integer of more than 4,300.
NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE]-?[0-9]{1,3})?\Z")
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z\Z")
UNIT = re.compile(r"([1-9][0-9]* )?[A-Z][A-Za-z]*( [A-Za-z]+)*(-[A-Z][A-Za-z]*)?(/([1-9][0-9]* )?[A-Z][A-Za-z]*)?\Z")
PLACEHOLDERS = {"null", "none", "nan", "n/a", "not applicable", "-"}
PRICE_PROPERTIES = {
    "CoreCount",
    "DiskMaxIops",
    "DiskSpace",
    "DiskType",
    "GpuCount",
    "InstanceType",
    "InstanceSeries",
    "MemorySize",
    "NetworkMaxIops",
    "NetworkMaxThroughput",
    "OperatingSystem",
    "Redundancy",
    "StorageClass",
}


def complaint(column: Column, value: str) -> tuple[str, str] | None:
    """The rule that a value breaks and how, or None. An empty value is null."""
    if not value:
        return None if column.nullable else ("NullHandling", "must not be null")
    if not value.strip() or value.casefold() in PLACEHOLDERS:
        return "NullHandling", f"{value!r}: a placeholder; null is an empty field"
    said = _FORMATS[column.format](column, value)
    return (_RULES[column.format], f"{_short(value)}: {said}") if said else None


def _number(_column: Column, value: str) -> str:
    return "" if NUMBER.match(value) else "not a number such as -12.5 or 1.2E-3"


def _instant(_column: Column, value: str) -> str:
    if INSTANT.match(value):
        try:
            datetime.fromisoformat(value[:19])
        except ValueError:
            return "no such day or time"
        return ""
    return "not an instant in UTC such as 2026-06-30T16:00:00Z"


def _currency(column: Column, value: str) -> str:
    # What prices are in may be a virtual currency, whose name is free.
    return "" if column.name == "PricingCurrency" or value in CURRENCIES else "no national currency of ISO 4217"


def _unit(_column: Column, value: str) -> str:
    return "" if UNIT.match(value) else "not a unit such as GB-Hours or 1000 Tokens"


def _allowed(column: Column, value: str) -> str:
    return "" if value in ALLOWED[column.name] else "not an allowed value"


def _key_value(column: Column, value: str) -> str:
    try:
        pairs = json.loads(value, object_pairs_hook=list)
    except ValueError:
        return "not JSON"
    except RecursionError:
        return "a value is an object or an array"
    if not value.startswith("{"):
        return "not an object"
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        return "a key twice"
    if any(isinstance(held, list) for _, held in pairs):
        return "a value is an object or an array"
    foreign = [key for key in keys if not key.startswith("x_") and key not in PRICE_PROPERTIES]
    if column.name == "SkuPriceDetails" and foreign:
        return f"{foreign[0]!r} is no property that the specification defines, and does not begin with x_"
    return ""


def _text(_column: Column, _value: str) -> str:
    return ""


def _short(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:59] + "…")


_FORMATS: dict[Format, Callable[[Column, str], str]] = {
    Format.TEXT: _text,
    Format.UNIT: _unit,
    Format.CURRENCY: _currency,
    Format.ALLOWED: _allowed,
    Format.INSTANT: _instant,
    Format.NUMBER: _number,
    Format.KEY_VALUE: _key_value,
}
_RULES: dict[Format, str] = {
    Format.TEXT: "StringHandling",
    Format.UNIT: "UnitFormat",
    Format.CURRENCY: "CurrencyFormat",
    Format.ALLOWED: "AllowedValues",
    Format.INSTANT: "DateTimeFormat",
    Format.NUMBER: "NumericFormat",
    Format.KEY_VALUE: "KeyValueFormat",
}
