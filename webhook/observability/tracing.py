"""Spans for OpenTelemetry: https://opentelemetry.io/docs/languages/python/.

The worker makes its spans by hand. OpenTelemetry's own instrumentation packages are beta, and they record SQL and
error messages, which may quote a payload.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from webhook import __version__

log = structlog.get_logger("webhook")


def worker_tracer() -> Tracer:
    """Return the worker's tracer. Its spans are exported once an exporter is started in this process."""
    return trace.get_tracer("webhook", __version__)


def is_exporter_installed() -> bool:
    """Return whether the extra ``otel`` is installed. Without it spans would be made, and exported nowhere."""
    try:
        import webhook.observability.exporter  # noqa: F401, PLC0415 - it needs the extra
    except ModuleNotFoundError:
        return False
    return True


def load_exporter() -> Callable[[], None] | None:
    """Return the function that starts the export of spans in a process.

    Without the extra ``otel``, log a warning and return ``None``.
    """
    try:
        from webhook.observability.exporter import start_exporter  # noqa: PLC0415 - it needs the extra
    except ModuleNotFoundError:
        log.warning("tracing disabled", cause="the extra is not installed: pip install 'stripe-credits-webhook[otel]'")
        return None
    return start_exporter


class Tracing:
    """Makes spans with a tracer, or nothing without one: OpenTelemetry's own no-op span takes about 7 µs."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    def span(self, name: str, kind: SpanKind) -> AbstractContextManager[object]:
        """Return a context manager that makes a span inside the current one."""
        if self._tracer is None:
            return nullcontext()
        # By default a span records the error's message and those of its causes, which may hold values of a row.
        return self._tracer.start_as_current_span(
            name, kind=kind, record_exception=False, set_status_on_exception=False
        )

    def describe(self, **attributes: str) -> None:
        """Set attributes of the current span, each with the prefix ``webhook.``."""
        if self._tracer is None:
            return
        for name, value in attributes.items():
            trace.get_current_span().set_attribute(f"webhook.{name}", value)

    def record_error(self, kind: str, message: str, location: str = "") -> None:
        """Record an error on the current span; the arguments must not quote a payload.

        https://opentelemetry.io/docs/specs/semconv/exceptions/
        """
        if self._tracer is None:
            return
        details = {"exception.type": kind, "exception.message": message, "exception.stacktrace": location}
        span = trace.get_current_span()
        span.add_event("exception", {name: text for name, text in details.items() if text})
        span.set_status(StatusCode.ERROR, message)
