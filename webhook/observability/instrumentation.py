"""The log line, metrics and spans of each delivery, from one place."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry.trace import SpanKind

from webhook.events.event import Event
from webhook.events.signature import Rejection
from webhook.ledger.ledger import Outcome
from webhook.observability.metrics import OTHER, WEBHOOK_PATHS, Metrics
from webhook.observability.tracing import Tracing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_TYPE = re.compile(r"[a-z0-9_.]{1,100}")
_PATH = re.compile(r"[\w/.~-]{1,200}", re.ASCII)
_FUNCTION = re.compile(r"\bbilling\.(\w+)\(")
_LEVELS = {"parked": "warning", "unavailable": "error"}
"""The log level of an outcome, where it is not ``info``."""

_LOGIN_LINE_SECONDS = 60

log = structlog.get_logger("webhook")


@dataclass
class Delivery:
    """One request: its start, and its event as soon as that is parsed. Requests of other kinds have no event."""

    event: Event | None = None
    started: float = field(default_factory=time.perf_counter)
    """Seconds, of ``time.perf_counter``."""

    @property
    def duration_ms(self) -> float:
        """Milliseconds since the start, to a tenth. ``round`` would take four times as long."""
        return int((time.perf_counter() - self.started) * 10_000 + 0.5) / 10


class Instrumentation:
    """Reports deliveries, calls of the database and requests to Stripe. It never reports a payload."""

    def __init__(self, metrics: Metrics, tracing: Tracing) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._next_login_line = 0.0
        self._unlogged_logins = 0

    def wrap_wsgi(self, application: WSGIApplication) -> WSGIApplication:
        """Return the application with each request timed, and with a span around each delivery."""

        def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            started, status = time.perf_counter(), "500"
            path = "/" + environ.get("PATH_INFO", "").lstrip("/")  # as Flask reads it

            def start(line: str, *arguments: Any) -> Any:
                nonlocal status
                status = line[:3]
                return start_response(line, *arguments)

            try:
                if path not in WEBHOOK_PATHS:
                    return application(environ, start)
                with self._tracing.span("POST /webhook", SpanKind.SERVER):
                    return application(environ, start)
            finally:
                self._metrics.time_request(path, status, time.perf_counter() - started)

        return wrapped

    @contextmanager
    def database_call(self, statement: str, idle: Sized) -> Iterator[None]:
        """Time a call of the database; ``idle`` holds the connections that are not in use."""
        call, result, started = _called_function(statement), "error", time.perf_counter()
        self._metrics.connection_taken()
        try:
            with self._tracing.span(f"database {call}", SpanKind.CLIENT):
                yield
            result = "ok"
        finally:
            self._metrics.time_database_call(call, result, time.perf_counter() - started)
            self._metrics.connection_returned(len(idle))

    @contextmanager
    def stripe_request(self) -> Iterator[None]:
        """Time a request to Stripe's API."""
        result, started = "error", time.perf_counter()
        try:
            with self._tracing.span("stripe", SpanKind.CLIENT):
                yield
            result = "ok"
        finally:
            self._metrics.time_stripe_request(result, time.perf_counter() - started)

    def verified(self, secret: int) -> None:
        """Count a delivery by the position of the secret that signed it, 0 for the first."""
        self._metrics.count_verified(secret, time.time())

    def settled(self, delivery: Delivery, event: Event, outcome: Outcome) -> None:
        """Report the outcome of a verified delivery."""
        self._log_delivery(delivery, event, outcome.name, outcome.reason)

    def rejected(self, delivery: Delivery, rejection: Rejection, path: str | None = None) -> None:
        """Report a delivery that Stripe did not sign, that is not an event, or that came to a wrong ``path``."""
        described = {"outcome": "rejected", "reason": rejection.reason}
        self._metrics.count_rejection(rejection)
        self._tracing.describe(**described)
        if path is not None:
            described["path"] = path if _PATH.fullmatch(path) else OTHER
        log.warning("delivery", **described, duration_ms=delivery.duration_ms)

    def unavailable(self, delivery: Delivery, reason: str, error: Exception) -> None:
        """Report a request that is answered 503. The error's message must be one of ours, without data."""
        self._failed(delivery, reason, type(error).__name__, str(error))

    def bug(self, delivery: Delivery, error: Exception) -> None:
        """Report an unexpected error by its type and location: its message may quote the payload."""
        self._failed(delivery, "bug", type(error).__name__, type(error).__name__, location_of(error))

    def failed_login(self) -> None:
        """Count a failed login of the console, and log at most one line a minute. The name may be a password."""
        self._metrics.count_failed_login()
        now = time.monotonic()
        self._unlogged_logins += 1
        if now >= self._next_login_line:
            log.warning("failed login", count=self._unlogged_logins)
            self._next_login_line, self._unlogged_logins = now + _LOGIN_LINE_SECONDS, 0

    def _failed(self, delivery: Delivery, reason: str, kind: str, cause: str, location: str = "") -> None:
        self._tracing.record_error(kind, cause, location)
        details = {"cause": cause} | ({"location": location} if location else {})
        if delivery.event:
            self._log_delivery(delivery, delivery.event, "unavailable", reason, **details)
        else:
            log.error("unavailable", reason=reason, **details)

    def _log_delivery(self, delivery: Delivery, event: Event, outcome: str, reason: str | None, **details: str) -> None:
        event_type = event.type if _TYPE.fullmatch(event.type) else OTHER
        described = {"event_id": event.id, "type": event_type, "outcome": outcome}
        if reason:
            described["reason"] = reason
        self._metrics.count_delivery(event.type, outcome, reason or "", time.time())
        self._tracing.describe(**described)
        write = getattr(log, _LEVELS.get(outcome, "info"))
        write("delivery", **described, duration_ms=delivery.duration_ms, **details)


def location_of(error: Exception) -> str:
    """Return the functions and lines where an error was raised, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


@cache
def _called_function(statement: str) -> str:
    """Return the ``billing`` function that a statement calls. Statements hold no values, so there are few to cache."""
    function = _FUNCTION.search(statement)
    return function[1] if function else OTHER
