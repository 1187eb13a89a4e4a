"""What the pages of a report are called, and how one links to another. Pure.

Names are made of numbers that the report counts itself: nothing of a subscriber, a model or a log is in a path.
"""

from __future__ import annotations

from posixpath import dirname, relpath

INDEX = "index.html"
BILLS_A_PAGE = 200  # of a list: small enough for a telephone
DEBITS_A_PAGE = 100  # each with its proof: about 4 kB


def listing(number: int) -> str:
    """The `number`-th page of the list of bills, from 1."""
    return f"bills/{number:04d}.html"


def bill(serial: int) -> str:
    """The page of the bill that is `serial`-th in the report, from 1; beside it no more than a list's page has."""
    return f"bills/{listing_of(serial):04d}/{serial:06d}.html"


def debits(serial: int, number: int) -> str:
    """The `number`-th page of a bill's debits, from 1."""
    return f"bills/{listing_of(serial):04d}/{serial:06d}-{number:04d}.html"


def statement(number: int) -> str:
    """The page of the `number`-th statement between operators, from 1."""
    return f"settlement/{number:04d}.html"


def listing_of(serial: int) -> int:
    """The number of the page that lists a bill."""
    return (serial - 1) // BILLS_A_PAGE + 1


def anchor(log: str, position: int) -> str:
    """Of an event on its page."""
    return f"{log}-{position}"


def between(here: str, there: str) -> str:
    """The way from one page to another, or to a place on it."""
    path, hash_, place = there.partition("#")
    return ("" if hash_ and path == here else relpath(path, dirname(here) or ".")) + hash_ + place
