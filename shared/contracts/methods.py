"""What an RPC method takes, gives and refuses: each room lists its methods in `schemas.py`.

The reference documentation is written from these lists, and tests hold the service classes and their
answers to them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import marshmallow as ma
import msgspec

from shared.contracts.base import Answer
from shared.contracts.schema import field_of
from shared.errors import TokengridError


class Method(NamedTuple):
    """One RPC method. `takes`: the struct of its keyword arguments; `gives`: the answer, in a sentence.

    `answer`: the answer's struct (or, for a bare number, its annotated type); with `many`, the answer is a list
    of such. With `receipt`, the answer has the fields of the event `answer` and beside them those of `receipt`.
    """

    name: str
    takes: type[msgspec.Struct] | None
    gives: str
    answer: Any
    refusals: tuple[type[TokengridError], ...] = ()
    many: bool = False
    receipt: type[Answer] | None = None

    def answer_field(self) -> ma.fields.Field[Any]:
        """Loads a whole answer, as decoded from JSON. It raises marshmallow's ValidationError for one that is not
        as published: a field is missing, wrong or unknown."""
        one = self.answer if self.receipt is None else receipt_of(self.answer, self.receipt)
        return ma.fields.List(field_of(one)) if self.many else field_of(one)


@functools.cache
def receipt_of(event: type[msgspec.Struct], receipt: type[Answer]) -> type[msgspec.Struct]:
    """The struct with the fields of both, which knows no others."""
    fields = [
        (f.name, f.type) if f.required else (f.name, f.type, f.default)
        for struct in (event, receipt)
        for f in msgspec.structs.fields(struct)
    ]
    # By name: a field that both have is described by the receipt.
    own = {f[0]: f for f in fields}
    return msgspec.defstruct(
        f"{event.__name__}{receipt.__name__}", list(own.values()), bases=(Answer,), frozen=True, kw_only=True
    )
