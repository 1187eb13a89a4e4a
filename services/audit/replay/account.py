"""One account as the auditor folds it: grants with what became of them, holds, credit. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from services.audit.replay.prices import Raw

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PRIORITY = 50  # of a grant that names none
BOOKS = ("granted", "reserved", "debited", "reversed", "expired", "voided")


class Grant:
    """A lot of points, in millipoints."""

    __slots__ = (
        "debited",
        "effective_at",
        "expired",
        "expires_at",
        "granted",
        "priority",
        "reserved",
        "reversed",
        "scope",
        "void",
        "voided",
    )

    def __init__(
        self,
        granted: int,
        effective_at: datetime,
        expires_at: datetime | None,
        scope: Raw | None,
        priority: int = PRIORITY,
    ) -> None:
        self.granted = granted
        self.priority = priority
        self.effective_at = effective_at
        self.expires_at = expires_at
        self.scope = scope
        self.reserved = self.debited = self.reversed = self.expired = self.voided = 0
        self.void = False

    @property
    def available(self) -> int:
        return self.granted - self.reserved - self.debited + self.reversed - self.expired - self.voided

    def ended(self, at: datetime) -> bool:
        """Voided or expired: nothing may be drawn from it any more."""
        return self.void or (self.expires_at is not None and self.expires_at <= at)

    def valid(self, at: datetime) -> bool:
        """Effective and not ended."""
        return self.effective_at <= at and not self.ended(at)

    def covers(self, model: str, family: str) -> bool:
        scope = self.scope or {}
        models, families = scope.get("models", ()), scope.get("families", ())
        return not (models or families) or model in models or family in families

    def books(self) -> dict[str, int]:
        """What the read model says of a grant."""
        return {name: getattr(self, name) for name in BOOKS}


class Hold:
    """A reservation that has not ended, and what it still holds by grant, in the order of the draw. `given`: the input
    tokens of its call so far."""

    __slots__ = ("expired", "expires_at", "given", "model", "rate_card", "remaining", "reserved_at")

    def __init__(self, model: str, rate_card: str, reserved_at: datetime, expires_at: datetime) -> None:
        self.model = model
        self.rate_card = rate_card
        self.reserved_at = reserved_at
        self.expires_at = expires_at
        self.remaining: dict[str, int] = {}
        self.expired = False
        self.given = 0


class Account:
    """A wallet. `opened`: position and event of its opening; `closed`: position and instant of its closing."""

    __slots__ = (
        "closed",
        "credit",
        "credit_limit",
        "grants",
        "holds",
        "opened",
        "operator",
        "overdrawn",
        "regrants",
        "status",
        "stream",
        "version",
    )

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.operator = stream.partition("/")[0]
        self.status = ""
        self.version = self.credit_limit = self.overdrawn = 0
        self.opened: tuple[int, Raw] | None = None
        self.closed: tuple[int, datetime] | None = None
        self.grants: dict[str, Grant] = {}
        self.holds: dict[str, Hold] = {}
        self.credit = Grant(0, EPOCH, None, None)
        self.regrants: dict[str, int] = {}  # reversed from an ended grant and not yet granted anew

    @property
    def credit_left(self) -> int:
        """What the credit limit still covers; below zero when the limit was lowered under what had been drawn."""
        return self.credit_limit - self.credit.reserved - self.credit.debited + self.credit.reversed

    def open(self, position: int, event: Raw) -> None:
        self.opened = (position, event)
        self.status = "open"
        self.credit_limit = event.get("credit_limit", 0)

    def close(self, position: int, at: datetime) -> None:
        self.status, self.closed = "closed", (position, at)

    def set_status(self, status: str) -> None:
        self.status = status

    def state(self) -> Raw:
        """The account as the quota service's read model must show it."""
        grants = {name: grant.books() for name, grant in self.grants.items()}
        credit = self.credit.books()
        if any(credit.values()):
            grants["credit"] = credit
        return {
            "status": self.status,
            "version": self.version,
            "credit_limit": self.credit_limit,
            "overdrawn": self.overdrawn,
            "grants": grants,
        }
