"""OpenTelemetry spans, where `CCNET_TRACING=otlp` asks for them; otherwise nothing is imported and nothing happens.

    POST /v1/classify             a request; continues the trace of a client that sends `traceparent`
      decode                      parsing pictures and preparing them
      queue                       from admission until its first members run
      forward                     until its last members have run
    batch                         a trace of its own, with a link to each request that it served

OpenTelemetry's own variables say where spans go: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME` and the rest.
One tracer a process. Spans hold ids, counts and route templates, and nothing that was uploaded.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext, Tracer

EXPORT_TIMEOUT_S = 5.0

_tracer: "Tracer | None" = None


def start_otlp() -> Callable[[], None]:
    """Send spans to a collector from now on.

    Returns:
        What sends the last ones and ends it.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({SERVICE_NAME: "ccnet"}).merge(Resource.create())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)))
    return use(provider)


def use(provider: "TracerProvider") -> Callable[[], None]:
    """Give spans to a provider; what is returned ends that and shuts the provider down."""
    global _tracer
    _tracer = provider.get_tracer("ccnet.service")

    def end() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return end


@contextmanager
def request_span(method: str, headers: Mapping[str, str]) -> "Iterator[Span | None]":
    """Around a request; part of the client's trace where it names one."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carried = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    parent = TraceContextTextMapPropagator().extract(carried)
    with _tracer.start_as_current_span(method, parent, SpanKind.SERVER, record_exception=False) as span:
        yield span


def end_request(span: "Span | None", method: str, route: str | None, status: int, facts: Mapping[str, Any]) -> None:
    """Name a request's span, and say how it ended."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    span.set_attributes({"http.request.method": method, "http.response.status_code": status})
    span.set_attributes({f"ccnet.{name}": value for name, value in facts.items()})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


@contextmanager
def stage_span(name: str) -> Iterator[None]:
    """Around a stage of the request that is being answered."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, record_exception=False):
        yield


def waited_and_ran(queue_s: float, since_s: float) -> None:
    """The spans queue and forward of a request that is done.

    Args:
        queue_s: From admission until its first members ran.
        since_s: From admission until now.
    """
    if _tracer is None:
        return
    now = time.time_ns()
    admitted = now - round(since_s * 1e9)
    begun = min(now, admitted + round(queue_s * 1e9))
    for name, begin, end in (("queue", admitted, begun), ("forward", begun, now)):
        _tracer.start_span(name, start_time=begin).end(end)


def current() -> "SpanContext | None":
    """Of the request that is being answered, for links to it."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    return get_current_span().get_span_context()


@contextmanager
def batch_span(served: "Iterable[SpanContext | None]") -> Iterator[None]:
    """Around a batch, linked to the requests that it serves."""
    if _tracer is None:
        yield
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

    links = [Link(request) for request in served if request is not None]
    with _tracer.start_as_current_span("batch", Context(), links=links, record_exception=False) as span:
        span.set_attribute("ccnet.jobs", len(links))
        yield
