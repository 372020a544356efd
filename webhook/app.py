"""The Flask application: verify, hand on, translate the outcome."""

from __future__ import annotations

import hmac
import json
import time
from functools import cache
from http import HTTPStatus

from flask import Flask, Response, g, jsonify, request
from gunicorn.http.errors import ParseException
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, Unauthorized

from webhook.delivery import settle
from webhook.events.event import read_event
from webhook.events.signature import InvalidDeliveryError, Rejection, verify
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger, Outcome
from webhook.observability.instrumentation import Watch
from webhook.observability.metrics import Metrics
from webhook.observability.parked_gauge import ParkedGauge
from webhook.observability.spans import Spans, spans
from webhook.settings import Settings, read_settings
from webhook.stripe_api.client import stripe_api
from webhook.stripe_api.errors import StripeUnavailableError

LARGEST_BODY = 1024 * 1024
RETRY_AFTER = "10"
"""Seconds. Stripe keeps its own schedule; whoever else asks may come back then."""


def from_environment() -> Flask:
    """Return the application as the environment describes it; raises :class:`SettingsError`."""
    settings = read_settings()
    return create_app(settings, spans(wanted=settings.is_traced))


def create_app(settings: Settings, traced: Spans | None = None) -> Flask:
    """Return the application. It connects to the database with its first delivery."""
    app = Flask("webhook", static_folder=None)
    # One byte more: a chunked body that is longer than this is cut off here, and has to show that it is too long.
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY + 1
    metrics = Metrics(settings.metrics_folder)
    traced = app.extensions["spans"] = traced or Spans()
    watch = Watch(metrics, traced)
    ledger = app.extensions["ledger"] = Ledger(settings.database_url, watch.database_call)
    stripe = stripe_api(settings.stripe, watch.stripe_call)
    parked = ParkedGauge(ledger.parked_count)

    @app.post("/webhook", provide_automatic_options=False)
    def webhook() -> Response:
        g.started = time.perf_counter()
        text = verify(_body(), request.headers.get("Stripe-Signature"), settings.webhook_secrets)
        event = g.event = read_event(text)
        outcome = settle(event, text, ledger, settings.scope, stripe)
        watch.settled(event, outcome)
        return _answer(outcome)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz() -> Response:
        return jsonify(status="ok", schema=ledger.current_schema_version())

    @app.get("/metrics")
    def exposed() -> Response:
        if settings.metrics_token:
            _require_token(settings.metrics_token)
        return Response(metrics.exposed(parked()), content_type=CONTENT_TYPE_LATEST)

    _handle_errors(app, watch)
    app.wsgi_app = watch.over(app.wsgi_app)  # type: ignore[assignment, method-assign]
    return app


def _handle_errors(app: Flask, watch: Watch) -> None:
    @app.errorhandler(InvalidDeliveryError)
    def refuse(error: InvalidDeliveryError) -> tuple[Response, int]:
        watch.refused(error)
        return jsonify(error=str(error)), HTTPStatus.BAD_REQUEST

    @app.errorhandler(LedgerUnavailableError)
    def ask_again(error: LedgerUnavailableError) -> tuple[Response, int, dict[str, str]]:
        watch.unavailable(error, "database")
        return _unavailable("try again later")

    @app.errorhandler(StripeUnavailableError)
    def ask_again_when_stripe_answers(error: StripeUnavailableError) -> tuple[Response, int, dict[str, str]]:
        watch.unavailable(error, "stripe")
        return _unavailable("try again later")

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Response, int, dict[str, str]]:
        watch.bug(error)
        return _unavailable("internal error")

    app.register_error_handler(HTTPException, _describe)


def _body() -> bytes:
    try:
        body = request.get_data(cache=False)
    except (ParseException, OSError):  # chunks that are none, or a connection that broke
        raise InvalidDeliveryError(Rejection.BROKEN_BODY) from None
    if len(body) > LARGEST_BODY:
        raise RequestEntityTooLarge
    return body


def _require_token(token: str) -> None:
    given = request.authorization
    sent = given.token if given and given.type == "bearer" else None
    if not hmac.compare_digest((sent or "").encode(), token.encode()):
        raise Unauthorized(www_authenticate=WWWAuthenticate("bearer"))


def _answer(outcome: Outcome) -> Response:
    return Response(_body_of(outcome), mimetype="application/json")


@cache
def _body_of(outcome: Outcome) -> bytes:
    """Return the body of an answer: there are few, and most of them are the same."""
    reason = {} if outcome.reason is None else {"reason": outcome.reason}
    return json.dumps({"outcome": outcome.name, **reason}).encode() + b"\n"


def _describe(error: HTTPException) -> Response:
    """Answer as Flask does (404, 405, 413 …), in JSON, with the headers that belong to it."""
    response = jsonify(error=error.name)
    response.status_code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    response.headers.extend(header for header in error.get_headers() if header[0] != "Content-Type")
    return response


def _unavailable(message: str) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error=message), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": RETRY_AFTER}
