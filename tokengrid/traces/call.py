"""One call of a trace, and what can be wrong with a line of one. It must not know where lines come from."""

from __future__ import annotations

from typing import NamedTuple

from shared.units import TOKENS_MAX

# A month of milliseconds many times over: what is above is no offset but a mistake.
OFFSET_MS_MAX = 366 * 86_400_000


class Call(NamedTuple):
    """A call: milliseconds since the trace's first one, and its tokens by class (the classes do not overlap).

    `kind` is `conversation` or `coding`, or empty where the trace does not say.
    """

    at_offset_ms: int
    input: int
    cached_input: int
    output: int
    kind: str = ""

    @property
    def tokens(self) -> int:
        return self.input + self.cached_input + self.output


class BrokenLine(NamedTuple):
    """A line that was left out: its number, from 1, and why."""

    line: int
    reason: str


class UnreadableTrace(Exception):
    """There is no such file, or it is no trace: one sentence."""


class BadLine(ValueError):
    """This line is no call: the reason."""


def checked(at_offset_ms: int, given: int, cached: int, output: int, kind: str) -> Call:
    """The call, if its figures can be those of a call; `given` is all input, `cached` the part of it that was cached.

    Raises BadLine.
    """
    if not 0 <= at_offset_ms <= OFFSET_MS_MAX:
        raise BadLine("its time is before the first call's or more than a year behind it")
    if given < 0 or output < 0 or max(given, output) > TOKENS_MAX:
        raise BadLine(f"its tokens are not from 0 to {TOKENS_MAX}")
    if given + output == 0:
        raise BadLine("it has no tokens")
    return Call(at_offset_ms, given - cached, cached, output, kind)
