"""Whether a value is of the kind that the published contract says, for what is used long after its
event was folded. Pure.

Raises TypeError or ValueError, before anything has changed: the event is then said to be not of its kind, and is in no
books.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from services.audit.replay.prices import Raw


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number:.60} is no whole number")


content_of = msgspec.json.Decoder(float_hook=_refuse).decode
"""What a state says. No contract has a fraction, and 1.0 would add up as if it were 1."""


def whole(value: Any) -> int:
    """A whole number; to Python, `True` is one as well."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.60} is no whole number")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def check_bill(bill: Raw) -> None:
    """Whose a bill is, and its cut-offs; number and figures are compared with what is computed, whatever they are."""
    for value in (*(bill[name] for name in ("operator", "account", "period")), bill.get("quota_log", "")):
        text(value)
    for value in (*(bill[name] for name in ("quota_position", "catalog_position")), bill.get("billing_position", 0)):
        whole(value)
    _check_lines(bill)


def check_statement(statement: Raw) -> None:
    """As `check_bill`."""
    for name in ("home", "serving", "period"):
        text(statement[name])
    for position in [statement["quota_position"], *(statement.get("quota_positions") or ())]:
        whole(position)
    _check_lines(statement)


def _check_lines(issued: Raw) -> None:
    for line in issued["lines"]:
        if not isinstance(line, dict) or not isinstance(line.get("usage", {}), dict):
            raise TypeError(f"{line!r:.60} is no line")
