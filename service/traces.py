"""Traces for OpenTelemetry: a span for a request, and in it one for each phase and stage of its images.

Sent over OTLP/HTTP, in batches, by a thread of the library. What a request went through is put together when it has
been answered, from times that were taken anyway; so its images pay nothing on their way. Times are of the monotonic
clock. Needs the extra `traces`, which is imported where traces are asked for and nowhere else.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.in_hand import TracedImage
from service.settings import SettingsError
from service.types import Clock

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

# The collector may be gone, and a service that drains has not much time.
_CLOSE_S = 2.0
_PATH = "/v1/traces"


@dataclass(frozen=True)
class TracedRequest:
    """A request that was answered. `body_read_s`: when its body was there; None where that was never waited for."""

    request_id: str
    method: str
    route: str
    status: int
    code: str | None
    arrived_s: float
    body_read_s: float | None
    images: Sequence[TracedImage]


class Traces:
    """Of one service, whose spans go to `provider`."""

    def __init__(self, provider: "TracerProvider", clock: Clock) -> None:
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("dvt")
        self._clock = clock
        self._kind = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()
        self._within = trace.set_span_in_context

    def begin(self, headers: Mapping[str, str]) -> "Span":
        """The span of a request that has just come, in the trace that its headers tell of."""
        return self._tracer.start_span("request", self._propagator.extract(headers), kind=self._kind)

    def headers(self, span: "Span") -> dict[str, str]:
        """What tells others of a span: `traceparent`, and `tracestate` where there is one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._within(span))
        return carrier

    def end(self, span: "Span", request: TracedRequest) -> None:
        """The end of a request, with all that it went through."""
        if not span.is_recording():
            return
        self._say(span, request)
        spans = _Spans(self, span, time.time_ns() - int(self._clock() * 1e9))
        if request.body_read_s is not None:
            spans.add("read", request.arrived_s, request.body_read_s)
        for image in request.images:
            spans.add_image(image, request.arrived_s)
        span.end()

    def close(self) -> None:
        """Send what is left, for as long as there is time."""
        closing = threading.Thread(target=self._provider.shutdown, name="dvt-traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def span_within(self, parent: "Span", name: str, began_ns: int) -> "Span":
        return self._tracer.start_span(name, self._within(parent), start_time=began_ns)

    @staticmethod
    def _say(span: "Span", request: TracedRequest) -> None:
        from opentelemetry.trace import StatusCode

        span.update_name(f"{request.method} {request.route}")
        span.set_attribute("http.request.method", request.method)
        span.set_attribute("http.route", request.route)
        span.set_attribute("http.response.status_code", request.status)
        span.set_attribute("dvt.request_id", request.request_id)
        if request.code is not None:
            span.set_attribute("error.type", request.code)
        if request.status >= 500:
            span.set_status(StatusCode.ERROR)


class _Spans:
    """Those within a request's `span`. `epoch_ns`: when the monotonic clock was at 0."""

    def __init__(self, traces: Traces, span: "Span", epoch_ns: int) -> None:
        self._traces = traces
        self._span = span
        self._epoch_ns = epoch_ns

    def add(self, name: str, began_s: float, ended_s: float, **attributes: "AttributeValue") -> None:
        span = self._traces.span_within(self._span, name, self._at(began_s))
        span.set_attributes({f"dvt.{key.replace('_', '.')}": value for key, value in attributes.items()})
        span.end(self._at(ended_s))

    def add_image(self, image: TracedImage, arrived_s: float) -> None:
        """One for the image, and in that its phases and stages."""
        answer = image.answer
        span = self._traces.span_within(self._span, "image", self._at(arrived_s))
        span.set_attribute("dvt.image.index", image.index)
        span.set_attribute("dvt.exit", answer.exit.number)
        span.set_attribute("dvt.exit.reason", answer.reason)
        span.set_attribute("dvt.exit.confidence", answer.exit.confidence)
        within = _Spans(self._traces, span, self._epoch_ns)
        if image.decode_began_s is not None:
            within.add("decode", image.decode_began_s, image.decode_began_s + image.decode_s)
        for run in answer.times.runs:
            within.add("queue", run.queued_s, run.began_s, stage=run.stage)
            within.add("stage", run.began_s, run.ended_s, stage=run.stage, batch_images=run.images)
        span.end(self._at(arrived_s + image.total_s))

    def _at(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)


def open_traces(endpoint: str, clock: Clock) -> Traces | None:
    """For the collector at `endpoint`, its base URL; None without one. What else there is to choose the standard's own
    variables (`OTEL_*`) say. Raises `SettingsError` where the extra is not installed."""
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            "traces are asked for (DVT_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_ENDPOINT), but the extra `traces` is not "
            "installed: pip install 'dvt[traces]'"
        ) from error
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # What the standard has for no name.
        resource = resource.merge(Resource({SERVICE_NAME: "dvt"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH)))
    return Traces(provider, clock)
