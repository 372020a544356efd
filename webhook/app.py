"""The Flask application: verify a delivery, settle it, translate the outcome into an answer."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any

import structlog
from flask import Flask, Request, Response, jsonify, request
from gunicorn.http.errors import ParseException
from opentelemetry.trace import Tracer
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge, Unauthorized
from werkzeug.routing import MapAdapter
from werkzeug.sansio.utils import get_content_length

from webhook.delivery import settle
from webhook.events.event import read_event
from webhook.events.signature import InvalidDeliveryError, Rejection, verify
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome
from webhook.observability.database_counts import DatabaseCounts
from webhook.observability.instrumentation import Delivery, Instrumentation
from webhook.observability.metrics import Metrics
from webhook.observability.tracing import Tracing, is_exporter_installed, worker_tracer
from webhook.settings import ConsoleSettings, Settings, SettingsError, read_settings
from webhook.stripe_api.client import stripe_api
from webhook.stripe_api.errors import StripeUnavailableError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from webhook.console.access import Access
    from webhook.console.console import Console

log = structlog.get_logger("webhook")

LARGEST_BODY = 1024 * 1024
"""Bytes."""
LARGEST_PIECE = 64 * 1024
"""Bytes that are read at once."""
RETRY_AFTER = "10"
"""Seconds. Stripe follows its own schedule; the header is for other clients."""


class Application(Flask):
    """The Flask application with the ledger that it uses."""

    console: Console | None = None

    def __init__(self, ledger: Ledger) -> None:
        super().__init__("webhook", static_folder=None)
        self.ledger = ledger
        # Stripe counts a redirect as a failed delivery.
        self.url_map.merge_slashes = False
        self.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
        self._delivery_adapter = self.url_map.bind("localhost", path_info="/webhook", default_method="POST")
        self._delivery_adapter.match = cache(self._delivery_adapter.match)  # type: ignore[method-assign]

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the adapter that finds the endpoint. Deliveries share one, which looks for theirs once."""
        if request is not None and request.path == "/webhook" and request.method == "POST":
            return self._delivery_adapter
        return super().create_url_adapter(request)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the view itself. Flask would look at each request whether it is a coroutine, and none is."""
        return func

    def close(self) -> None:
        """Close the idle connections to the database."""
        self.ledger.close()
        if self.console:
            self.console.close()


def from_environment() -> Application:
    """Return the application for the environment's settings; raise :class:`SettingsError`."""
    settings = read_settings()
    return create_app(settings, tracer_of(settings))


def tracer_of(settings: Settings) -> Tracer | None:
    """Return the worker's tracer if spans can be exported."""
    return worker_tracer() if settings.is_traced and is_exporter_installed() else None


def create_app(settings: Settings, tracer: Tracer | None = None, access: Access | None = None) -> Application:
    """Return the application. It connects to the database at the first request that needs it.

    ``access`` opens the console to one person on this machine. By default it needs a token of ``CONSOLE_TOKENS``.
    """
    metrics = Metrics(settings.metrics_directory, secrets=len(settings.webhook_secrets))
    instrumentation = Instrumentation(metrics, Tracing(tracer))
    ledger = Ledger(settings.database_url, instrumentation.database_call)
    stripe = stripe_api(settings.stripe, instrumentation.stripe_request)
    counts = DatabaseCounts(ledger.current_counts)
    app = Application(ledger)

    @app.post("/webhook", provide_automatic_options=False)
    @app.post("/webhook/", provide_automatic_options=False)
    def webhook() -> Response:
        delivery = Delivery()
        try:
            text, secret = _verified(request.environ, settings)
            instrumentation.verified(secret)
            delivery.event = event = read_event(text)
            outcome = settle(event, text, ledger, settings.scope, stripe)
            instrumentation.settled(delivery, event, outcome)
            return _answer(outcome)
        except Exception as error:  # noqa: BLE001 - Flask's error handlers would not know the delivery
            return _answer_error(error, delivery, instrumentation)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz() -> Response:
        return jsonify(status="ok", schema=ledger.current_schema_version())

    @app.get("/metrics")
    def render_metrics() -> Response:
        if settings.metrics_token:
            _require_token(settings.metrics_token)
        return Response(metrics.render(counts()), content_type=CONTENT_TYPE_LATEST)

    @app.errorhandler(NotFound)
    def answer_unknown_path(error: NotFound) -> Response:
        if not _is_signed_delivery(settings):
            return _http_error(error)
        instrumentation.rejected(Delivery(), Rejection.WRONG_PATH, path=request.environ["PATH_INFO"])
        return _error(HTTPStatus.NOT_FOUND, Rejection.WRONG_PATH.value)

    @app.errorhandler(Exception)
    def answer_error(error: Exception) -> Response:
        return _answer_error(error, Delivery(), instrumentation)

    _add_console(app, settings.console, access, instrumentation)
    app.wsgi_app = instrumentation.wrap_wsgi(app.wsgi_app)  # type: ignore[assignment, method-assign]
    return app


def _add_console(
    app: Application,
    settings: ConsoleSettings | SettingsError | None,
    access: Access | None,
    instrumentation: Instrumentation,
) -> None:
    """Add the console if it is open. A bad setting closes it and stops nothing else."""
    if settings is None:
        return
    from webhook.console import blueprint  # noqa: PLC0415 - a worker without a console does not load it

    if isinstance(settings, SettingsError):
        log.error("console closed", cause=str(settings))
        blueprint.add_closed_console(app)
    else:
        app.console = blueprint.add_console(app, settings, access, instrumentation)


def _verified(environ: WSGIEnvironment, settings: Settings) -> tuple[str, int]:
    """Return the body and the position of the secret that signed it."""
    return verify(_body(environ), environ.get("HTTP_STRIPE_SIGNATURE"), settings.webhook_secrets)


def _body(environ: WSGIEnvironment) -> bytes:
    """Return the body. It is read directly: Werkzeug's own stream would copy it twice."""
    # None for a chunked body
    length = get_content_length(environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))
    if length is not None and length > LARGEST_BODY:
        raise RequestEntityTooLarge
    try:
        body = _read(environ["wsgi.input"], LARGEST_BODY + 1 if length is None else length)
    except (ParseException, OSError):  # malformed chunks, or a broken connection
        raise InvalidDeliveryError(Rejection.BROKEN_BODY) from None
    if len(body) > LARGEST_BODY:
        raise RequestEntityTooLarge
    return body


def _read(stream: IO[bytes], size: int) -> bytes:
    """Return the next ``size`` bytes, fewer if the body ends before. A read reserves memory for all it asks for."""
    pieces = []
    while size > 0 and (piece := stream.read(min(size, LARGEST_PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _is_signed_delivery(settings: Settings) -> bool:
    """Return whether Stripe sent the request. Anything else at an unknown path is a scan, and not worth a log line."""
    if request.method != "POST":
        return False
    try:
        _verified(request.environ, settings)
    except (InvalidDeliveryError, RequestEntityTooLarge):
        return False
    return True


def _require_token(token: str) -> None:
    given = request.authorization
    sent = given.token if given and given.type == "bearer" else None
    if not hmac.compare_digest((sent or "").encode(), token.encode()):
        raise Unauthorized(www_authenticate=WWWAuthenticate("bearer"))


class _Answer(Response):
    """An answer to a delivery. Its headers are complete, so Werkzeug need not derive any before it is sent."""

    def __call__(self, _: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return self.iter_encoded()


def _answer(outcome: Outcome) -> Response:
    return _Answer(_body_of(outcome.name, outcome.reason), content_type="application/json")


@cache
def _body_of(outcome: str, reason: str | None) -> bytes:
    """Return the body of an answer. There are few different ones, so they are cached."""
    reasons = {} if reason is None else {"reason": reason}
    return json.dumps({"outcome": outcome, **reasons}).encode() + b"\n"


def _answer_error(error: Exception, delivery: Delivery, instrumentation: Instrumentation) -> Response:
    """Report the error and return its answer: 400, 503, or that of an HTTP error (404, 405, 413, …)."""
    match error:
        case HTTPException():
            return _http_error(error)
        case InvalidDeliveryError():
            instrumentation.rejected(delivery, error.rejection)
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        case LedgerUnavailableError():
            instrumentation.unavailable(delivery, "database", error)
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "try again later")
        case StripeUnavailableError():
            instrumentation.unavailable(delivery, "stripe", error)
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "try again later")
        case _:
            instrumentation.bug(delivery, error)
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "internal error")


def _http_error(error: HTTPException) -> Response:
    """Return Flask's answer as JSON, with the headers of the error, such as Allow."""
    response = _error(error.code or HTTPStatus.INTERNAL_SERVER_ERROR, error.name)
    response.headers.extend(header for header in error.get_headers() if header[0] != "Content-Type")
    return response


def _error(status: int, message: str) -> Response:
    response = jsonify(error=message)
    response.status_code = status
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER
    return response
