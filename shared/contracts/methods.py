"""What an RPC method takes, gives and refuses: each room lists its methods in `schemas.py`.

The reference documentation is written from these lists, and a test holds the service classes to them.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shared.errors import TokengridError


class Method(NamedTuple):
    """One RPC method. `takes`: the struct of its keyword arguments; `gives`: the answer, in a sentence, and
    the struct or event it is made of where there is one."""

    name: str
    takes: type[msgspec.Struct] | None
    gives: str
    answer: type[msgspec.Struct] | None = None
    refusals: tuple[type[TokengridError], ...] = ()
