"""What is known of all deployments at this moment, folded from the log's recent events.

Soft state: it costs quality when stale or lost, never correctness. It knows nothing of commands,
storage or the clock; the instants are those of the events.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.routing.domain.capacity import Capacity, Lease
from services.routing.domain.health import Health
from shared.contracts.routing import CallRouted, CallServed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def epoch_ms(at: datetime) -> int:
    """An instant as whole milliseconds since 1970 (UTC)."""
    return (at - EPOCH) // MILLISECOND


def instant(ms: int) -> datetime:
    """The instant of whole milliseconds since 1970."""
    return EPOCH + ms * MILLISECOND


class Fleet:
    """Leases of all calls and the health of every deployment that a call was sent to."""

    def __init__(self) -> None:
        self.capacity = Capacity()
        self.health: dict[str, Health] = {}

    def routed(self, call: str, event: CallRouted) -> None:
        """The call takes its place; the place it had elsewhere is free again."""
        now_ms, until_ms = epoch_ms(event.recorded_at), epoch_ms(event.lease_expires_at)
        self.capacity.take(Lease(call, event.deployment, event.tokens, now_ms, until_ms))
        self.health_of(event.deployment).routed(call, now_ms, until_ms)

    def served(self, call: str, event: CallServed) -> None:
        """The call's place is free: where it was reported from, or anywhere once the call is over."""
        lease = self.capacity.lease(call)
        if lease is None:
            return
        if lease.deployment == event.deployment:
            self.capacity.end(call, event.usage.total)
        elif event.outcome in ("ok", "cancelled"):
            self.capacity.end(call, 0)

    def learn(self, call: str, event: CallServed) -> None:
        """What the report says about the deployment."""
        self.health_of(event.deployment).observe(call, event.outcome, epoch_ms(event.recorded_at), event.ttft_ms)

    def withdraw(self, call: str) -> None:
        """The call was not routed after all: its decision was not stored."""
        lease = self.capacity.end(call, 0)
        if lease is not None:
            self.health_of(lease.deployment).withdrawn(call)

    def health_of(self, deployment: str) -> Health:
        """A deployment's health; that of a good one if it was never heard of."""
        health = self.health.get(deployment)
        if health is None:
            health = self.health[deployment] = Health()
        return health
