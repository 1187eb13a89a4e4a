"""`@rpc`: nameko's RPC entrypoint, made fit for a broker that others can write to and that may restart.

What differs from nameko's own:
- A message that cannot be a request (no `reply_to`, no JSON, no `args` and `kwargs`) is rejected, counted
  and logged; it goes to the dead-letter exchange if the queue has one. nameko's would kill the service.
- Stopping takes no new requests, and closes the connection only when those in hand are answered and
  acknowledged. nameko's loses the acknowledgements, and the requests are executed again.
- Answers are transient, unconfirmed and never kill the service (see `wire`).
- Our errors are answers, not incidents: they are not logged with a traceback.

Every request may be delivered twice: commands must carry a key that makes repeating them harmless.
It must know nothing of what is called.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from time import monotonic
from typing import Any

import nameko.rpc
from eventlet.event import Event
from kombu.message import Message
from nameko.exceptions import ContainerBeingKilled, MalformedRequest
from nameko.messaging import QueueConsumer as NamekoQueueConsumer

from shared import telemetry
from shared.errors import TokengridError
from shared.messaging import codec, tracing
from shared.messaging.link import BROKER_ERRORS, RECONNECT_MAX_S, RECONNECT_MIN_S
from shared.messaging.wire import Wire

log = logging.getLogger(__name__)

# How soon a consumer of RabbitMQ sees that it shall stop. The in-process broker is told at once.
TICK_S = 0.2
LOGGED_BODY_BYTES = 200


def _quiet_refusals(record: logging.LogRecord) -> bool:
    """nameko logs expected errors with a traceback each; a refusal is an everyday answer and is in the metrics."""
    return not str(record.msg).startswith("(expected)")


logging.getLogger("nameko.containers").addFilter(_quiet_refusals)


class QueueConsumer(NamekoQueueConsumer):  # type: ignore[misc]
    """nameko's, handing on raw messages, and draining before it closes its connection."""

    def __init__(self) -> None:
        self._unsettled: set[Message] = set()
        self._stopping: dict[Any, Event] = {}
        super().__init__()

    def get_consumers(self, consumer_cls: Any, channel: Any) -> Any:
        # A new connection: whatever was unsettled on the old one, the broker delivers again.
        self._unsettled.clear()
        self._channel = channel
        self._consumers.clear()
        for provider in self._providers:
            if provider in self._stopping:
                continue
            consumer = consumer_cls(
                queues=[provider.queue],
                on_message=partial(self._receive, provider),
                on_decode_error=partial(self._undecodable, provider),
                accept=self.accept,
            )
            consumer.qos(prefetch_count=self.prefetch_count)
            self._consumers[provider] = consumer
        return list(self._consumers.values())

    def _receive(self, provider: Any, message: Message) -> None:
        self._unsettled.add(message)
        self.container.spawn_managed_thread(partial(provider.receive, message), identifier="receive")

    def _undecodable(self, provider: Any, message: Message, exc: Exception) -> None:
        """kombu could not even unpack it."""
        self._unsettled.add(message)
        provider.reject(message, f"cannot be unpacked: {exc}")

    def _settle(self, message: Message, settle: Any) -> None:
        try:
            if message.channel.connection and not message.acknowledged:
                settle()
        except BROKER_ERRORS as exc:
            log.warning("a message could not be settled, it will come again: %s", exc)
        self._unsettled.discard(message)
        if self._stopping and not self._unsettled:
            self._interrupt()

    def ack_message(self, message: Message) -> None:
        self._settle(message, message.ack)

    def requeue_message(self, message: Message) -> None:
        self._settle(message, message.requeue)

    def reject_message(self, message: Message) -> None:
        self._settle(message, message.reject)

    # --- the consuming green thread --------------------------------------------------------------
    def establish_connection(self) -> Any:
        return _Connected(self)

    def consume(self, limit: Any = None, timeout: Any = None, safety_interval: float = TICK_S, **kwargs: Any) -> Any:
        del limit, timeout
        with self.consumer_context(**kwargs) as (connection, _channel, _consumers):
            while True:
                self.on_iteration()
                if self.should_stop:
                    return
                try:
                    connection.drain_events(timeout=None if self._inproc else safety_interval)
                except TimeoutError:
                    connection.heartbeat_check()
                yield

    @property
    def _inproc(self) -> bool:
        return bool(self.amqp_uri.startswith("inproc:"))

    def on_iteration(self) -> None:
        for provider, stopped in list(self._stopping.items()):
            consumer = self._consumers.pop(provider, None)
            if consumer is not None:
                consumer.cancel()
            if not self._unsettled and not stopped.ready():
                stopped.send()
        if not self._consumers and not self._unsettled:
            self.should_stop = True

    def unregister_provider(self, provider: Any) -> None:
        """Returns when the provider's consumer is cancelled and all its messages are settled."""
        if not self._consumers_ready.ready():
            super().unregister_provider(provider)
            return
        stopped = self._stopping.setdefault(provider, Event())
        self._interrupt()
        stopped.wait()
        super(NamekoQueueConsumer, self).unregister_provider(provider)

    def kill(self) -> None:
        self.should_stop = True
        self._interrupt()
        super().kill()

    def _interrupt(self) -> None:
        interrupt = getattr(getattr(getattr(self, "_channel", None), "connection", None), "interrupt", None)
        if interrupt is not None:
            interrupt()


class _Connected:
    """nameko's connection, retried sooner than kombu's default of 2, 4, 6 … 30 s."""

    def __init__(self, consumer: QueueConsumer) -> None:
        self._consumer = consumer

    def __enter__(self) -> Any:
        self._connection = self._consumer.create_connection()
        return self._connection.ensure_connection(
            self._consumer.on_connection_error,
            max_retries=None,
            interval_start=RECONNECT_MIN_S,
            interval_step=RECONNECT_MIN_S,
            interval_max=RECONNECT_MAX_S,
        )

    def __exit__(self, *exc_info: object) -> None:
        self._connection.release()


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


class RpcConsumer(nameko.rpc.RpcConsumer):  # type: ignore[misc]
    """The service's request queue."""

    queue_consumer = QueueConsumer()
    wire = Wire()

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
        except Exception:
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
            context_data=self.unpack_message_headers(message),
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

    @property
    def span_name(self) -> str:
        return f"{self.container.service_name}/{self.method_name}"

    def describe_span(self, worker_ctx: Any) -> dict[str, Any]:
        del worker_ctx
        attributes = {"rpc.system.name": tracing.RPC_SYSTEM, "rpc.method": self.span_name}
        return {"name": self.span_name, "kind": "server", "attributes": attributes}


rpc = Rpc.decorator
