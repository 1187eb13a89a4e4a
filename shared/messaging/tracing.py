"""One trace from the client through every service it reaches, and the metrics of calls and followers.

Put `tracing = Tracing()` into a service class. Names follow OpenTelemetry's semantic conventions for RPC
and messaging: a call's span is named by `rpc.method`, "quota/reserve". It must know nothing of the broker.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

from nameko.extensions import DependencyProvider
from opentelemetry import context, trace
from opentelemetry.trace import Span

from shared import telemetry

RPC_SYSTEM = "nameko"
W3C_HEADERS = ("traceparent", "tracestate", "baggage")


# --- the calling side ------------------------------------------------------------------------
def client_span(service: str, method: str) -> Span | None:
    """The CLIENT span of a call, ended by `end_client_span`. None if telemetry is off."""
    if not telemetry.active():
        return None
    name = f"{service}/{method}"
    return telemetry.start_span(name, "client", attributes={"rpc.system.name": RPC_SYSTEM, "rpc.method": name})


def end_client_span(pending: Any, span: Span | None, error: Exception | None) -> None:
    if span is None:
        return
    telemetry.end_span(span, error)
    attributes = _call_attributes(f"{pending.service}/{pending.method}", error)
    telemetry.histogram("rpc.client.call.duration", "s", "How long callers waited.").record(
        monotonic() - pending.sent_at, attributes
    )


def inject(span: Span | None, headers: dict[str, Any]) -> None:
    """Write a span into a message's headers."""
    if span is not None:
        telemetry.inject(headers, span)


# --- the served side -------------------------------------------------------------------------
def _call_attributes(method: str, error: BaseException | None) -> dict[str, str]:
    attributes = {"rpc.system.name": RPC_SYSTEM, "rpc.method": method}
    if error is not None:
        attributes["error.type"] = telemetry.error_code(error)
    return attributes


def record_call(method: str, started_at: float, error: BaseException | None) -> None:
    """Count an answered call; `started_at` by time.monotonic."""
    if not telemetry.active():
        return
    attributes = _call_attributes(method, error)
    telemetry.histogram("rpc.server.call.duration", "s", "How long calls took.").record(
        monotonic() - started_at, attributes
    )
    if error is not None:
        telemetry.counter("tokengrid.rpc.errors", "{call}", "Calls answered by an error.").add(1, attributes)


def count_rejected(service: str, reason: str) -> None:
    """Count a message that could not be served at all."""
    telemetry.counter("tokengrid.rpc.rejected", "{message}", "Messages rejected or dropped.").add(
        1, {"service": service, "reason": reason}
    )


def record_lag(service: str, upstream: str, lag: int) -> None:
    """How many events a follower is behind its upstream's head."""
    telemetry.gauge("tokengrid.follower.lag", "{event}", "Events not yet applied.").set(
        lag, {"service": service, "upstream": upstream}
    )


def event_span(event: dict[str, Any], name: str | None = None) -> AbstractContextManager[Span]:
    """A CONSUMER span around the handling of one logged event, in the trace of the command that caused it."""
    return telemetry.span(
        name or f"process {event['topic']}",
        "consumer",
        parent_traceparent=event.get("trace"),
        **{"messaging.operation.type": "process", "tokengrid.position": event["position"]},
    )


class Tracing(DependencyProvider):  # type: ignore[misc]
    """A span around each worker of the service, current while it runs. `self.tracing()` is that span.

    The entrypoint says what kind by `describe_span(worker_ctx)`: SERVER for an RPC, CONSUMER for a page.
    """

    def setup(self) -> None:
        self._live: dict[Any, tuple[Span, Any]] = {}

    def get_dependency(self, worker_ctx: Any) -> Any:  # noqa: ARG002
        # Called before worker_setup: the span does not exist yet.
        return trace.get_current_span

    def worker_setup(self, worker_ctx: Any) -> None:
        # Always taken out, or nameko would hand the caller's traceparent on as if it were ours.
        carrier = {name: worker_ctx.data.pop(name) for name in W3C_HEADERS if name in worker_ctx.data}
        if not telemetry.active():
            return
        describe = getattr(worker_ctx.entrypoint, "describe_span", None)
        details: dict[str, Any] | None = {"name": f"{worker_ctx.service_name}.{worker_ctx.entrypoint.method_name}"}
        if describe is not None:
            details = describe(worker_ctx)
        if details is not None:
            span = telemetry.start_span(carrier=carrier, **details)
            self._live[worker_ctx] = span, context.attach(trace.set_span_in_context(span))

    def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:  # noqa: ARG002
        if worker_ctx in self._live:
            span, token = self._live.pop(worker_ctx)
            telemetry.end_span(span, exc_info and exc_info[1])
            context.detach(token)
