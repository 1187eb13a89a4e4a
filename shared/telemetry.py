"""Traces and metrics by OpenTelemetry, chosen by `settings.telemetry`; off, nothing of the SDK is even imported.

Everything else in the project uses the functions here: `span`, `current_traceparent`, `counter`,
`histogram`, `gauge`. They do nothing until `configure` has been called with telemetry on. It must know
nothing of nameko, of any service or of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from shared.config import Settings
from shared.errors import TokengridError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

Kind = Literal["internal", "server", "client", "producer", "consumer"]

SCOPE = "tokengrid"
# A span keeps at most 128 links by OpenTelemetry's default limits.
LINKS_MAX = 128
# A collector that is away must not hold up a stopping process; the exporters would try for 10 s each.
EXPORT_TIMEOUT_S = 2.0

_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_propagator = TraceContextTextMapPropagator()
_tracers: TracerProvider | None = None
_meters: MeterProvider | None = None
_instruments: dict[str, Any] = {}


def configure(
    settings: Settings,
    service_name: str,
    *,
    span_processor: SpanProcessor | None = None,
    metric_reader: MetricReader | None = None,
) -> None:
    """Install the providers that `settings.telemetry` asks for; `off` installs none.

    `span_processor` and `metric_reader` replace the exporters (tests pass in-memory ones).
    Configuring again replaces what was there before.
    """
    shutdown()
    if settings.telemetry == "off":
        return
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    global _tracers, _meters
    resource = Resource.create({"service.name": f"tokengrid-{service_name}", "service.namespace": "tokengrid"})
    _tracers = TracerProvider(resource=resource)
    _tracers.add_span_processor(span_processor or _span_exporter(settings))
    _meters = MeterProvider(metric_readers=[metric_reader or _metric_exporter(settings)], resource=resource)


def _span_exporter(settings: Settings) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    if settings.telemetry == "console":
        import sys

        return BatchSpanProcessor(ConsoleSpanExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(
        OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    )


def _metric_exporter(settings: Settings) -> MetricReader:
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    if settings.telemetry == "console":
        import sys

        return PeriodicExportingMetricReader(ConsoleMetricExporter(out=sys.stderr))
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    endpoint = f"{settings.otlp_endpoint}/v1/metrics"
    return PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S))


def shutdown() -> None:
    """Send what is still held back, and be off again."""
    global _tracers, _meters
    tracers, meters = _tracers, _meters
    _tracers = _meters = None
    _instruments.clear()
    if tracers is not None:
        tracers.shutdown()
    if meters is not None:
        meters.shutdown()


def active() -> bool:
    """Whether anything is recorded. Callers on a hot path ask before they gather attributes."""
    return _tracers is not None


def tracer() -> Tracer:
    """The project's tracer; one that does nothing when telemetry is off."""
    return trace.NoOpTracer() if _tracers is None else _tracers.get_tracer(SCOPE)


# --- traces ----------------------------------------------------------------------------------
def current_traceparent() -> str | None:
    """The W3C `traceparent` of the current span, or None if there is none."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


def inject(headers: dict[str, Any], span: Span | None = None) -> None:
    """Write a span (default: the current one) into a message's headers."""
    if active():
        _propagator.inject(headers, context=None if span is None else trace.set_span_in_context(span))


def _parent(carrier: Mapping[str, Any]) -> context.Context | None:
    """The context of a remote parent; None if the carrier holds none."""
    if not isinstance(carrier.get("traceparent"), str):
        return None
    return _propagator.extract({name: str(value) for name, value in carrier.items()}, context=context.Context())


def _links(traceparents: Sequence[str | None]) -> list[Link]:
    links = []
    for traceparent in dict.fromkeys(traceparents):  # one link for each trace, however many events it has
        parent = _parent({"traceparent": traceparent}) if traceparent else None
        spanned = trace.get_current_span(parent).get_span_context() if parent is not None else None
        if spanned is not None and spanned.is_valid:
            links.append(Link(spanned))
        if len(links) == LINKS_MAX:
            break
    return links


def start_span(
    name: str,
    kind: Kind = "internal",
    carrier: Mapping[str, Any] | None = None,
    links: Sequence[str | None] = (),
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Span:
    """A span, started but not made current: end it with `end_span`. Its parent is the `traceparent`
    in `carrier`, or the current span."""
    return tracer().start_span(
        name, context=_parent(carrier or {}), kind=_KINDS[kind], links=_links(links), attributes=dict(attributes or {})
    )


def end_span(span: Span, error: BaseException | None = None) -> None:
    """End a span. A refusal is noted by its code and is not a failure of the service; anything else is one."""
    if error is not None and span.is_recording():
        refusal = isinstance(error, TokengridError)
        code = error_code(error)
        span.set_attribute("error.type", code)
        span.set_attribute("rpc.response.status_code", code)
        if not refusal or error.retryable:  # type: ignore[attr-defined]
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
    span.end()


def error_code(error: BaseException) -> str:
    """The `error.type` of an exception: our code, or the name of its class."""
    return getattr(error, "exc_type", None) or type(error).__name__


@contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    parent_traceparent: str | None = None,
    links: Sequence[str | None] = (),
    **attributes: AttributeValue,
) -> Iterator[Span]:
    """A current span around a block. `parent_traceparent` continues a trace that came with a message or
    an event; `links` are traceparents of others that this work also serves."""
    if not active():
        yield trace.INVALID_SPAN
        return
    carrier = {"traceparent": parent_traceparent} if parent_traceparent else None
    started = start_span(name, kind, carrier, links, attributes)
    token = context.attach(trace.set_span_in_context(started))
    error: BaseException | None = None
    try:
        yield started
    except BaseException as exc:
        error = exc
        raise
    finally:
        end_span(started, error)
        context.detach(token)


# --- metrics ---------------------------------------------------------------------------------
def _instrument(name: str, make: str, unit: str, description: str) -> Any:
    found = _instruments.get(name)
    if found is None:
        meter = metrics.NoOpMeter(SCOPE) if _meters is None else _meters.get_meter(SCOPE)
        found = _instruments[name] = getattr(meter, make)(name, unit=unit, description=description)
    return found


def counter(name: str, unit: str = "1", description: str = "") -> metrics.Counter:
    """A counter: `counter("tokengrid.rpc.rejected").add(1, {"reason": …})`. Cheap to look up each time."""
    found: metrics.Counter = _instrument(name, "create_counter", unit, description)
    return found


def histogram(name: str, unit: str = "s", description: str = "") -> metrics.Histogram:
    """A histogram of durations, in seconds unless said otherwise."""
    found: metrics.Histogram = _instrument(name, "create_histogram", unit, description)
    return found


def gauge(name: str, unit: str = "1", description: str = "") -> Any:
    """A gauge: `gauge("tokengrid.follower.lag").set(12, {"upstream": …})`."""
    return _instrument(name, "create_gauge", unit, description)
