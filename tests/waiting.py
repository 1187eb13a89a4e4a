"""Waiting for a condition instead of for a time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import eventlet


def eventually(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Returns when `condition()` is true. Fails after `within_s` seconds."""
    until = monotonic() + within_s
    while not condition():
        assert monotonic() < until, f"not within {within_s:g} s"
        eventlet.sleep(0.005)
