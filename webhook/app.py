"""The Flask application: verify, hand on, translate the outcome."""

from __future__ import annotations

import logging
import time
import traceback
from http import HTTPStatus

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from webhook.deliveries import BadDelivery, read_event, settle, verify
from webhook.ledger import Ledger, LedgerUnavailable, Outcome
from webhook.settings import Settings, read_settings
from webhook.stripe_api import StripeUnavailable, stripe_api

LARGEST_BODY = 1024 * 1024
RETRY_AFTER = "10"
"""Seconds. Stripe keeps its own schedule; whoever else asks may come back then."""

log = logging.getLogger("webhook")


def from_environment() -> Flask:
    """Return the application as the environment describes it; raises :class:`SettingsError`."""
    return create_app(read_settings())


def create_app(settings: Settings) -> Flask:
    """Return the application. It connects to the database with its first delivery."""
    app = Flask("webhook", static_folder=None)
    # One byte more: a chunked body that is longer than this is cut off here, and has to show that it is too long.
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY + 1
    ledger = app.extensions["ledger"] = Ledger(settings.database_url)
    stripe = stripe_api(settings.stripe)

    @app.post("/webhook", provide_automatic_options=False)
    def webhook() -> Response:
        started = time.perf_counter()
        text = verify(_body(), request.headers.get("Stripe-Signature"), settings.webhook_secrets)
        event = read_event(text)
        outcome = settle(event, text, ledger, settings.guards, stripe)
        _log_delivery(event.id, event.type, outcome, started)
        return _answer(outcome)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz")
    def readyz() -> Response:
        return jsonify(status="ok", schema=ledger.current_schema_version())

    app.register_error_handler(BadDelivery, _refuse)
    app.register_error_handler(HTTPException, _describe)
    app.register_error_handler(LedgerUnavailable, _ask_again)
    app.register_error_handler(StripeUnavailable, _ask_again)
    app.register_error_handler(Exception, _fail)
    return app


def _body() -> bytes:
    body = request.get_data(cache=False)
    if len(body) > LARGEST_BODY:
        raise RequestEntityTooLarge
    return body


def _answer(outcome: Outcome) -> Response:
    body = {"outcome": outcome.name}
    if outcome.reason is not None:
        body["reason"] = outcome.reason
    return jsonify(body)


def _log_delivery(event_id: str, event_type: str, outcome: Outcome, started: float) -> None:
    level = logging.WARNING if outcome.name == "parked" else logging.INFO
    milliseconds = (time.perf_counter() - started) * 1000
    reason = outcome.reason or "-"
    log.log(level, "%s %r %s %s %.1f ms", event_id, event_type, outcome.name, reason, milliseconds)


def _refuse(error: BadDelivery) -> tuple[Response, int]:
    log.warning("refused: %s", error)
    return jsonify(error=str(error)), HTTPStatus.BAD_REQUEST


def _describe(error: HTTPException) -> Response:
    """Answer as Flask does (404, 405, 413 …), in JSON, with the headers that belong to it."""
    response = jsonify(error=error.name)
    response.status_code = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    response.headers.extend(header for header in error.get_headers() if header[0] != "Content-Type")
    return response


def _ask_again(error: LedgerUnavailable | StripeUnavailable) -> tuple[Response, int, dict[str, str]]:
    log.error("unavailable: %s", error)
    return _unavailable("try again later")


def _fail(error: Exception) -> tuple[Response, int, dict[str, str]]:
    """Answer a bug as trouble on our side; its message may quote the payload, so only its place is logged."""
    places = traceback.extract_tb(error.__traceback__)
    log.error("bug: %s at %s", type(error).__name__, " < ".join(f"{p.name}:{p.lineno}" for p in reversed(places)))
    return _unavailable("internal error")


def _unavailable(message: str) -> tuple[Response, int, dict[str, str]]:
    return jsonify(error=message), HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": RETRY_AFTER}
