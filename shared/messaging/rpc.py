"""`@rpc`: nameko's RPC entrypoint, made fit for a broker that others can write to and that may restart.

What differs from nameko's own:
- A message that cannot be a request (no `reply_to`, no JSON, no `args` and `kwargs`) is rejected, counted
  and logged; it goes to the dead-letter exchange if the queue has one. nameko's would kill the service.
- Stopping takes no new requests, and closes the connection only when those in hand are answered and
  acknowledged (see `consuming`).
- Answers are transient, unconfirmed and never kill the service (see `wire`).
- Our errors are answers, not incidents: they are not logged with a traceback.

Every request may be delivered twice: commands must carry a key that makes repeating them harmless.
It must know nothing of what is called.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

import nameko.rpc
from kombu.message import Message
from nameko.exceptions import ContainerBeingKilled, MalformedRequest, MethodNotFound

from shared import telemetry
from shared.errors import TokengridError
from shared.messaging import codec, tracing
from shared.messaging.consuming import QueueConsumer
from shared.messaging.transport import Delivery
from shared.messaging.wire import Wire

log = logging.getLogger(__name__)

LOGGED_BODY_BYTES = 200
# Of a service that takes many requests at once: two batches at work, and as many waiting.
PREFETCH = 2048


def _quiet_refusals(record: logging.LogRecord) -> bool:
    """nameko logs expected errors with a traceback each; a refusal is an everyday answer and is in the metrics."""
    return not str(record.msg).startswith("(expected)")


logging.getLogger("nameko.containers").addFilter(_quiet_refusals)


def request_in(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """The arguments in a request. Raises ValueError with the reason why it cannot be one."""
    if not isinstance(message.properties.get("reply_to"), str) or not message.properties["reply_to"]:
        raise ValueError("no reply_to")
    if message.content_type != codec.CONTENT_TYPE:
        raise ValueError(f"content type {message.content_type!r} instead of {codec.CONTENT_TYPE}")
    try:
        body = codec.decode(message.body)
    except Exception as exc:
        raise ValueError(f"no readable JSON: {exc}") from exc
    args = body.get("args") if isinstance(body, dict) else None
    kwargs = body.get("kwargs") if isinstance(body, dict) else None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("no args and kwargs")
    return args, kwargs


class Taker(Protocol):
    """An entrypoint that takes some methods' requests by itself, without a worker for each."""

    def take(self, delivery: Delivery) -> bool:
        """Take a request at once; False if it cannot be read. Must not wait."""


class RpcConsumer(nameko.rpc.RpcConsumer):  # type: ignore[misc]
    """The service's request queue."""

    queue_consumer = QueueConsumer()
    wire = Wire()
    delay_s = 0.0

    def __init__(self) -> None:
        self.takers: dict[bytes, Taker] = {}  # by routing key
        self._methods: dict[str, Rpc] = {}
        super().__init__()

    @property
    def prefetch(self) -> int:
        """Workers are bounded by their pool; those who take many at once must see many."""
        workers: int = self.container.max_workers
        return max(workers, PREFETCH) if self.takers else workers

    def connected(self) -> None:
        self._methods = {each.routing_key: each for each in self._providers if isinstance(each, Rpc)}

    def get_provider_for_method(self, routing_key: str) -> Rpc:
        if routing_key in self._methods:
            return self._methods[routing_key]
        if routing_key.encode() in self.takers:  # it was not taken
            raise MalformedRequest("The request cannot be read.")
        raise MethodNotFound(routing_key.rpartition(".")[2])

    def take(self, delivery: Delivery) -> bool:
        taker = self.takers.get(delivery.key)
        return taker is not None and taker.take(delivery)

    def receive(self, message: Message) -> None:
        """Serve one message, whatever it is. Never raises."""
        try:
            args, kwargs = request_in(message)
        except ValueError as exc:
            self.reject(message, str(exc))
            return
        try:
            provider = self.get_provider_for_method(message.delivery_info["routing_key"])
            provider.serve(args, kwargs, message)
        except ContainerBeingKilled:
            self.requeue_message(message)
        except Exception:  # noqa: BLE001 - it is answered
            self.handle_result(message, None, sys.exc_info())

    def reject(self, message: Message, reason: str) -> None:
        service = self.container.service_name
        log.error("%s: rejected a message: %s: %.*r", service, reason, LOGGED_BODY_BYTES, message.body)
        tracing.count_rejected(service, reason.split(":")[0])
        if isinstance(message.properties.get("reply_to"), str):
            # Whoever sent it may be waiting.
            self.wire.reply(message.properties, None, MalformedRequest(reason))
        self.queue_consumer.reject_message(message)

    def handle_result(self, message: Message, result: Any, exc_info: Any) -> tuple[Any, Any]:
        error = exc_info and exc_info[1]
        sent = self.wire.reply(message.properties, result, error)
        self.queue_consumer.ack_message(message)
        if sent is not error:
            return None, (type(sent), sent, None)
        return result, exc_info


class Rpc(nameko.rpc.Rpc):  # type: ignore[misc]
    """The entrypoint behind `@rpc`."""

    rpc_consumer = RpcConsumer()

    def __init__(self, expected_exceptions: Any = TokengridError, **kwargs: Any) -> None:
        super().__init__(expected_exceptions=expected_exceptions, **kwargs)

    def serve(self, args: list[Any], kwargs: dict[str, Any], message: Message) -> None:
        self.check_signature(args, kwargs)
        self.container.spawn_worker(
            self,
            args,
            kwargs,
            context_data=self.context_in(message),
            handle_result=partial(self._answer, message, monotonic()),
        )

    def _answer(
        self, message: Message, started_at: float, worker_ctx: Any, result: Any, exc_info: Any
    ) -> tuple[Any, Any]:
        del worker_ctx
        result, exc_info = self.rpc_consumer.handle_result(message, result, exc_info)
        if telemetry.active():
            tracing.record_call(self.span_name, started_at, exc_info and exc_info[1])
        return result, exc_info

    def context_in(self, message: Message) -> dict[str, Any]:
        """The context of a call. A call id stack that is none is left out: nameko's worker would die of it."""
        context: dict[str, Any] = self.unpack_message_headers(message)
        stack = context.get("call_id_stack", [])
        if not isinstance(stack, list) or not all(isinstance(call_id, str) for call_id in stack):
            del context["call_id_stack"]
        return context

    @property
    def routing_key(self) -> str:
        return f"{self.container.service_name}.{self.method_name}"

    @property
    def span_name(self) -> str:
        return f"{self.container.service_name}/{self.method_name}"

    def describe_span(self, worker_ctx: Any) -> dict[str, Any]:
        del worker_ctx
        attributes = {"rpc.system.name": tracing.RPC_SYSTEM, "rpc.method": self.span_name}
        return {"name": self.span_name, "kind": "server", "attributes": attributes}


F = TypeVar("F", bound=Callable[..., Any])


def rpc(method: F) -> F:
    """Makes a method of a service callable by RPC."""
    decorated: F = Rpc.decorator(method)
    return decorated
