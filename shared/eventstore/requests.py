"""Requests as they come over the wire, read at once into typed commands.

Nearly all requests are good, so the whole body is decoded in one go by a decoder made for its method; only a body
that is refused is taken apart, to say what is wrong with which part. It knows nothing of what commands do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union

import msgspec

from shared.contracts.base import Command
from shared.contracts.schema import refuse_ends_of_time
from shared.errors import MalformedCommand, TokengridError

C = TypeVar("C", bound=Command)
T = TypeVar("T")

EXECUTE = "execute"  # the method that takes a batch


class Request(NamedTuple):
    """A request as it came: the RPC method's name, the whole JSON body `{"args": [], "kwargs": {…}}`, its trace."""

    method: str
    body: bytes
    trace: str | None = None


class _Body(msgspec.Struct, Generic[T], forbid_unknown_fields=True, gc=False):
    kwargs: T
    args: Annotated[list[Any], msgspec.Meta(max_length=0)]


class _Commands(msgspec.Struct, Generic[T], forbid_unknown_fields=True, gc=False):
    commands: list[T]


class Bodies(Generic[C]):
    """Decoders for the requests of one service, whose commands are tagged with the names of their methods."""

    def __init__(self, commands: Mapping[str, type[C]]) -> None:
        self._one = {name: msgspec.json.Decoder(_Body[struct]) for name, struct in commands.items()}  # type: ignore[valid-type]
        self._many = msgspec.json.Decoder(_Body[_Commands[Union[tuple(commands.values())]]])  # type: ignore[misc] # noqa: UP007

    def read(self, request: Request) -> list[C] | None:
        """The commands of a good request; None for one in which something is to be complained about."""
        try:
            if request.method == EXECUTE:
                commands: list[C] = self._many.decode(request.body).kwargs.commands
            else:
                commands = [self._one[request.method].decode(request.body).kwargs]
            for command in commands:
                refuse_ends_of_time(command)
        except (msgspec.MsgspecError, LookupError, RecursionError, UnicodeError, TokengridError):
            return None
        return commands


def fields_in(request: Request) -> dict[str, Any]:
    """The keyword arguments in a request's body, untyped. Raises MalformedCommand."""
    try:
        body = msgspec.json.decode(request.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("kwargs"), dict):
        raise MalformedCommand("no readable JSON with kwargs", {"fields": {"_": ["no readable JSON with kwargs"]}})
    if body.get("args"):
        raise MalformedCommand("only keyword arguments", {"fields": {"_": ["takes keyword arguments only"]}})
    kwargs: dict[str, Any] = body["kwargs"]
    return kwargs
