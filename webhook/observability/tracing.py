"""Spans for OpenTelemetry, where the extra ``otel`` is installed and its variables are set.

https://opentelemetry.io/docs/languages/python/. The spans are made by hand: the packages that make them by themselves
are all beta, and note SQL and errors whose text may quote a payload.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from webhook import __version__
from webhook.observability.spans import Spans


class Tracing(Spans):
    """Tells OpenTelemetry."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """Without a ``tracer``, the one that :meth:`start` sets up in this process, later."""
        self._tracer = tracer or trace.get_tracer("webhook", __version__)

    def start(self) -> None:
        """Send the spans of this process from now on, by a thread that would not survive a fork."""
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "webhook"}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)

    def span(self, name: str) -> AbstractContextManager[object]:
        """Begin a span inside the current one."""
        kind = SpanKind.CLIENT if trace.get_current_span().get_span_context().is_valid else SpanKind.SERVER
        # By itself it would note the error's text and its causes', which may hold values of a row.
        return self._tracer.start_as_current_span(
            name, kind=kind, record_exception=False, set_status_on_exception=False
        )

    def describe(self, **attributes: str) -> None:
        """Note the attributes, under ``webhook.``."""
        for name, value in attributes.items():
            trace.get_current_span().set_attribute(f"webhook.{name}", value)

    def failed(self, kind: str, message: str, places: str = "") -> None:
        """Note an exception, in the words that are safe: https://opentelemetry.io/docs/specs/semconv/exceptions/."""
        details = {"exception.type": kind, "exception.message": message, "exception.stacktrace": places}
        span = trace.get_current_span()
        span.add_event("exception", {name: text for name, text in details.items() if text})
        span.set_status(StatusCode.ERROR, message)
