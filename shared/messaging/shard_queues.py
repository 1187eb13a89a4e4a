"""A queue for each shard of a service, of which one process at a time is the consumer: the shard's owner.

RabbitMQ sees to that (`x-single-active-consumer`), and hands the queue to another process when the owner's
connection ends. A process knows that it is the owner once it has received something from the queue, until it loses
the connection. Whatever comes to another process is passed on to the queue, once: what comes from there is served.
It must know nothing of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kombu.entity import Queue
from kombu.message import Message
from nameko.rpc import get_rpc_exchange

from shared.messaging.link import RPC_EXCHANGE, Link, Outgoing
from shared.messaging.rpc import PREFETCH
from shared.messaging.transport import Delivery
from shared.messaging.wire import REPLY_PATIENCE_S

if TYPE_CHECKING:
    from shared.messaging.lane import Lane

# How long a process leaves the shards that others prefer to those others, after it has connected.
STANDBY_DELAY_S = 2.0


class ShardQueue:
    """The queue of one shard, as seen by one process."""

    prefetch = PREFETCH

    def __init__(self, lane: Lane, shard: int) -> None:
        settings, service = lane.settings, lane.container.service_name
        self._lane, self._shard = lane, shard
        self.address = f"{service}.shard-{shard}"
        self.queue = Queue(  # type: ignore[no-untyped-call]
            f"tokengrid.{self.address}",
            exchange=get_rpc_exchange(lane.container.config),
            routing_key=f"{self.address}.*",
            durable=True,
            queue_arguments={"x-single-active-consumer": True},
        )
        self._methods = {self.routing_key(method).encode(): method for method in lane.methods}
        preferred = settings.quota_shards_preferred
        standing_by = bool(preferred) and shard not in preferred and not settings.embedded
        self.delay_s = STANDBY_DELAY_S if standing_by else 0.0
        self.active = False

    def routing_key(self, method: str) -> str:
        return f"{self.address}.{method}"

    # --- as a provider of the queue consumer -------------------------------------------------------
    def connected(self) -> None:
        """Anew: who owns the shard now is not known."""
        self.active = False

    def take(self, delivery: Delivery) -> bool:
        self.active = True
        method = self._methods.get(delivery.key)
        return method is not None and self._lane.take_for(self._shard, method, delivery)

    def receive(self, message: Message) -> None:
        """What cannot be taken is answered as on the service's own queue: by an error."""
        self._lane.rpc_consumer.receive(message)

    def reject(self, message: Message, reason: str) -> None:
        self._lane.rpc_consumer.reject(message, reason)


def pass_on(link: Link, passed: Sequence[tuple[Delivery, bytes]]) -> None:
    """Publish requests again, with other routing keys and all else as it came. Raises Unavailable.

    A request that goes nowhere is answered by Unavailable, when the broker has told so.
    """
    framed = [Outgoing(key, each.body, header=each.header, mandatory=True) for each, key in passed if each.header]
    if framed:
        link.publish_all(framed, wait_s=REPLY_PATIENCE_S)
    for each, key in passed:
        if not each.header:  # it came the stock way, and was perhaps compressed
            link.publish(
                each.body,
                RPC_EXCHANGE,
                key.decode(),
                headers={name: value for name, value in each.headers.items() if name != "compression"},
                mandatory=True,
                wait_s=REPLY_PATIENCE_S,
                reply_to=each.reply_to.decode(),
                correlation_id=each.correlation_id.decode(),
                **({"expiration": each.expiration.decode()} if each.expiration else {}),
            )
