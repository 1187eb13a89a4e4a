"""What the answers of several rooms are made of, and the methods that every service has.

It must not know what any room's events mean.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from shared.contracts.base import AccountId, Answer, Command, Instant, Name, RequestId, Slug, Text
from shared.contracts.methods import Method
from shared.errors import MalformedCommand, TokengridError, Unavailable

POSITION_MAX = 2**63 - 1  # what a database's integer holds

Position = Annotated[int, Meta(ge=0, le=POSITION_MAX, description="position in a log; 0 before the first event")]
Version = Annotated[int, Meta(ge=1, le=POSITION_MAX, description="version of its stream")]
Kind = Annotated[str, Meta(pattern=r"^[A-Z][A-Za-z]*\Z", description="name of the event, such as `PointsGranted`")]
Shard = Annotated[
    int, Meta(ge=0, le=1023, description="shard, from 0; of all services only quota may have others than 0")
]
PageLimit = Annotated[int, Meta(ge=1, description="count; bounded by the settings' page_max")]


# --- commands --------------------------------------------------------------------------------
class Receipt(Answer, frozen=True, kw_only=True):
    """A receipt: the event that answers the request, where it stands, and whether it was there before."""

    kind: Kind
    position: Position
    version: Version
    replayed: bool


class AccountReceipt(Receipt, frozen=True, kw_only=True):
    """A receipt about an account."""

    operator: Slug
    account: AccountId


class CallReceipt(Receipt, frozen=True, kw_only=True):
    """A receipt about a call."""

    operator: Slug
    call: RequestId


class Refusal(Answer, frozen=True, kw_only=True):
    """Why a command of a batch was refused. `code` is the error's name; `details` are for programs."""

    code: Kind
    message: str
    details: dict[str, Any]


class Outcome(Answer, frozen=True, kw_only=True):
    """What became of one command of a batch: exactly one of `ok`, the answer of its own method, and `error`."""

    ok: dict[str, Any] | None = None
    error: Refusal | None = None

    def __post_init__(self) -> None:
        if (self.ok is None) == (self.error is None):
            raise ValueError("has exactly one of ok and error")


def execute(*refusals: type[TokengridError]) -> Method:
    """The method that takes a batch, the same in every room that has one."""
    return Method(
        "execute",
        None,
        "`commands`: a list of objects, at most the settings' batch_max, each with its method's name under `command` "
        'and that method\'s fields. One transaction. A list in the same order: `{"ok": answer}` or '
        '`{"error": {"code", "message", "details"}}`; a refused command does not touch the others.',
        Outcome,
        refusals,
        many=True,
    )


# --- questions -------------------------------------------------------------------------------
class RecordedEvent(Answer, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An event as a question about the past gets it: these fields, and those of the event that `kind` names."""

    position: Position
    version: Version
    kind: Kind
    at: Instant
    recorded_at: Instant
    request_id: Name


# --- every service's log ---------------------------------------------------------------------
class Events(Command, frozen=True, kw_only=True):
    """The events of a shard's log behind position `after`, at most `limit`. One that is no shard is refused."""

    NAME = "events"

    after: Position = 0
    limit: PageLimit = 1000
    shard: Shard = 0


class StreamOf(Command, frozen=True, kw_only=True):
    """The events of one stream of a shard's log with versions above `after`, at most `limit`."""

    NAME = "stream"

    stream: Text
    after: Position = 0
    limit: PageLimit = 1000
    shard: Shard = 0


class HeadOf(Command, frozen=True, kw_only=True):
    """Whose head: that of this shard's log. One that is no shard is refused."""

    NAME = "head"

    shard: Shard = 0


class StoredEvent(Answer, frozen=True, kw_only=True):
    """An event as stored. `state` is the exact JSON text; `trace` the traceparent of what made it."""

    position: Position
    stream: str
    version: Version
    topic: str
    state: str
    trace: str | None


class LogPage(Answer, frozen=True, kw_only=True):
    """A section of the log called `log`: the service's name, or `quota-3`. `head` is never behind `events`."""

    log: Slug
    head: Position
    events: tuple[StoredEvent, ...]


class StreamPage(Answer, frozen=True, kw_only=True):
    """A section of a stream of the log called `log`; empty for a stream that there is not."""

    log: Slug
    events: tuple[StoredEvent, ...]


class Pong(Answer, frozen=True, kw_only=True):
    """That the service answers."""

    service: Slug


LOG_METHODS: tuple[Method, ...] = (
    Method("events", Events, "A page of the log.", LogPage, (MalformedCommand, Unavailable)),
    Method("stream", StreamOf, "A page of the stream.", StreamPage, (MalformedCommand, Unavailable)),
    Method(
        "head",
        HeadOf,
        "The position of the log's last event; 0 while it is empty.",
        Position,
        (MalformedCommand, Unavailable),
    ),
    Method("ping", None, "The service's name.", Pong),
)
