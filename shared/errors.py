"""The one catalogue of errors: stable codes, and what a client should do about each.

An error's code is its class name. It travels over RPC as `exc_type`, so a client that holds
nothing of ours still sees the code; `details` survive the trip with their types (integers stay
integers). The order of the classes in PRECEDENCE is the order in which a command is judged.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar


class TokengridError(Exception):
    """A refusal with a stable code. `message` is for people, `details` for programs."""

    advice: ClassVar[str] = "Do not retry unchanged."
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", details: dict[str, Any] | str | None = None) -> None:
        decoded = json.loads(details) if isinstance(details, str) else details
        self.message = message
        self.details: dict[str, Any] = dict(decoded or {})
        # Plain strings only: they are what a remote error carries across a broker unchanged.
        super().__init__(message, json.dumps(self.details, sort_keys=True, default=str))

    @property
    def code(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        return self.message or self.code

    def as_dict(self) -> dict[str, Any]:
        """`{"code", "message", "details"}`: the form inside the answer of a batch."""
        return {"code": self.code, "message": str(self), "details": self.details}


# --- judged before anything is looked up -----------------------------------------------------
class MalformedCommand(TokengridError):
    """A field is missing, unknown, of the wrong type or out of bounds. `details.fields` maps the
    path of every bad field to its complaints."""

    advice = "Correct the named fields; nothing was changed."


class NotAuthorised(TokengridError):
    """The caller may not act for this operator."""

    advice = "Use an operator you may act for."


# --- the account and its key -----------------------------------------------------------------
class UnknownAccount(TokengridError):
    """No such account at this operator."""

    advice = "Open the account first, or correct its name."


class AccountExists(TokengridError):
    """The account was opened before, by another request."""

    advice = "Use the existing account."


class IdempotencyConflict(TokengridError):
    """This request_id was used before, for another command."""

    advice = "Use a new request_id for a new command; repeat a command unchanged."


class AccountClosed(TokengridError):
    """The account is closed for good."""

    advice = "Open a new account."


class AccountSuspended(TokengridError):
    """The account is suspended; what was held can still be settled or released."""

    advice = "Resume the account, then retry with the same request_id."


# --- the catalogue ---------------------------------------------------------------------------
class UnknownModel(TokengridError):
    """The catalogue has no such model."""

    advice = "See the catalogue's models."


class UnknownOperator(TokengridError):
    """The catalogue has no such operator."""

    advice = "See the catalogue's operators."


class UnknownPlan(TokengridError):
    """The catalogue has no such plan at this operator."""

    advice = "See the catalogue's plans."


class UnknownDeployment(TokengridError):
    """The catalogue has no such deployment."""

    advice = "See the catalogue's deployments."


class NoRateInForce(TokengridError):
    """No rate card covers this model at this operator at this time."""

    advice = "Publish a rate card, or call another model."


class CatalogueConflict(TokengridError):
    """A publication would change the past, overlap itself or refer to nothing.
    `details.reasons` lists every reason."""

    advice = "Correct every reason given; nothing was published."


# --- things inside an account ----------------------------------------------------------------
class UnknownReservation(TokengridError):
    """The account has no such reservation."""

    advice = "Reserve first, or correct the reservation's name."


class ReservationEnded(TokengridError):
    """The reservation was settled or released before."""

    advice = "Do not settle twice; use `debit` for further usage."


class UnknownDebit(TokengridError):
    """The account has no such debit."""

    advice = "Correct the debit's name."


class UnknownGrant(TokengridError):
    """The account has no such grant."""

    advice = "Correct the grant's name."


class ReversalExceedsDebit(TokengridError):
    """All reversals together would give back more than was debited (`details.reversible`)."""

    advice = "Reverse at most what is left."


class InsufficientQuota(TokengridError):
    """The account cannot afford this (`details.available`, `details.required`, millipoints)."""

    advice = "Top up, ask for less, or set accept_partial."


class LimitExceeded(TokengridError):
    """A bound of the system was exceeded (`details.limit`)."""

    advice = "Send less at once, or stay under the bound."


# --- routing ---------------------------------------------------------------------------------
class NoDeployment(TokengridError):
    """No deployment passes the filters. `details.rejected` gives each candidate's reason."""

    advice = "Relax the filters or try later."
    retryable = True


class UnknownCall(TokengridError):
    """No such call was routed."""

    advice = "Correct the call's name."


# --- billing ---------------------------------------------------------------------------------
class UnknownBill(TokengridError):
    """No such bill."""

    advice = "Correct the bill's number."


class BillVoid(TokengridError):
    """The bill is void: nothing can be paid or credited on it."""

    advice = "See the account's bills: another one may have taken its place."


class BillSettled(TokengridError):
    """Something was paid or credited on the bill, or a later bill of the account goes on from it (`details.later`), so
    it cannot be made void."""

    advice = "Make the later bills void first, the last one first; or issue a credit note."


class UnknownSubscription(TokengridError):
    """The account has no such subscription."""

    advice = "See the account's subscriptions."


class AlreadySubscribed(TokengridError):
    """The plan runs on this account already, in another subscription (`details.subscription`)."""

    advice = "Use the subscription that runs."


class TrialUsed(TokengridError):
    """This subscriber has had the trial; it is given once."""

    advice = "Take a plan."


class SubscriptionNotActive(TokengridError):
    """The subscription is paused or over (`details.status`), which rules out what is asked."""

    advice = "Resume it if it is paused; take the plan anew if it is over."


class PeriodOpen(TokengridError):
    """The period has not ended yet; only a dry run is possible."""

    advice = "Wait for the period's end, or ask for a dry run."


class NotCaughtUp(TokengridError):
    """This service has not yet followed a log up to its head (`details.position`, `details.head`)."""

    advice = "Retry shortly."
    retryable = True


# --- the machinery ---------------------------------------------------------------------------
class Conflict(TokengridError):
    """Another writer was faster, repeatedly. Nothing was changed."""

    advice = "Retry with the same request_id."
    retryable = True


class Busy(TokengridError):
    """The service has as much work as it will hold."""

    advice = "Retry with the same request_id, later."
    retryable = True


class DeadlineExceeded(TokengridError):
    """No answer in time. The command may or may not have taken effect."""

    advice = "Retry with the same request_id: it has one effect."
    retryable = True


class Unavailable(TokengridError):
    """The service, its broker or its database cannot be reached."""

    advice = "Retry with the same request_id, later."
    retryable = True


class AuditFailed(TokengridError):
    """A proof or a recomputed figure does not agree."""

    advice = "Read the report: it names the first difference."


class SetupFailed(TokengridError):
    """The machine lacks something (a server binary, a port, a right)."""

    advice = "Do what the message says."


PRECEDENCE: tuple[type[TokengridError], ...] = (
    MalformedCommand,
    NotAuthorised,
    UnknownOperator,
    UnknownAccount,
    IdempotencyConflict,
    AccountExists,
    AccountClosed,
    AccountSuspended,
    UnknownModel,
    NoRateInForce,
    UnknownReservation,
    ReservationEnded,
    UnknownDebit,
    UnknownGrant,
    ReversalExceedsDebit,
    InsufficientQuota,
    LimitExceeded,
)


def catalogue() -> dict[str, type[TokengridError]]:
    """Every error by its code."""
    return {cls.__name__: cls for cls in TokengridError.__subclasses__()}
