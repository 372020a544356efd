"""What is seen of a delivery: a log line, metrics and spans, from one place."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import structlog
from flask import g

from webhook.events.event import Event
from webhook.events.signature import InvalidDeliveryError
from webhook.ledger.ledger import Outcome
from webhook.observability.metrics import OTHER, Metrics
from webhook.observability.spans import Spans

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_TYPE = re.compile(r"[a-z0-9_.]{1,100}")
_FUNCTION = re.compile(r"\bbilling\.(\w+)\(")

log = structlog.get_logger("webhook")


class Watch:
    """Sees deliveries, calls of the database and requests to Stripe; never a payload."""

    def __init__(self, metrics: Metrics, spans: Spans) -> None:
        """Nothing is seen yet."""
        self._metrics = metrics
        self._spans = spans

    def over(self, application: WSGIApplication) -> WSGIApplication:
        """Return the application with its requests timed, and a span around each delivery."""

        def watched(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            started, path, status = time.perf_counter(), environ.get("PATH_INFO", ""), "500"

            def start(line: str, *arguments: Any) -> Any:
                nonlocal status
                status = line[:3]
                return start_response(line, *arguments)

            try:
                if path != "/webhook":
                    return application(environ, start)
                with self._spans.span("POST /webhook"):
                    return application(environ, start)
            finally:
                self._metrics.answered(path, status, time.perf_counter() - started)

        return watched

    @contextmanager
    def database_call(self, statement: str, idle: Sized) -> Iterator[None]:
        """See one call of the database; ``idle`` are the connections that nobody uses."""
        call, result, started = _call_of(statement), "error", time.perf_counter()
        self._metrics.connection_taken()
        try:
            with self._spans.span(f"database {call}"):
                yield
            result = "ok"
        finally:
            self._metrics.called(call, result, time.perf_counter() - started)
            self._metrics.connection_returned(len(idle))

    @contextmanager
    def stripe_call(self) -> Iterator[None]:
        """See one request to Stripe's API."""
        result, started = "error", time.perf_counter()
        try:
            with self._spans.span("stripe"):
                yield
            result = "ok"
        finally:
            self._metrics.asked_stripe(result, time.perf_counter() - started)

    def settled(self, event: Event, outcome: Outcome) -> None:
        """See what became of a verified delivery."""
        tell = log.warning if outcome.name == "parked" else log.info
        self._tell(tell, event, outcome.name, outcome.reason)

    def refused(self, error: InvalidDeliveryError) -> None:
        """See a delivery that is not Stripe's, or no event."""
        self._metrics.refused(error.rejection)
        self._spans.describe(outcome="refused", reason=error.rejection.cause)
        log.warning("delivery", outcome="refused", reason=error.rejection.cause, milliseconds=_milliseconds())

    def unavailable(self, error: Exception, reason: str) -> None:
        """See a request that cannot be served now; the error's message is one of ours, without data of a delivery."""
        self._fail(reason, type(error).__name__, str(error))

    def bug(self, error: Exception) -> None:
        """See an error that should not be; its message may quote the payload, so only its place is told."""
        places = traceback.extract_tb(error.__traceback__)
        told = " < ".join(f"{place.name}:{place.lineno}" for place in reversed(places))
        self._fail("bug", type(error).__name__, type(error).__name__, told)

    def _fail(self, reason: str, kind: str, cause: str, places: str = "") -> None:
        self._spans.failed(kind, cause, places)
        more = {"cause": cause} | ({"at": places} if places else {})
        event: Event | None = g.get("event")
        if event:
            self._tell(log.error, event, "unavailable", reason, **more)
        else:
            log.error("unavailable", reason=reason, **more)

    def _tell(self, tell: Callable[..., None], event: Event, outcome: str, reason: str | None, **more: str) -> None:
        event_type = event.type if _TYPE.fullmatch(event.type) else OTHER
        described = {"event_id": event.id, "type": event_type, "outcome": outcome}
        if reason:
            described["reason"] = reason
        self._metrics.settled(event.type, outcome, reason or "", time.time())
        self._spans.describe(**described)
        tell("delivery", **described, milliseconds=_milliseconds(), **more)


@cache
def _call_of(statement: str) -> str:
    """Return the function of ``billing`` that is called; statements hold no values, so they are few."""
    function = _FUNCTION.search(statement)
    return function[1] if function else OTHER


def _milliseconds() -> float:
    seconds: float = time.perf_counter() - g.started
    return round(seconds * 1000, 1)
