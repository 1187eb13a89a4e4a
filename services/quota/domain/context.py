"""What a decision may know besides the account, and the commands that only the sweep gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from shared.catalogue.view import CatalogueView
from shared.contracts import quota as q
from shared.contracts.base import Event


class Context(NamedTuple):
    """What a decision may know besides the account."""

    at: datetime
    recorded_at: datetime
    fingerprint: str
    catalogue: CatalogueView
    find: Callable[[str], Event | None]  # the account's event made by a request_id

    def stamp(self, command: q.QuotaCommand) -> dict[str, Any]:
        """The fields that every event of this command has."""
        return {
            "at": self.at,
            "recorded_at": self.recorded_at,
            "request_id": command.request_id,
            "fingerprint": self.fingerprint,
        }


class ExpireReservation(q.QuotaCommand, frozen=True, kw_only=True):
    """Asked by the sweep, never by a client."""

    reservation: str


class ExpireGrant(q.QuotaCommand, frozen=True, kw_only=True):
    """Asked by the sweep, never by a client."""

    grant: str
