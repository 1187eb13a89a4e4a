"""The envelope of events and commands, and the field types they are made of.

Each type is defined once, as a msgspec struct: it is typed for the checker, decodes fast, and the
marshmallow schema, the reference documentation and the JSON in the log all follow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import Meta

from shared.units import AMOUNT_MAX, TOKENS_MAX

Slug = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z",
        description="lower-case name: letters, digits, `.`, `_`, `-`; at most 64",
    ),
]
AccountId = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}\Z",
        description="subscriber's account at its operator; at most 64 characters",
    ),
]
RequestId = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x7e]{1,128}\Z",
        description="chosen by the caller, unique per account; printable, no spaces; UUIDv7 recommended",
    ),
]
Reference = Annotated[
    str, Meta(pattern=r"^[\x21-\x7e]{0,200}\Z", description="name of another record; empty where there is none")
]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[\x21-\x7e]{1,200}\Z",
        description="name of a grant, reservation or debit: the request_id that made it",
    ),
]
# A surrogate is no character and cannot be encoded; NUL cannot be in PostgreSQL's text, nor in its JSON.
Text = Annotated[
    str,
    Meta(
        max_length=500,
        pattern=r"^[^\x00\ud800-\udfff]*\Z",
        description="text for people; any characters but NUL",
    ),
]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="millipoints")]
AmountOrZero = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="millipoints")]
Fen = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="fen (1/100 yuan)")]
SignedFen = Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX, description="fen (1/100 yuan)")]
Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX, description="tokens")]
Count = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="count")]
Rate = Annotated[int, Meta(ge=0, le=1_000_000_000, description="points per 1,000 tokens")]
Percent = Annotated[int, Meta(ge=0, le=100, description="per cent")]
Period = Annotated[
    str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z", description="billing month, `YYYY-MM`, Shanghai's calendar")
]
Instant = Annotated[datetime, Meta(tz=True, description="instant with time zone")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="SHA-256, hex")]
# Sums over many records, in answers only: each part is bounded, the sum is not.
AmountSum = Annotated[int, Meta(description="millipoints")]
FenSum = Annotated[int, Meta(description="fen (1/100 yuan)")]

TOKEN_CLASSES = ("input", "cached_input", "cache_write", "output")


# gc=False: these are trees of plain values, never cycles, and a collector that walks them all at each batch costs a
# third of a debit.
class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A piece of an event or command."""


class Usage(Part, frozen=True, kw_only=True):
    """Tokens by class. The classes do not overlap."""

    input: Tokens = 0
    cached_input: Tokens = 0
    cache_write: Tokens = 0
    output: Tokens = 0

    @property
    def given(self) -> int:
        """Tokens of input, however they were come by: a rate card's tiers go by them."""
        return self.input + self.cached_input + self.cache_write

    @property
    def total(self) -> int:
        return self.given + self.output


class Rates(Part, frozen=True, kw_only=True):
    """Points per 1,000 tokens, by token class."""

    input: Rate = 0
    cached_input: Rate = 0
    cache_write: Rate = 0
    output: Rate = 0

    def price(self, usage: Usage) -> int:
        """Millipoints for `usage`: tokens x rate, exactly."""
        return (
            usage.input * self.input
            + usage.cached_input * self.cached_input
            + usage.cache_write * self.cache_write
            + usage.output * self.output
        )


class Scope(Part, frozen=True, kw_only=True):
    """Which models a grant may pay for; both lists empty: all of them."""

    models: tuple[Slug, ...] = ()
    families: tuple[Slug, ...] = ()

    def covers(self, model: str, family: str) -> bool:
        models, families = self.models, self.families
        return not (models or families) or model in models or family in families


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What somebody asks for; NAME is its RPC method."""

    NAME: ClassVar[str] = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an RPC method gives, or a piece of it."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What happened. Never changed; stored as compact JSON under an explicit topic."""

    TOPIC: ClassVar[str] = ""

    at: Instant
    recorded_at: Instant


class Requested(Event, frozen=True, kw_only=True):
    """An event that answers a command: which request, and the fingerprint of what it asked for."""

    request_id: Name
    fingerprint: str = ""


E = TypeVar("E", bound=type[Event])
C = TypeVar("C", bound=type[Command])

EVENTS: dict[str, type[Event]] = {}
COMMANDS: dict[str, dict[str, type[Command]]] = {}
Upcast = Callable[[dict[str, Any]], dict[str, Any]]
_UPCASTS: dict[str, tuple[str, Upcast]] = {}
_encode = msgspec.json.Encoder().encode
_decoders: dict[str, msgspec.json.Decoder[Any]] = {}


def event(service: str, version: int = 1) -> Callable[[E], E]:
    """Gives an event class its topic, `service.ClassName:version`, and makes it decodable."""

    def register(cls: E) -> E:
        cls.TOPIC = f"{service}.{cls.__name__}:{version}"
        assert cls.TOPIC not in EVENTS, cls.TOPIC
        EVENTS[cls.TOPIC] = cls
        return cls

    return register


def command(service: str, name: str) -> Callable[[C], C]:
    """Binds a command class to the RPC method `service.name`."""

    def register(cls: C) -> C:
        cls.NAME = name
        assert name not in COMMANDS.setdefault(service, {}), name
        COMMANDS[service][name] = cls
        return cls

    return register


def upcast(old_topic: str, new_topic: str, function: Upcast) -> None:
    """Old events stay as they are; `function` turns an old state into the next version's when read."""
    _UPCASTS[old_topic] = (new_topic, function)


def encode_event(e: Event) -> bytes:
    """The bytes that are stored, hashed and published: compact JSON."""
    return _encode(e)


def decode_event(topic: str, state: str | bytes) -> Event:
    """The event behind a stored record, upcast if it is of an older version.

    Raises KeyError for a topic nobody registered and msgspec.ValidationError for a damaged state.
    """
    decoder = _decoders.get(topic)
    if decoder is None:
        if topic in _UPCASTS:
            fields = msgspec.json.decode(state)
            while topic in _UPCASTS:
                topic, function = _UPCASTS[topic]
                fields = function(fields)
            return msgspec.convert(fields, EVENTS[topic])
        decoder = _decoders[topic] = msgspec.json.Decoder(EVENTS[topic])
    decoded: Event = decoder.decode(state)
    return decoded
