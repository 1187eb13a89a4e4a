"""What a decision may know besides the account, and the commands that only the sweep gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from shared.catalogue.view import CatalogueView
from shared.contracts import quota as q
from shared.contracts.base import Event


class Context(msgspec.Struct, gc=False):
    """What a decision may know besides the account."""

    at: datetime
    recorded_at: datetime
    fingerprint: str
    catalogue: CatalogueView
    stream: str  # the account's
    look_up: Callable[[str, str], Event | None]  # the event of a stream that was made by a request_id

    def find(self, name: str) -> Event | None:
        """The account's event that was made by a request_id, if it did something."""
        return self.look_up(self.stream, name)

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
