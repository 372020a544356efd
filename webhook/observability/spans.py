"""What a trace is told of a delivery: nothing, unless ``tracing.py`` takes this one's place."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import structlog

log = structlog.get_logger("webhook")


class Spans:
    """Tells nobody."""

    def start(self) -> None:
        """Begin to tell: in each process, once it runs."""

    def span(self, name: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """Return what begins a span inside the current one, and ends it at the end of the block."""
        return nullcontext()

    def describe(self, **attributes: str) -> None:
        """Say something of the current span."""

    def failed(self, kind: str, message: str, places: str = "") -> None:
        """Say that the current span ends in an error; nothing of what is said may quote a payload."""


def spans(*, wanted: bool) -> Spans:
    """Return what tells OpenTelemetry, if that is wanted and its packages are there."""
    if not wanted:
        return Spans()
    try:
        from webhook.observability.tracing import Tracing  # noqa: PLC0415 - they are there only with an extra
    except ModuleNotFoundError:
        log.warning("no traces", cause="the extra is not installed: pip install 'stripe-credits-webhook[otel]'")
        return Spans()
    return Tracing()
